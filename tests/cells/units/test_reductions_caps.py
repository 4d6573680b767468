"""cap= and cap_quantile=: the same as moving outcomes to the bounds before the reduction."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bayes_hte.cells import from_rows, merge
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table


def people(n: int = 300, seed: int = 9) -> dict[str, list[Any]]:
    """Revenue with a long tail, and a difference of revenues that has one on both sides."""
    draw = np.random.default_rng(seed)
    return {
        "arm": draw.choice(["old", "new"], n).tolist(),
        "device": draw.choice(["mobile", "tv"], n).tolist(),
        "revenue": (draw.lognormal(2, 1.5, n) * (draw.random(n) < 0.6)).tolist(),
        "change": draw.standard_t(2, n).tolist(),
        "visits": draw.poisson(4, n).tolist(),
        "views": (draw.poisson(4, n) + 1).tolist(),
        "village": (np.arange(n) % 40).tolist(),
    }


def read(data: Any, **asked: Any) -> xr.Dataset:
    keys: dict[str, Any] = {"outcome": "revenue", "arm": "arm", "control": "old", "segments": ["device"]}
    return from_rows(data, **{**keys, **asked})


def same_numbers(one: xr.Dataset, other: xr.Dataset) -> None:
    xr.testing.assert_allclose(one.drop_attrs(), other.drop_attrs(), rtol=1e-9, atol=1e-12)


KINDS: dict[str, dict[str, Any]] = {
    "mean": {},
    "two_part": {"metric": "two_part"},
    "ratio": {"denominator": "views"},
    "cluster": {"cluster": "village"},
    "weights": {"weights": "views"},
    "cuped": {"cuped": "change"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cap", [20.0, (1.0, 20.0)])
def test_a_cap_is_that_of_numpy_in_every_engine(engine, kind, cap):
    if kind == "two_part" and isinstance(cap, tuple):
        cap = (0.0, 20.0)  # with a smallest outcome above 0 there is one part
    columns = people()
    cells = read(engine(columns), cap=cap, **KINDS[kind])
    low, high = cap if isinstance(cap, tuple) else (-np.inf, cap)
    same_numbers(cells, read(columns_with(columns, revenue=np.clip(columns["revenue"], low, high)), **KINDS[kind]))


def columns_with(columns: dict[str, list[Any]], **changed: Any) -> pd.DataFrame:
    return pd.DataFrame(columns).assign(**changed)


@pytest.mark.parametrize("cap", [3, (2, 6)])
def test_a_histogram_is_capped(engine, cap):
    columns = people()
    cells = read(engine(columns), outcome="visits", metric="histogram", cap=cap)
    low, high = cap if isinstance(cap, tuple) else (-np.inf, cap)
    expected = columns_with(columns, visits=np.clip(columns["visits"], low, high))
    same_numbers(cells, read(expected, outcome="visits", metric="histogram"))


@pytest.mark.parametrize("quantile", [0.9, (0.05, 0.95), (0.0, 0.99)])
@pytest.mark.parametrize("kind", ["mean", "cuped"])
def test_a_cap_at_a_quantile_is_that_of_numpy_in_every_engine(engine, kind, quantile):
    columns = people()
    cells = read(engine(columns), outcome="change", cap_quantile=quantile, **{**KINDS[kind], **cuped(kind)})
    share = quantile if isinstance(quantile, tuple) else (None, quantile)
    low, high = (
        infinite if each is None else six_digits(np.quantile(columns["change"], each, method="linear"))
        for each, infinite in zip(share, (-np.inf, np.inf), strict=True)
    )
    expected = columns_with(columns, change=np.clip(columns["change"], low, high))
    same_numbers(cells, read(expected, outcome="change", **{**KINDS[kind], **cuped(kind)}))


def six_digits(value: Any) -> float:
    return float(f"{value:.6g}")


def cuped(kind: str) -> dict[str, Any]:
    return {"cuped": "views"} if kind == "cuped" else {}


def test_the_quantile_is_one_of_all_arms_and_segments_and_of_finite_outcomes():
    rows = columns_with(people(), revenue=lambda x: x["revenue"].where(x.index % 10 > 0))
    cells = read(rows, cap_quantile=0.9, drop_missing=True)
    high = six_digits(np.nanquantile(rows["revenue"], 0.9))
    same_numbers(cells, read(rows.assign(revenue=rows["revenue"].clip(None, high)), drop_missing=True))


def test_the_outcome_and_a_note_state_the_cap(engine):
    columns = people()
    beyond = sum(value > 20 for value in columns["revenue"])
    cells = read(engine(columns), cap=20)
    assert cells.attrs["outcome"] == "revenue (at most 20)"
    assert cell_table.list_notes(cells) == [
        f"{beyond} of 300 outcomes in 'revenue' lie beyond the cap; revenue (at most 20)",
    ]
    cells = read(engine(columns), outcome="change", cap=(-1.5, 2.5))
    outside = sum(not -1.5 <= value <= 2.5 for value in columns["change"])
    assert cells.attrs["outcome"] == "change (at least -1.5, at most 2.5)"
    assert cell_table.list_notes(cells)[0].startswith(f"{outside} of 300 outcomes in 'change' lie beyond the cap; ")


def test_a_ratio_states_its_cap_too():
    cells = read(pd.DataFrame(people()), cap=20, denominator="views")
    assert cells.attrs["outcome"] == "revenue (at most 20) per views"


def test_a_value_of_a_quantile_is_stated():
    rows = pd.DataFrame(people())
    cells = read(rows, cap_quantile=0.9)
    assert cells.attrs["outcome"] == f"revenue (at most {np.quantile(rows['revenue'], 0.9):.6g})"
    assert cell_table.list_notes(cells)[0].startswith("30 of 300 outcomes in 'revenue' lie beyond the cap")


def test_a_cap_that_no_outcome_reaches_changes_nothing():
    rows = pd.DataFrame(people())
    cells = read(rows, cap=1e9)
    same_numbers(cells, read(rows))
    assert cell_table.list_notes(cells)[0].startswith("0 of 300 outcomes")


def test_tables_with_different_caps_cannot_be_merged():
    rows = pd.DataFrame(people())
    one, other = rows[:150], rows[150:]
    same_numbers(merge(read(one, cap=20), read(other, cap=20)), read(rows, cap=20))
    for asked in ({"cap": 21}, {}, {"cap": (1, 20)}, {"cap_quantile": 0.9}):
        with pytest.raises(DataError, match=r"different outcome cannot be merged: 'revenue .at most 20.'"):
            merge(read(one, cap=20), read(other, **asked))
    with pytest.raises(DataError, match="different outcome"):
        merge(read(one, cap_quantile=0.9), read(other, cap_quantile=0.9))


def test_tables_with_caps_that_differ_in_the_seventh_digit_cannot_be_merged():
    rows = pd.DataFrame(people()).assign(revenue=lambda x: x["revenue"] * 1e6)
    with pytest.raises(DataError, match="different outcome"):
        merge(read(rows[:150], cap=10_000_001), read(rows[150:], cap=10_000_002))


@settings(max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=20), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_a_cap_on_both_sides_is_that_of_numpy(values, low, width):
    rows = pd.DataFrame({"arm": ["old", "new"] * 10, "device": "a", "y": values})
    capped = np.clip(values, low, low + width)
    if np.ptp(capped) == 0:
        return
    cells = read(rows, outcome="y", cap=(low, low + width))
    expected = read(rows.assign(y=capped), outcome="y")
    np.testing.assert_allclose(cells["mean"], expected["mean"], rtol=1e-12)
    np.testing.assert_allclose(cells["ss"], expected["ss"], rtol=1e-12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cap": (1, np.inf)}, r"cap is \(1, inf\); give a finite number"),
        ({"cap": np.nan}, "cap is nan; give a finite number"),
        ({"cap_quantile": 0.0}, "cap_quantile is 0.0; quantiles lie between 0 and 1"),
        ({"cap_quantile": (0.9, 0.1)}, r"cap_quantile is \(0.9, 0.1\); give a finite number, or a pair"),
        ({"cap_quantile": (-0.1, 0.9)}, r"cap_quantile is \(-0.1, 0.9\)"),
        ({"cap": -5}, r"the cap \(at most -5\) makes all outcomes in 'revenue' equal"),
        ({"cap": "1"}, "cap is '1'; give a finite number, or a pair"),
        ({"cap": True}, "cap is True; give a finite number"),
        ({"cap": (1, 2, 3)}, r"cap is \(1, 2, 3\); give a finite number, or a pair"),
        ({"cap": (None, 1)}, r"cap is \(None, 1\); give a finite number, or a pair"),
        ({"cap": 10**400}, "cap is an int; give a finite number"),
    ],
)
def test_caps_that_make_no_sense_are_refused(asked, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(pd.DataFrame(people()), **asked)


def test_a_quantile_of_no_number_is_refused():
    rows = pd.DataFrame(people(20)).assign(revenue=np.nan)
    with pytest.raises(DataError, match="the outcome 'revenue' has no finite value"):
        read(rows, cap_quantile=0.9)


@pytest.mark.parametrize(
    ("cap", "same"),
    [
        (np.int64(20), 20),
        (np.float32(20.0), 20),
        (np.array(20), 20),
        (np.array([1, 20]), (1, 20)),
        (pd.Series([1.0, 20.0]), (1, 20)),
        ([np.int64(1), 20], (1, 20)),
    ],
    ids=str,
)
def test_a_cap_may_be_a_number_of_numpy_or_pandas(cap, same):
    same_numbers(read(pd.DataFrame(people()), cap=cap), read(pd.DataFrame(people()), cap=same))


def test_a_quantile_may_be_a_number_of_numpy():
    data = pd.DataFrame(people())
    same_numbers(read(data, cap_quantile=np.float64(0.9)), read(data, cap_quantile=0.9))


def rare_payers() -> pd.DataFrame:
    revenue = [50.0] * 4 + [0.0] * 996
    return pd.DataFrame({"arm": ["old", "new"] * 500, "device": ["tv", "tv", "web", "web"] * 250, "revenue": revenue})


@pytest.mark.parametrize("kind", [{}, {"metric": "two_part"}, {"metric": "histogram"}], ids=str)
def test_a_cap_that_hides_the_few_who_pay_is_named_with_the_way_out(kind):
    said = r"the cap \(at most 0\) makes all outcomes in 'revenue' equal.*; give cap_quantile a higher quantile, or cap"
    with pytest.raises(DataError, match=said):
        read(rare_payers(), cap_quantile=0.99, **kind)


def test_a_cap_is_not_blamed_for_outcomes_that_never_varied():
    with pytest.raises(DataError, match="every outcome in 'revenue' is 0"):
        read(rare_payers().assign(revenue=0.0), cap=10)


def test_a_cap_that_makes_the_numerators_equal_leaves_a_ratio():
    data = rare_payers().assign(views=[1, 2, 3, 4, 5] * 200, revenue=7.0)
    assert read(data, cap=5, denominator="views").sizes["segment"] == 2
