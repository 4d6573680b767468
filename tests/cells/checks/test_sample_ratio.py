"""sample_ratio, with_shares, and what check says of the shares of the arms."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bayes_hte.cells import check, from_estimates, sample_ratio, with_shares
from bayes_hte.cells.checks.check import collect_findings
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

HALVES = {"old": 0.5, "new": 0.5}


def units(n, *, arms=("old", "new"), dims=None, **more) -> xr.Dataset:
    """A cell table with numbers of units only; events are a tenth of them."""
    n = np.asarray(n, dtype=np.int64)
    labels = [f"s{i}" for i in range(len(n))]
    dims = {"device": labels} if dims is None else dims
    cells = xr.Dataset(
        {"n": (("segment", "arm"), n), "events": (("segment", "arm"), n // 10)},
        coords={"segment": labels, "arm": list(arms)} | {dim: ("segment", levels) for dim, levels in dims.items()},
        attrs={"outcome": "y", "control": arms[0], "dimensions": cell_table.encode_text_list(dims), "notes": "[]"},
    )
    return cell_table.check_cell_table(
        cells.assign({name: (("segment", "arm"), np.asarray(values)) for name, values in more.items()})
    )


def unfair(cells: xr.Dataset, shares=None) -> tuple[str, ...]:
    return collect_findings(cells, shares).validity_warnings


# --- numbers


def test_the_published_example_has_its_published_p_value():
    """Kohavi, Tang & Xu 2020, Trustworthy online controlled experiments, chapter 21, scenario 1: p = 1.8E-6.

    By hand: (821,588 − 815,482)² / 1,637,070 = 22.774 with one degree of freedom.
    """
    row = sample_ratio(units([[821_588, 815_482]]), HALVES).iloc[0]
    assert row["segment"] == "(all)"
    assert row["statistic"] == pytest.approx(22.774, abs=5e-4)
    assert f"{row['p']:.1E}" == "1.8E-06"


def test_shares_are_tested_as_scipy_does_overall_and_in_large_segments():
    n = np.array([[8000, 3900, 2100], [4000, 2100, 2050]])
    shares = {"old": 2, "new": 1, "newer": 1}
    found = sample_ratio(units(n, arms=tuple(shares)), shares)
    for row, counts in zip(found.to_dict("records"), [n.sum(axis=0), *n], strict=True):
        oracle = stats.chisquare(counts, counts.sum() * np.array([0.5, 0.25, 0.25]))
        assert row["statistic"] == pytest.approx(oracle.statistic)
        assert row["p"] == pytest.approx(oracle.pvalue, rel=1e-8)
        assert [row[f"n_{arm}"] for arm in shares] == counts.tolist()
        assert [row[f"expected_{arm}"] for arm in shares] == pytest.approx(counts.sum() * np.array([0.5, 0.25, 0.25]))
        assert row["dof"] == 2


def test_small_segments_are_tested_exactly_against_the_plan():
    n = [[3, 1], [40, 20], [2000, 2000]]
    found = sample_ratio(units(n), {"old": 0.3, "new": 0.7})
    assert found["exact"].tolist() == [False, True, True, False]
    for p, (old, new) in zip(found["p"][1:3], n, strict=False):
        assert p == pytest.approx(stats.binomtest(old, old + new, 0.3).pvalue)


def test_without_a_plan_segments_are_held_to_the_others():
    n = np.array([[900, 300], [500, 180], [700, 220]])
    found = sample_ratio(units(n))
    oracle = stats.chisquare(n.sum(axis=0))
    assert found["p"][0] == pytest.approx(oracle.pvalue)
    for i in range(3):
        table = np.stack([n[i], n.sum(axis=0) - n[i]])
        assert found["p"][i + 1] == pytest.approx(stats.chi2_contingency(table, correction=False).pvalue)


def test_holm_is_over_segments_with_units():
    found = sample_ratio(units([[50, 50], [0, 0], [30, 60]]), HALVES)
    assert np.isnan(found["p"][2])
    assert found["p_holm"][3] == pytest.approx(2 * found["p"][3])
    assert found["p_holm"][[0, 2]].isna().all()


def test_units_without_an_outcome_were_randomised_too():
    assert sample_ratio(units([[90, 40]], n_missing=[[10, 60]]), HALVES)["p"][0] == 1.0
    rows = units([[90, 40]], n_missing=[[10, 60]], n_rows=[[900, 400]])  # these are rows, not units
    assert sample_ratio(rows, HALVES)["n_old"][0] == 90


def test_an_arm_without_units_is_left_out_unless_it_has_a_share():
    cells = units([[300, 310, 0]], arms=("old", "new", "newer"))
    assert sample_ratio(cells)["dof"][0] == 1
    assert sample_ratio(cells, {"old": 1, "new": 1, "newer": 1})["p"][0] < 1e-50


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=2, max_size=6), st.randoms())
def test_neither_the_order_nor_the_names_of_segments_change_a_p_value(rows, random):
    if not sum(map(sum, rows)):
        return
    order = list(range(len(rows)))
    random.shuffle(order)
    for shares in (None, {"old": 0.4, "new": 0.6}):
        one = sample_ratio(units(rows), shares)["p_holm"].to_numpy()[1:]
        other = sample_ratio(units([rows[i] for i in order]), shares)["p_holm"].to_numpy()[1:]
        np.testing.assert_allclose(other, one[order], rtol=1e-9)


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=6))
def test_exchanging_the_arms_changes_no_p_value(rows):
    one = sample_ratio(units(rows), {"old": 0.3, "new": 0.7})["p"]
    other = sample_ratio(units([(b, a) for a, b in rows]), {"old": 0.7, "new": 0.3})["p"]
    np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-300)


def test_cells_that_count_no_units_have_no_ratio(tmp_path):
    table = pd.DataFrame({"school": ["A", "B"], "y": [1.0, 2.0], "se": [1.0, 1.0]})
    cells = from_estimates(table, segments=["school"], estimate="y", se="se")
    with pytest.raises(DataError, match="do not say how many units"):
        sample_ratio(cells)
    with pytest.raises(DataError, match="no units of which an arm could have a share"):
        with_shares(cells, {"effect": 1.0})
    assert check(cells) == ()


# --- planned shares


def test_shares_are_kept_as_parts_of_one_in_the_order_of_the_arms():
    cells = with_shares(units([[10, 10]]), {"new": 3, "old": 1})
    assert json.loads(cells.attrs["shares"]) == {"old": 0.25, "new": 0.75}
    assert cell_table.hash_cell_table(cells) == cell_table.hash_cell_table(units([[10, 10]]))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"old": 1}, "shares lack 'new'; state the planned share of every arm: 'old', 'new'"),
        ({"old": 1, "new": 1, "nwe": 1}, "shares name 'nwe', but no unit is in such an arm; arms are 'old', 'new'"),
        ({"old": 1, "new": 0}, "the share of 'new' is 0; it must be a number greater than 0"),
        ({"old": 1, "new": float("nan")}, "the share of 'new' is nan"),
        ({"old": 1, "new": float("inf")}, "the share of 'new' is inf"),
        ({"old": 1, "new": True}, "the share of 'new' is True"),
        ({"old": 1, "new": "half"}, "the share of 'new' is 'half'"),
        ([0.5, 0.5], "shares must name the share of each arm, as {'old': 1, 'new': 1}"),
    ],
)
def test_shares_that_are_none_are_refused(shares, message):
    for ask in (with_shares, sample_ratio, check):
        with pytest.raises((ArgumentError, DataError)) as problem:
            ask(units([[10, 10]]), shares)
        assert message in str(problem.value)


def test_stored_shares_follow_the_arms_that_are_left():
    cells = with_shares(units([[100, 200, 300]], arms=("old", "new", "newer")), {"old": 1, "new": 2, "newer": 3})
    assert sample_ratio(cells.isel(arm=[0, 1]))["p"][0] == 1.0


def test_what_is_stored_as_shares_and_is_none_is_refused():
    with pytest.raises(DataError, match=r"is no JSON: '{old'; set it with hte\.cells\.with_shares"):
        check(units([[10, 10]]).assign_attrs(shares="{old"))


def test_shares_given_to_check_come_before_those_of_the_cells():
    cells = with_shares(units([[900, 100]]), HALVES)
    assert len(unfair(cells)) == 1
    assert unfair(cells, {"old": 9, "new": 1}) == ()


# --- sentences


def test_a_sample_ratio_mismatch_is_said_with_its_numbers():
    assert unfair(units([[821_588, 815_482]]), HALVES) == (
        "sample-ratio mismatch: the arms do not have their planned shares of the units (p = 2e-6): "
        "old 821,588 (50.19 %, planned 50.00 %); new 815,482 (49.81 %, planned 50.00 %); find the cause before "
        "believing any effect, such as a filter, a redirect or logging that differs between the arms",
    )


def test_without_a_plan_unequal_arms_are_asked_about():
    (sentence,) = unfair(units([[900, 100]]))
    assert sentence.startswith("the arms have different numbers of units: old 900 (90 %); new 100 (10 %); if equal")
    assert "if equal shares were planned, this is a sample-ratio mismatch (p < 1e-99)" in sentence
    assert sentence.endswith("state the planned shares as data.shares in the plan (hte.cells.with_shares in Python)")


def test_of_many_arms_the_furthest_from_their_shares_are_named():
    arms = tuple(f"a{i}" for i in range(9))
    (sentence,) = unfair(units([[500, 100, 500, 520, 490, 510, 800, 505, 495]], arms=arms), dict.fromkeys(arms, 1))
    assert "a1 100 (2.3 %, planned 11.1 %)" in sentence
    assert "a6 800 (18.1 %, planned 11.1 %)" in sentence
    assert "; and 6 other arms; " in sentence


def test_a_mismatch_that_shows_in_segments_says_where():
    n = [[500, 480], [2000, 1200], [510, 495]]
    dims = {"device": ["a", "a", "a"]}
    (sentence,) = unfair(units(n, dims=dims), HALVES)
    assert sentence.endswith("; it shows in 1 of 3 segments on their own, most clearly in s1")


def crossed(n):
    """Two dimensions of two levels; every level has as many units in both arms if segments do so in pairs."""
    return units(n, dims={"device": ["a", "a", "b", "b"], "plan": ["x", "y", "x", "y"]})


def test_segments_that_balance_each_other_are_named():
    cells = crossed([[600, 400], [400, 600], [400, 600], [600, 400]])
    (planned,) = unfair(cells, HALVES)
    assert planned.startswith(
        "sample-ratio mismatch in 4 of 4 segments, where the arms do not have their planned shares: "
        "s0 (old 600, new 400; p = 1e-9); s1 (old 400, new 600; p = 1e-9); s2 (old 400, new 600; p = 1e-9); and 1 more;"
    )
    (alone,) = unfair(cells)
    assert alone.startswith("in 4 of 4 segments the shares of the arms are not those of the other segments: s0 (old 60")


def test_a_dimension_that_the_treatment_changes_is_named():
    cells = crossed([[500, 400], [500, 400], [500, 600], [500, 600]])
    sentence = (
        "the levels of 'device' are distributed differently over the arms (p = 4e-10; largest difference: a, 50 % of "
        "old, 40 % of new): was it measured after treatment, or changed by it? Then use the value from before; if its "
        "levels were given the arms in different shares by plan, this is as it should be"
    )
    assert unfair(cells) == (sentence,)
    table = np.array([[1000, 800], [1000, 1200]])
    assert 2 * stats.chi2_contingency(table, correction=False).pvalue == pytest.approx(4e-10, rel=0.2)


def test_with_a_plan_the_segments_of_an_uneven_dimension_are_told_apart_and_said_once():
    n = [[500, 500], [500, 500], [500, 700], [700, 500]]
    dims = {"device": ["a", "a", "a", "b"], "plan": ["x", "y", "x", "y"]}
    found = unfair(units(n, dims=dims), HALVES)
    assert [sentence[:23] for sentence in found] == [
        "sample-ratio mismatch i",
        "the levels of 'device' ",
        "the levels of 'plan' ar",
    ]
    single = unfair(units(n), HALVES)
    assert [sentence[:23] for sentence in single] == ["the levels of 'device' "]


def test_hostile_names_stay_on_their_line():
    names = ["<script>alert(1)</script>", "two\nlines", "{0}%s", "W" * 300]
    cells = units([[900, 300], [300, 900], [900, 300], [300, 900]], dims={"a\nb": names}, arms=("o\nld", "n{0}w"))
    cells = cells.assign_coords(segment=names)
    for shares in (None, {"o\nld": 3, "n{0}w": 1}):
        for sentence in unfair(cells, shares):
            assert "\n" not in sentence
            assert len(sentence) < 700
    assert sample_ratio(cells)["n_n{0}w"][0] == 2400


def test_clean_randomisations_are_silent_but_for_one_in_five_hundred():
    """Overall, over six segments, and over two dimensions, each .001: at most .003 together.

    With that probability 500 runs have more than 9 alarms with probability 4e-6.
    """
    rng = np.random.default_rng(11)
    shares = np.array([0.5, 0.3, 0.2])
    dims = {"device": ["a", "b", "c"] * 2, "plan": ["x"] * 3 + ["y"] * 3}
    alarms = 0
    for _ in range(500):
        n = rng.multinomial(3000, np.outer([0.3, 0.3, 0.2, 0.1, 0.08, 0.02], shares).ravel()).reshape(6, 3)
        arms = ("old", "new", "newer")
        alarms += bool(unfair(units(n, arms=arms, dims=dims), dict(zip(arms, shares.tolist(), strict=True))))
    assert alarms <= 9


@pytest.mark.parametrize("kind", ["moments", "rates"])
def test_other_kinds_are_tested_by_their_units(kind):
    n = np.array([[900, 300]])
    mean = {"mean": n * 0.0 + 1.0, "ss": n * 1.0} if kind == "moments" else {"events": n // 9, "exposure": n * 1.0}
    cells = units(n).drop_vars("events").assign({name: (("segment", "arm"), value) for name, value in mean.items()})
    assert len(unfair(cells, HALVES)) == 1
    if kind == "rates":
        assert unfair(cells.drop_vars("n"), HALVES) == ()
