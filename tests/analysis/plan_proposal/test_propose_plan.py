"""Guesses follow from names, levels and their spread over the arms: never from outcomes."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.stats import chi2_contingency, norm

from bayes_hte.analysis.plan_proposal.column_names import find_control, names_units, rate_arm_name
from bayes_hte.analysis.plan_proposal.propose_plan import (
    MAX_DIMENSION_LEVELS,
    MAX_DIMENSIONS,
    PlanProposal,
    choose_arm,
    compute_imbalance,
    propose_plan,
)
from bayes_hte.cells.reading.column_profile import ColumnProfile, TableProfile

N = 2000
LABELS = st.sampled_from(
    ["device", "arm", "user_id", "spent", "died", "age", "post_visits", "n", "a/b", "x", "group", "day"]
)


def words(name: str, *levels: str, **changes) -> ColumnProfile:
    """A column of words, spread alike over the levels and the arms."""
    counts = dict.fromkeys(levels, N // len(levels))
    by_arm = {arm: {level: count // 2 for level, count in counts.items()} for arm in ("old", "new")}
    fields = {"n_present": N, "n_distinct": len(levels), "levels": counts, "levels_by_arm": by_arm}
    return ColumnProfile(name, **(fields | changes))


def numbers(name: str, low: float = 0.0, high: float = 90.0, *, distinct: int = 900, **changes) -> ColumnProfile:
    levels = {f"{i}": N // distinct for i in range(distinct)} if distinct <= 60 else {}
    fields = {
        "n_present": N, "n_distinct": distinct, "n_numbers": N, "minimum": low, "maximum": high, "is_whole": True,
        "levels": levels,
    }  # fmt: skip
    return ColumnProfile(name, **(fields | changes))


ARM, BOUGHT = words("arm", "new", "old"), numbers("bought", 0.0, 1.0, distinct=2)


def propose(*columns: ColumnProfile) -> PlanProposal:
    return propose_plan(TableProfile("file rows.csv", N, columns), "A test")


def values(proposal: PlanProposal) -> dict[str, object]:
    return {key.key: key.value for key in (*proposal.top, *proposal.data, *proposal.report) if not key.is_blank}


def test_a_plain_table_leaves_no_blank():
    proposal = propose(numbers("user_id", distinct=N), words("device", "mobile", "tv"), ARM, BOUGHT)
    assert proposal.blanks == []
    assert values(proposal) == {
        "model": "conversion", "outcome": "bought", "arm": "arm", "control": "old", "segments": ["device"],
        "unit": "user_id", "higher_is_better": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (numbers("user_id", distinct=N), "names units"),
        (words("day", "2026-03-02", "2026-03-03", n_dates=N), "holds dates"),
        (numbers("age"), "holds numbers"),
        (words("country", *map(str, range(21))), "too many to compare"),
        (words("only", "one"), "one level"),
        (words("gone", "a", "b", n_present=900), "more than half of it is missing"),
        (words("result_group", "a", "b"), "after treatment"),
        (numbers("visits", distinct=3), "after treatment"),
        (words("n", "a", "b"), "uses such a name itself"),
        (words("a/b", "a", "b"), "uses such a name itself"),
        (words("segment", "a", "b"), "uses such a name itself"),
        (
            words("clicked_what", "a", "b", levels_by_arm={"old": {"a": 900, "b": 100}, "new": {"a": 500, "b": 500}}),
            "not spread alike",
        ),
    ],
)
def test_what_is_no_dimension_is_left_out_with_the_reason(column, reason):
    # The outcome has the surer name of two that are measured.
    proposal = propose(column, words("device", "mobile", "tv"), ARM, numbers("purchase_outcome", 0.0, 1.0, distinct=2))
    assert values(proposal)["segments"] == ["device"]
    (remark,) = [remark for remark in proposal.remarks if remark.startswith(repr(column.name))]
    assert reason in remark


def test_no_more_dimensions_are_crossed_than_the_rows_allow():
    many = words("region", *map(str, range(15)))
    both = propose(words("device", "mobile", "tv"), words("plan", "free", "paid"), ARM, BOUGHT)
    assert values(both)["segments"] == ["device", "plan"]
    one = propose(words("device", "mobile", "tv"), many, ARM, BOUGHT)
    assert values(one)["segments"] == ["device"]
    assert "both crossed leave fewer than 50 rows a cell" in one.remarks[0]


def test_rows_of_one_unit_are_put_together():
    proposal = propose(numbers("customer_id", distinct=700), words("device", "mobile", "tv"), ARM, BOUGHT)
    assert values(proposal)["cluster"] == "customer_id"
    assert values(proposal)["model"] == "metric"  # events of a cluster are a mean
    assert "unit" not in values(proposal)


def test_missing_outcomes_and_rare_levels_are_dealt_with_and_said():
    device = words("device", "mobile", "tv", levels={"mobile": N - 5, "tv": 5})
    proposal = propose(device, ARM, numbers("bought", 0.0, 1.0, distinct=2, n_present=N - 3, n_numbers=N - 3))
    assert values(proposal)["drop_missing"] is True
    assert values(proposal)["rare"] == 20
    assert any(key.reason.startswith("3 rows lack 'bought'") for key in proposal.data)


def test_what_cannot_be_found_is_blank_with_the_reason():
    proposal = propose(words("colour", "red", "blue"), numbers("weight"))
    assert {key.key for key in proposal.blanks} == {"outcome", "arm", "control"}
    assert all(key.reason for key in proposal.blanks)
    assert {key.key for key in propose(ARM, BOUGHT).blanks} == {"segments"}
    assert {key.key for key in propose(words("arm", "red", "blue"), words("d", "x", "y"), BOUGHT).blanks} == {"control"}


@pytest.mark.parametrize(
    ("name", "better"), [("died", False), ("revenue", True), ("colour_score_z", True), ("zz", None)]
)
def test_the_direction_follows_from_the_name_or_stays_open(name, better):
    found = values(propose(words("device", "a", "b"), ARM, numbers(name, 0.0, 1.0, distinct=2)))
    assert found.get("higher_is_better") is better


def test_names_and_labels_of_arms_are_known():
    assert [rate_arm_name(name) for name in ("arm", "test_group", "incentive", "device")] == [3, 3, 1, 0]
    assert find_control(["B", "A"]) == "A"
    assert find_control(["1", "0"]) == "0"
    assert find_control(["Womens E-Mail", "No E-Mail"]) == "No E-Mail"
    assert find_control(["Test", "Kontrollgruppe"]) == "Kontrollgruppe"
    assert find_control(["red", "blue"]) is None
    assert [names_units(name) for name in ("userId", "customers", "e-mail", "device", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert choose_arm(TableProfile("t", N, (words("segment", "control", "offer A"), ARM))) == "arm"


@given(st.lists(st.lists(st.integers(1, 500), min_size=3, max_size=3), min_size=2, max_size=4))
def test_imbalance_is_the_score_of_a_chi_square_test(counts):
    levels_by_arm = {str(i): dict(zip("abc", row, strict=True)) for i, row in enumerate(counts)}
    p = chi2_contingency(np.array(counts), correction=False).pvalue
    # Wilson and Hilferty's approximation is worst for two degrees of freedom far out: 6.39 for 7.03 at p = 1e-12.
    if 1e-12 < p < 0.9:
        assert compute_imbalance(levels_by_arm) == pytest.approx(norm.isf(p), abs=0.1, rel=0.1)


@st.composite
def profiles(draw) -> TableProfile:
    columns = []
    for name in draw(st.lists(LABELS | st.text(max_size=6), min_size=1, max_size=7, unique=True)):
        level_count = draw(st.integers(0, 30))
        levels = [draw(st.text(max_size=3)) + str(i) for i in range(level_count)]
        kind = draw(st.sampled_from(["words", "numbers", "nothing"]))
        match kind:
            case "words" if levels:
                columns.append(words(name, *levels))
            case "numbers":
                columns.append(numbers(name, 0.0, draw(st.sampled_from([0.0, 1.0, 7.5])), distinct=max(level_count, 1)))
            case _:
                columns.append(ColumnProfile(name))
    return TableProfile("file rows.csv", N, tuple(columns))


@given(profiles())
def test_no_column_has_two_roles_and_dimensions_have_few_levels(profile):
    found = values(propose_plan(profile, "A test"))
    dims = found.get("segments", [])
    roles = [found[key] for key in ("outcome", "arm", "unit", "cluster") if key in found] + list(dims)
    assert len(roles) == len(set(roles))
    assert set(roles) <= {column.name for column in profile.columns}
    assert len(dims) <= MAX_DIMENSIONS
    for dim in dims:
        assert 2 <= len(profile.get_column(dim).levels) <= MAX_DIMENSION_LEVELS
        assert not names_units(dim) or profile.get_column(dim).levels
    if "control" in found:
        assert found["control"] in profile.get_column(found["arm"]).levels
