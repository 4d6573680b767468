"""Propose a plan for rows of units: which column is the outcome, which the arm, which may divide the units, and why.

A pure function of a profile. No outcome is compared between arms: who proposes segments by looking for effects finds
noise. What cannot be told is left blank, with the reason.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bayes_hte._support.phrases import write_count
from bayes_hte.analysis.plan_proposal.column_names import (
    find_control,
    is_outcome_name,
    is_size_name,
    names_units,
    rate_arm_labels,
    rate_arm_name,
    sounds_earlier,
    sounds_later,
)
from bayes_hte.cells.reading.column_profile import ColumnProfile, TableProfile
from bayes_hte.decisions.direction import judge_name
from bayes_hte.spec.cell_table import RESERVED_NAMES, SEGMENT

MAX_ARMS = 12
MAX_DIMENSION_LEVELS = 20
"""More segments than this along one dimension are a list, not a picture."""
MAX_NUMBER_LEVELS = 6
"""Whole numbers with few values are often groups; with more they are counts, to be cut into bins."""
MAX_DIMENSIONS = 2
MIN_CELL_UNITS = 50
"""Units per cell, on average, below which crossing one more dimension leaves little to compare."""
MIN_LEVEL_ROWS = 20
"""Levels with fewer rows are put together."""
MAX_GAP_Z = 6.0
"""Standard normal score beyond which levels cannot differ between randomised arms: one in a billion by chance."""


@dataclass(frozen=True, slots=True)
class ProposedKey:
    """A key of the plan, its value, and why; a key without a value could not be found."""

    key: str
    value: Any
    reason: str
    is_blank: bool = False


@dataclass(frozen=True, slots=True)
class PlanProposal:
    """What is proposed: keys of the plan by table, and remarks on columns that play no part."""

    title: str
    top: tuple[ProposedKey, ...]
    data: tuple[ProposedKey, ...]
    report: tuple[ProposedKey, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    @property
    def blanks(self) -> list[ProposedKey]:
        """Keys that could not be found."""
        return [proposed for proposed in (*self.top, *self.data) if proposed.is_blank]


def choose_arm(profile: TableProfile) -> str | None:
    """Choose the column of arms by its name and its labels; None where no column sounds like one."""
    # Names and labels speak together: "segment" with a label "control" is one, and so is "arm" with red and blue.
    ratings = {
        column.name: rate_arm_name(column.name) + rate_arm_labels(column.levels)
        for column in profile.columns
        if 2 <= len(column.levels) <= MAX_ARMS and not column.is_date
    }
    # One weak hint is not enough for labels: a and b may be anything. The first of equals, as most tables have it.
    likely = {name: rating for name, rating in ratings.items() if rating >= 2 or rate_arm_name(name) == 1}
    return max(likely, key=lambda name: likely[name]) if likely else None


def list_units(profile: TableProfile) -> list[str]:
    """List columns whose names are those of units, such as user_id."""
    return [column.name for column in profile.columns if names_units(column.name) and len(column.levels) == 0]


def propose_plan(profile: TableProfile, title: str) -> PlanProposal:
    """Propose a plan for a table of units.

    Parameters
    ----------
    profile : TableProfile
        With levels by arm, for the arm that `choose_arm` chooses.
    title : str
        Of the plan.

    Returns
    -------
    PlanProposal
        Its dimensions are columns with a few levels that are spread alike over the arms; no identifiers, dates or
        outcomes.
    """
    arm = choose_arm(profile)
    outcome = _choose_outcome(profile, arm)
    unit_keys, cluster = _propose_unit(profile)
    model = _propose_model(profile, outcome, cluster=cluster)
    dims, remarks = _choose_dimensions(profile, arm, outcome)
    data = [_propose_outcome(profile, outcome), *_propose_arm(profile, arm), _propose_segments(profile, dims)]
    data += [*unit_keys, *_propose_missing(profile, outcome, arm), *_propose_decimal(profile, outcome)]
    if not cluster:
        data += _propose_rare(profile, dims)
    return PlanProposal(title, (model,), tuple(data), propose_direction(outcome), tuple(remarks))


def _choose_outcome(profile: TableProfile, arm: str | None) -> str | None:
    """Choose the column that is most likely the outcome: by its name, its values, and its place after the arm."""
    names = [column.name for column in profile.columns]
    ratings = {}
    for i, column in enumerate(profile.columns):
        is_measured = (column.is_number and column.minimum != column.maximum) or column.is_binary
        if column.name == arm or not is_measured or column.is_date or names_units(column.name):
            continue
        # What was measured before treatment may predict the outcome, and cannot be it.
        if sounds_earlier(column.name) or is_size_name(column.name):
            continue
        ratings[column.name] = (
            3 * (judge_name(column.name) != "")
            + 2 * is_outcome_name(column.name)
            + 2 * column.is_binary
            + (arm is not None and i > names.index(arm))
        )
    # Of equals the last: outcomes stand at the end of most tables.
    likely = [name for name, rating in ratings.items() if rating >= 2]
    return max(reversed(likely), key=lambda name: ratings[name]) if likely else None


def _propose_outcome(profile: TableProfile, outcome: str | None) -> ProposedKey:
    if outcome is None:
        return ProposedKey(
            "outcome", "", "no column of numbers has the name or the values of an outcome", is_blank=True
        )
    column = profile.get_column(outcome)
    what = "it is 0 or 1" if column.is_binary else f"it holds numbers from {column.minimum:g} to {column.maximum:g}"
    named = ", and its name sounds like one" if judge_name(outcome) or is_outcome_name(outcome) else ""
    return ProposedKey("outcome", outcome, f"{what}{named}")


def _propose_arm(profile: TableProfile, arm: str | None) -> list[ProposedKey]:
    if arm is None:
        return [
            ProposedKey("arm", "", "no column has the name or the labels of arms", is_blank=True),
            ProposedKey("control", "", "the arm that the others are compared with", is_blank=True),
        ]
    labels = list(profile.get_column(arm).levels)
    control = find_control(labels)
    arms = ProposedKey("arm", arm, f"it has {write_count(len(labels), 'level', 'levels')}: {', '.join(labels)}")
    if control is None:
        reason = f"none of these sounds like a control: {', '.join(labels)}"
        return [arms, ProposedKey("control", "", reason, is_blank=True)]
    return [arms, ProposedKey("control", control, "it sounds like one")]


def _propose_unit(profile: TableProfile) -> tuple[list[ProposedKey], bool]:
    """Propose the column of units, or of clusters where units have several rows; tell whether it is one of clusters."""
    # A unit that some rows lack would leave these out of every check of it.
    for name in list_units(profile):
        column = profile.get_column(name)
        if column.n_present < profile.n_rows or column.n_distinct < 2:
            continue
        # The same number of rows and of units: rows are units. Else a unit has several, which vary together.
        if column.n_distinct == column.n_present:
            return [ProposedKey("unit", name, "it names the units: the checks say if one is in several arms")], False
        reason = f"{column.n_present:,} rows are of {column.n_distinct:,} units: rows of a unit are not independent"
        return [ProposedKey("cluster", name, reason)], True
    return [], False


def _propose_model(profile: TableProfile, outcome: str | None, *, cluster: bool) -> ProposedKey:
    if outcome is None:
        return ProposedKey("model", "metric", "means of any outcome; conversion is for 0 and 1")
    # Shares of a cluster's rows are no zeros and ones any more: they are means.
    if profile.get_column(outcome).is_binary and not cluster:
        return ProposedKey("model", "conversion", "the outcome is 0 or 1")
    why = "rows of a unit are added up first" if cluster else "means of any outcome; counts, or revenue, are for others"
    return ProposedKey("model", "metric", why)


def _choose_dimensions(profile: TableProfile, arm: str | None, outcome: str | None) -> tuple[list[str], list[str]]:
    """Choose the dimensions, and say of every other column why it is none."""
    candidates, remarks = [], []
    for column in profile.columns:
        if column.name in {arm, outcome}:
            continue
        reason = _find_why_no_dimension(column, profile)
        if reason:
            remarks.append(f"{_quote(column.name)} is no dimension: {reason}")
        else:
            candidates.append(column)
    # Words say more of a segment than numbers do.
    candidates.sort(key=lambda column: column.is_number)
    # cells = arms × levels of every dimension; on average each has n / cells rows.
    arm_count = len(profile.get_column(arm).levels) if arm is not None else 2
    dims: list[ColumnProfile] = []
    for column in candidates:
        cell_count = arm_count * math.prod(len(dim.levels) for dim in (*dims, column))
        if len(dims) == MAX_DIMENSIONS:
            remarks.append(f"{_quote(column.name)} could be a dimension as well: {_describe_levels(column)}")
        elif dims and profile.n_rows < MIN_CELL_UNITS * cell_count:
            remarks.append(
                f"{_quote(column.name)} could be a dimension in place of the other: {_describe_levels(column)}; both "
                f"crossed leave fewer than {MIN_CELL_UNITS} rows a cell"
            )
        else:
            dims.append(column)
    return [dim.name for dim in dims], remarks


def _find_why_no_dimension(column: ColumnProfile, profile: TableProfile) -> str:
    """Find why a column is no dimension; "" where it may be one."""
    name, level_count = column.name, len(column.levels)
    reasons = {
        # Names that the cell table has itself, or that could not name one of its coordinates.
        "the result uses such a name itself; rename the column if it is one": name in RESERVED_NAMES
        or name == SEGMENT
        or "/" in name,
        "more than half of it is missing": column.n_present < profile.n_rows / 2,
        f"it names units, {column.n_distinct:,} of them": names_units(name) and not level_count,
        'it holds dates; cut them by bins = { … = "week" } if time matters': column.is_date,
        "it has one level": level_count == 1,
        "it sounds like another outcome, or like something that came after treatment": sounds_later(name)
        or _sounds_like_outcome(column),
        "it holds numbers; cut them by bins = { … = 4 } if they matter, or name it if they are codes": column.is_number
        and not (1 <= level_count <= MAX_NUMBER_LEVELS and column.is_whole),
        f"it has {column.n_distinct:,} levels or so, too many to compare": not 1 <= level_count <= MAX_DIMENSION_LEVELS,
        "its levels are not spread alike over the arms, as if it came after treatment, or decided on the arm": (
            compute_imbalance(column.levels_by_arm) > MAX_GAP_Z
        ),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _sounds_like_outcome(column: ColumnProfile) -> bool:
    """Tell whether numbers, or a yes and no, sound like another outcome."""
    is_measured = column.is_number or column.is_boolean
    is_named_so = judge_name(column.name) != "" or is_outcome_name(column.name)
    return is_measured and is_named_so and not sounds_earlier(column.name)


def compute_imbalance(levels_by_arm: Mapping[str, Mapping[str, int]]) -> float:
    """Compute how far the levels of a column are from being spread alike over the arms, as a standard normal score.

    χ² of independence with k degrees of freedom, by Wilson and Hilferty: ((χ²/k)^⅓ − (1 − 2/9k)) / √(2/9k).

    Examples
    --------
    >>> compute_imbalance({"old": {"a": 50, "b": 50}, "new": {"a": 50, "b": 50}}) < 0
    True
    >>> compute_imbalance({"old": {"a": 90, "b": 10}, "new": {"a": 10, "b": 90}}) > 8
    True
    """
    labels = sorted({label for levels in levels_by_arm.values() for label in levels})
    counts = np.array([[levels.get(label, 0) for label in labels] for levels in levels_by_arm.values()], dtype=float)
    freedom = (counts.shape[0] - 1) * (len(labels) - 1)
    if freedom < 1 or not counts.any():
        return 0.0
    # Under independence a cell expects row total · column total / n; χ² = Σ (count − expected)² / expected.
    expected = np.outer(counts.sum(1), counts.sum(0)) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        chi_square = float(np.nansum((counts - expected) ** 2 / expected))
    spread = 2 / (9 * freedom)
    return float(((chi_square / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


def _propose_segments(profile: TableProfile, dims: Sequence[str]) -> ProposedKey:
    if not dims:
        return ProposedKey("segments", [], "no column has a few levels that were known before treatment", is_blank=True)
    # The levels are shown so that a reader sees at once what was mistaken for a dimension.
    described = "; ".join(f"{_quote(name)} has {_describe_levels(profile.get_column(name))}" for name in dims)
    return ProposedKey("segments", list(dims), f"{described}. Only what was known before treatment may stand here")


def _describe_levels(column: ColumnProfile) -> str:
    shown = list(column.levels)[:4]
    more = ", …" if len(column.levels) > len(shown) else ""
    return f"{len(column.levels)} levels: {', '.join(shown)}{more}"


def _propose_missing(profile: TableProfile, outcome: str | None, arm: str | None) -> list[ProposedKey]:
    lacking = {name: profile.n_rows - profile.get_column(name).n_present for name in (outcome, arm) if name is not None}
    gaps = [
        f"{write_count(count, 'row lacks', 'rows lack')} {_quote(name)}" for name, count in lacking.items() if count
    ]
    return [ProposedKey("drop_missing", True, f"{' and '.join(gaps)}: left out")] if gaps else []


def _propose_decimal(profile: TableProfile, outcome: str | None) -> list[ProposedKey]:
    if outcome is None or not profile.get_column(outcome).has_decimal_commas:
        return []
    return [ProposedKey("decimal", ",", "the numbers of the outcome have decimal commas")]


def _propose_rare(profile: TableProfile, dims: Sequence[str]) -> list[ProposedKey]:
    rare = [
        name for name in dims if min(profile.get_column(name).levels.values()) < MIN_LEVEL_ROWS <= profile.n_rows / 10
    ]
    # Half of the levels may be rare: what is left is still compared, and nothing is left out.
    if not rare:
        return []
    reason = f"levels of {' and '.join(map(_quote, rare))} with fewer rows are put together"
    return [ProposedKey("rare", MIN_LEVEL_ROWS, reason)]


def propose_direction(outcome: str | None) -> tuple[ProposedKey, ...]:
    """Propose which direction is better by the outcome's name; nothing where it says neither."""
    match judge_name(outcome) if outcome is not None else "":
        case "good":
            return (ProposedKey("higher_is_better", True, "its name sounds like something to wish for"),)
        case "bad":
            return (ProposedKey("higher_is_better", False, "its name sounds like something to avoid"),)
    return ()


def _quote(name: str) -> str:
    return repr(name)
