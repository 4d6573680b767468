"""Propose a plan for a table of counts or means: one row per segment and arm, or per segment, arm and value."""

import math

from bayes_hte.analysis.plan_proposal.column_names import find_control, split_name
from bayes_hte.analysis.plan_proposal.propose_plan import PlanProposal, ProposedKey, choose_arm, propose_direction
from bayes_hte.cells.reading.column_profile import ColumnProfile, TableProfile
from bayes_hte.cells.summaries.column_vocabulary import ROLE_BY_WORDS, split_words

MAX_SUMMARY_ROWS = 5_000
"""A table of cells is smaller."""
MAX_VALUES = 15
"""Answers on a scale have few values."""
_ROLE_BY_TOKEN = {
    "mean": "mean", "avg": "mean", "average": "mean", "sd": "sd", "std": "sd", "stdev": "sd", "se": "se", "sem": "se",
}  # fmt: skip


def propose_summary(profile: TableProfile, title: str) -> PlanProposal | None:
    """Propose a plan for a table of cells; None for what has no arm, no number of units, or several rows a cell.

    Parameters
    ----------
    profile : TableProfile
    title : str
        Of the plan.
    """
    arm = choose_arm(profile)
    columns_by_role = _find_roles(profile)
    if arm is None or "n" not in columns_by_role or profile.n_rows > MAX_SUMMARY_ROWS:
        return None
    dims = [column for column in profile.columns if not column.is_number and column.name != arm]
    values = [column for column in _list_values(profile) if column.name not in {arm, *columns_by_role.values()}]
    # Rows of units repeat a segment and an arm many times; rows of cells have each once, or once a value.
    cell_count = math.prod(max(column.n_distinct, 1) for column in (*dims, profile.get_column(arm)))
    keys = [ProposedKey("arm", arm, "it has the name or the labels of arms"), _propose_control(profile, arm)]
    if dims:
        names = [dim.name for dim in dims]
        keys.append(ProposedKey("segments", names, "the columns of words besides the arm"))
    else:
        keys.append(ProposedKey("segments", [], "no column of words is left besides the arm", is_blank=True))
    if profile.n_rows <= cell_count:
        statistics, model = _propose_statistics(columns_by_role)
        form = ProposedKey("form", "summary", "a row has the numbers of a segment and an arm")
        outcome = next((key for key in statistics if key.key in {"events", "mean"} and not key.is_blank), None)
        measured = [ProposedKey("outcome", outcome.value, "what was measured, in words")] if outcome else []
        direction = propose_direction(outcome.value if outcome else None)
        return PlanProposal(title, (model,), (form, *measured, *keys, *statistics), direction)
    if len(values) == 1 and profile.n_rows <= cell_count * values[0].n_distinct:
        form = ProposedKey("form", "levels", "a row has the number of units of a segment and an arm with one value")
        value = ProposedKey("value", values[0].name, f"it has the values {', '.join(values[0].levels)}")
        count = ProposedKey("count", columns_by_role["n"], "its name says that it counts units")
        model = ProposedKey("model", "ordered-scale", "answers on a scale; counts are for the model counts")
        return PlanProposal(title, (model,), (form, *keys, value, count))
    return None


def _find_roles(profile: TableProfile) -> dict[str, str]:
    """Find what columns of numbers hold by their names: a number of units, events, means and their spread."""
    columns_by_role: dict[str, str] = {}
    for column in profile.columns:
        # Words in a column called users name them; numbers count them.
        if not column.is_number:
            continue
        role = ROLE_BY_WORDS.get(split_words(column.name))
        tokens = split_name(column.name)
        role = role or next((_ROLE_BY_TOKEN[token] for token in tokens if token in _ROLE_BY_TOKEN), None)
        if role is not None:
            columns_by_role.setdefault(role, column.name)
    return columns_by_role


def _list_values(profile: TableProfile) -> list[ColumnProfile]:
    """List columns of whole numbers with few values."""
    return [column for column in profile.columns if column.is_whole and 2 < len(column.levels) <= MAX_VALUES]


def _propose_control(profile: TableProfile, arm: str) -> ProposedKey:
    labels = list(profile.get_column(arm).levels)
    control = find_control(labels)
    if control is None:
        return ProposedKey("control", "", f"none of these sounds like a control: {', '.join(labels)}", is_blank=True)
    return ProposedKey("control", control, "it sounds like one")


def _propose_statistics(columns_by_role: dict[str, str]) -> tuple[list[ProposedKey], ProposedKey]:
    """Propose the columns of statistics, and the model that takes them."""
    # Counts first: means of zeros and ones say the same with less.
    sets = {("n", "events"): "conversion", ("n", "mean", "sd"): "metric", ("n", "mean", "se"): "metric"}
    for roles, model in sets.items():
        if set(roles) <= set(columns_by_role):
            keys = [ProposedKey(role, columns_by_role[role], "its name says so") for role in roles]
            return keys, ProposedKey("model", model, f"the table has {', '.join(roles)}")
    units = ProposedKey("n", columns_by_role["n"], "its name says so")
    blank = ProposedKey("events", "", "no column is named as events are, nor as means with their sd", is_blank=True)
    return [units, blank], ProposedKey("model", "conversion", "units with and without an event; metric is for means")
