"""A total among the levels is refused where name and arithmetic say so, and said where one of them does."""

import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte


def summary(total: str | None, shift: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    parts = pd.DataFrame(
        [(f"s{i}", arm, int(rng.integers(200, 900))) for i in range(4) for arm in ("c", "t")],
        columns=["seg", "arm", "n"],
    )
    parts["y"] = rng.binomial(parts["n"], 0.2)
    totals = parts.groupby("arm", as_index=False)[["n", "y"]].sum().assign(seg=total)
    return pd.concat([parts, totals.assign(n=totals["n"] + shift)], ignore_index=True)


def cells_of(table: pd.DataFrame) -> object:
    return hte.cells.from_summary(table, arm="arm", control="c", segments=["seg"], n="n", events="y")


@pytest.mark.parametrize("name", ["Total", "(all)", "ALL", "Overall", "Gesamt", "grand total", "All users", None, ""])
def test_a_total_by_name_and_sums_is_refused(name: str | None) -> None:
    with pytest.raises(hte.DataError, match=r"is the total of the others.*leave its rows out"):
        cells_of(summary(name))


def test_sums_alone_and_a_name_alone_are_said() -> None:
    assert any("has the numbers of all other levels together" in text for text in hte.check(cells_of(summary("s9"))))
    assert any("is named like a total" in text for text in hte.check(cells_of(summary("Total", shift=3))))


@pytest.mark.parametrize("name", ["other", "Allendale", "Totnes", "none at all"])
def test_ordinary_levels_are_not_questioned(name: str) -> None:
    assert not any("total" in text for text in hte.check(cells_of(summary(name, shift=3))))


@pytest.mark.parametrize("sets", [[("a",), ("b",), ()], [("a",), ()]])
def test_a_cube_and_a_rollup_are_refused(sets: list[tuple[str, ...]]) -> None:
    rng = np.random.default_rng(3)
    cross = pd.DataFrame(
        [(a, b, arm, int(rng.integers(100, 500))) for a in "AB" for b in "XYZ" for arm in ("c", "t")],
        columns=["a", "b", "arm", "n"],
    )
    cross["y"] = rng.binomial(cross["n"], 0.3)
    sums = [cross.groupby([*kept, "arm"], as_index=False)[["n", "y"]].sum() for kept in sets]
    ask = {"arm": "arm", "control": "c", "segments": ["a", "b"], "n": "n", "events": "y"}
    with pytest.raises(hte.DataError, match="as a rollup leaves a level empty"):
        hte.cells.from_summary(pd.concat([cross, *sums]), **ask)
    assert not any("total" in text for text in hte.check(hte.cells.from_summary(cross, **ask)))


def test_rows_wide_tables_and_means_are_seen_through() -> None:
    rng = np.random.default_rng(4)
    rows = pd.DataFrame({"seg": rng.choice(list("abc"), 900), "arm": rng.choice(["c", "t"], 900)})
    rows["y"] = rng.normal(5, 2, 900)
    ask = {"arm": "arm", "control": "c", "segments": ["seg"]}
    for label in (None, "Total"):
        with pytest.raises(hte.DataError, match="total"):
            hte.cells.from_rows(pd.concat([rows, rows.assign(seg=label)]), outcome="y", **ask)
    moments = pd.concat([rows, rows.assign(seg="Overall")]).groupby(["seg", "arm"])["y"].agg(["size", "mean", "std"])
    with pytest.raises(hte.DataError, match="total"):  # published numbers are rounded
        hte.cells.from_summary(moments.reset_index().round(2), n="size", mean="mean", sd="std", **ask)
    wide = summary("total").pivot(index="seg", columns="arm")
    wide.columns = [f"{name}_{arm}" for name, arm in wide.columns]
    arms = {arm: {"n": f"n_{arm}", "events": f"y_{arm}"} for arm in ("c", "t")}
    with pytest.raises(hte.DataError, match="total"):
        hte.cells.from_wide(wide.reset_index(), segments=["seg"], arms=arms, control="c")


def test_a_pooled_estimate_among_estimates_is_seen_through() -> None:
    y, se = np.array([0.11, 0.32, 0.2]), np.array([0.1, 0.2, 0.15])
    w = se**-2
    pooled = {"y": [*y, round(float(w @ y / w.sum()), 2)], "se": [*se, round(float(w.sum() ** -0.5), 3)]}
    ask = {"segments": ["seg"], "estimate": "y", "se": "se"}
    with pytest.raises(hte.DataError, match="precision-weighted mean"):
        hte.cells.from_estimates(pd.DataFrame({"seg": ["a", "b", "c", "Overall"], **pooled}), **ask)
    said = hte.check(hte.cells.from_estimates(pd.DataFrame({"seg": ["a", "b", "c", "d"], **pooled}), **ask))
    assert any("of all other levels together" in text for text in said)
