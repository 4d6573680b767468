"""A plan that `init` writes runs as it is, or says what is missing, whatever columns are called."""

import tomllib
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from paths import ROOT

import bayes_hte as hte
from bayes_hte import DataError, OutputError, PlanError
from bayes_hte.analysis.plan_proposal.init_plan import init_plan
from bayes_hte.analysis.plan_proposal.template import TEMPLATE
from bayes_hte.analysis.run import prepare_analysis

DATA_FILES = sorted((ROOT / "examples").rglob("*.csv"))
WELL_KNOWN = {"eight_schools", "forms", "hillstrom", "thornton"}
INCOMPLETE = {"wide.csv": {"arm", "control"}, "thornton.csv": {"segments"}}
"""Files whose columns do not say everything: arms in the names of columns, villages by number."""


def invent_rows(count: int = 400) -> pd.DataFrame:
    draw = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "user_id": np.arange(count),
            "device": draw.choice(["mobile", "tv"], count),
            "arm": draw.choice(["old", "new"], count),
            "bought": draw.integers(0, 2, count),
        }
    )


@pytest.mark.parametrize("data", DATA_FILES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_the_plan_of_every_example_is_checked_or_says_what_is_missing(data, tmp_path):
    initial = init_plan(str(data), tmp_path / "plan.toml")
    blanks = {line.split()[2] for line in initial.lines if line.startswith("FILL IN")}
    faults = [line for line in initial.lines if line.startswith("it does not run yet")]
    if data.parent.name in WELL_KNOWN:
        assert (blanks, faults) == (INCOMPLETE.get(data.name, set()), [])
    if blanks or faults:
        with pytest.raises((PlanError, DataError)) as raised:
            prepare_analysis(tmp_path / "plan.toml")
        assert all(f"data.{key}: should " in str(raised.value) for key in blanks)
    else:
        assert prepare_analysis(tmp_path / "plan.toml").cells.sizes["segment"] > 1


def test_the_plan_of_rows_runs_to_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invent_rows().to_csv("visits.csv", index=False)
    Path("plans").mkdir()
    init_plan("visits.csv", Path("plans/plan.toml"))
    plan = hte.read_plan("plans/plan.toml")
    assert (plan.title, plan.data.path, plan.report.higher_is_better) == ("visits", "../visits.csv", True)
    fit = hte.run("plans/plan.toml", draws=400)
    assert fit.table()["device"].tolist() == ["mobile", "tv"]


def test_nothing_is_overwritten(tmp_path):
    out = tmp_path / "plan.toml"
    out.write_text("mine")
    for data in (None, str(DATA_FILES[0])):
        with pytest.raises(OutputError, match=r"there is a file .* already, and nothing is overwritten"):
            init_plan(data, out)
    assert out.read_text() == "mine"


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        init_plan(None, tmp_path / "absent" / "plan.toml")


def test_data_that_cannot_be_read_leave_no_plan(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        init_plan(str(tmp_path / "absent.csv"), tmp_path / "plan.toml")
    assert not (tmp_path / "plan.toml").exists()


HOSTILE = [
    'a"]\n[report]\nci_prob = 0.5 #',
    "x\r\ny",
    "'''",
    '"""',
    "tab\there",
    "ünï \u2028 cöde",
    "\\",
    "# no comment",
    "\x7f",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("role", ["device", "arm", "bought", "user_id"])
def test_hostile_names_of_columns_are_names(name, role, tmp_path):
    name = f"{name} {role}"  # so that its part can still be guessed
    rows = invent_rows().rename(columns={role: name})
    rows.to_parquet(tmp_path / "rows.parquet")
    init_plan(str(tmp_path / "rows.parquet"), tmp_path / "plan.toml")
    content = tomllib.loads((tmp_path / "plan.toml").read_text(encoding="utf-8"))
    assert set(content) <= {"title", "model", "data", "report"}
    assert set(content["report"]) <= {"higher_is_better"}
    assert name in {"device": content["data"]["segments"]}.get(role, content["data"].values())
    prepare_analysis(tmp_path / "plan.toml")


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
    levels=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8),
                    min_size=2, max_size=5, unique=True),
)  # fmt: skip
def test_any_name_and_any_levels_give_a_valid_file(name, levels, tmp_path):
    rows = invent_rows(60).rename(columns={"device": f"{name}?"})
    rows[f"{name}?"] = [levels[i % len(levels)] for i in range(60)]
    rows.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "plan.toml").unlink(missing_ok=True)
    init_plan(str(tmp_path / "rows.parquet"), tmp_path / "plan.toml")
    content = tomllib.loads((tmp_path / "plan.toml").read_text(encoding="utf-8"))
    assert content["data"]["arm"] == "arm"
    assert set(content) <= {"title", "model", "data", "report"}


def test_where_no_proposal_runs_the_fullest_is_written(tmp_path):
    rows = invent_rows().assign(bought=lambda table: table["bought"].where(table["arm"] == "new"))
    rows["country"] = np.random.default_rng(2).choice(["AT", "DE"], len(rows))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    init_plan(str(tmp_path / "rows.csv"), tmp_path / "plan.toml")
    content = tomllib.loads((tmp_path / "plan.toml").read_text(encoding="utf-8"))
    # One dimension alone was tried after both: it runs no better, and would leave the other out for nothing.
    assert content["data"]["segments"] == ["device", "country"]


def test_a_fault_that_shows_only_when_tried_is_said_in_the_plan(tmp_path):
    rows = invent_rows().assign(bought=lambda table: table["bought"].where(table["arm"] == "new"))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    initial = init_plan(str(tmp_path / "rows.csv"), tmp_path / "plan.toml")
    fault = "no unit is in the control arm 'old'"
    assert any(line.startswith(f"# It does not run yet: {fault}") for line in initial.text.splitlines())
    assert initial.lines[-1].startswith(f"it does not run yet: {fault}")
    with pytest.raises(DataError, match=fault):
        prepare_analysis(tmp_path / "plan.toml")


def test_a_table_of_a_database_is_named_in_the_plan(tmp_path):
    import sqlite3

    connection = sqlite3.connect(tmp_path / "shop.sqlite")
    invent_rows().to_sql("visits", connection, index=False)
    invent_rows().to_sql("other", connection, index=False)
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match="several tables"):
        init_plan(str(tmp_path / "shop.sqlite"), tmp_path / "plan.toml")
    init_plan(str(tmp_path / "shop.sqlite"), tmp_path / "plan.toml", table="visits")
    assert hte.read_plan(tmp_path / "plan.toml").data.table == "visits"
    prepare_analysis(tmp_path / "plan.toml")


def test_the_template_names_what_is_missing(tmp_path):
    init_plan(None, tmp_path / "plan.toml")
    with pytest.raises(PlanError) as raised:
        hte.read_plan(tmp_path / "plan.toml")
    for key in ("path", "outcome", "arm", "control", "segments"):
        assert f"data.{key}: should " in str(raised.value)
    for form, block in list_template_forms().items():
        plan = hte.Plan(title="A test", model="conversion", data=tomllib.loads(block)["data"])
        assert plan.data.form == form


def list_template_forms() -> dict[str, str]:
    """The tables of other forms that stand in the template as comments."""
    blocks = [block.split("#\n")[0] for block in TEMPLATE.split("#   [data]\n")[1:]]
    tables = ["[data]\n" + block.replace("#   ", "") for block in blocks]
    return {tomllib.loads(table)["data"]["form"]: table for table in tables}


def test_the_template_has_every_form():
    assert set(list_template_forms()) == {"times", "summary", "wide", "levels", "estimates", "table"}
