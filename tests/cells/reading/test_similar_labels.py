"""Labels that a person takes for one are said, and folded on request: rows, times, summaries, values, estimates."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte
from bayes_hte.errors import ArgumentError

ROWS = pd.DataFrame(
    {
        "city": ["Bonn", "bonn ", "Köln", "Ko\u0308ln", "Bonn", "Bonn", "Köln", "Köln"] * 30,
        "arm": ["control", "new", "Control", "NEW", "new", "control", "new", "control"] * 30,
        "spent": np.tile([1.0, 3.0, 2.0, 5.0, 4.0, 2.5, 3.5, 1.5], 30) + np.arange(240) % 7,
    }
)
ASK = {"arm": "arm", "control": "control", "segments": ["city"]}


def test_similar_arms_and_levels_are_said_and_nothing_is_folded_unasked() -> None:
    cells = hte.cells.from_rows(ROWS, outcome="spent", **ASK)
    assert cells.sizes == {"segment": 4, "arm": 4}
    said = " ".join(hte.check(cells))
    assert "the arms 'control' and 'Control' differ only in case, spaces or Unicode form" in said
    assert "'bonn '" in said
    assert "fold_labels=True (fold_labels = true under [data] in a plan)" in said


def test_folded_rows_are_those_of_clean_data() -> None:
    clean = ROWS.assign(
        city=ROWS["city"].replace({"bonn ": "Bonn", "Ko\u0308ln": "Köln"}),
        arm=ROWS["arm"].replace({"Control": "control", "NEW": "new"}),
    )
    folded = hte.cells.from_rows(ROWS, outcome="spent", fold_labels=True, **ASK)
    expected = hte.cells.from_rows(clean, outcome="spent", **ASK)
    for name in ("n", "mean", "ss"):
        np.testing.assert_allclose(folded[name], expected[name])
    assert folded["city"].values.tolist() == ["Bonn", "Köln"]
    assert any("'Control' (30 rows) to 'control'" in note for note in hte.check(folded))
    assert not any("spellings" in note for note in hte.check(folded))


def test_the_spelling_of_the_control_stays_however_rare() -> None:
    rows = ROWS.assign(arm=np.where(np.arange(240) % 8 == 0, "CONTROL", ROWS["arm"]))
    cells = hte.cells.from_rows(
        rows, outcome="spent", fold_labels=True, arm="arm", control="CONTROL", segments=["city"]
    )
    assert cells["arm"].values.tolist() == ["CONTROL", "new"]


def test_times_summaries_values_and_estimates_fold_too() -> None:
    times = ROWS.assign(time=ROWS["spent"], event=1)
    assert hte.cells.from_times(times, time="time", event="event", fold_labels=True, **ASK).sizes["segment"] == 2
    summary = pd.DataFrame({"city": ["a", "A ", "b", "B"], "arm": ["control", "new", "Control", "New"], "n": 9, "y": 4})
    ask = {"arm": "arm", "control": "control", "segments": ["city"], "fold_labels": True}
    cells = hte.cells.from_summary(summary, n="n", events="y", **ask)
    assert cells["n"].values.tolist() == [[9, 9], [9, 9]]
    values = summary.loc[[0, 1, 2, 3, 0, 1, 2, 3]].assign(value=[1, 1, 1, 1, 2, 2, 2, 2])
    assert hte.cells.from_levels(values, value="value", count="n", **ask)["n"].values.tolist() == [[18, 18], [18, 18]]
    estimates = pd.DataFrame({"site": ["x", "y"], "arm": ["drug", "Drug "], "d": [1.0, 2.0], "se": [1.0, 1.0]})
    folded = hte.cells.from_estimates(estimates, segments=["site"], arm="arm", estimate="d", se="se", fold_labels=True)
    assert folded["arm"].values.tolist() == ["drug"]


def test_rows_of_a_summary_that_then_are_one_cell_are_refused_by_name() -> None:
    summary = pd.DataFrame({"city": ["a", "A", "a", "A"], "arm": ["c", "c", "t", "t"], "n": 9, "y": 4})
    with pytest.raises(hte.DataError, match="appears twice"):
        hte.cells.from_summary(summary, arm="arm", control="c", segments=["city"], n="n", events="y", fold_labels=True)


def test_clusters_are_not_folded_after_they_were_added_up() -> None:
    with pytest.raises(ArgumentError, match="would count twice"):
        hte.cells.from_rows(ROWS.assign(g=np.arange(240)), outcome="spent", cluster="g", fold_labels=True, **ASK)


def test_a_plan_folds_labels(tmp_path: Path) -> None:
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "plan.toml").write_text(
        'title = "t"\nmodel = "continuous"\n[data]\npath = "rows.csv"\noutcome = "spent"\narm = "arm"\n'
        'control = "control"\nsegments = ["city"]\nfold_labels = true\n'
    )
    assert hte.run(tmp_path / "plan.toml").cells.sizes == {"segment": 2, "arm": 2}
