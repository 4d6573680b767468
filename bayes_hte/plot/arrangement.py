"""Arrange the rows of figures: one order for all arms and, of many segments, the few that a reader can take in."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bayes_hte.errors import ArgumentError
from bayes_hte.plot.rows import ArmBlock, Estimate, EstimateGroup, RowOrder, sort_block

MAX_FOREST_SEGMENTS: Final = 60
"""Rows of a forest plot: two pages of print; more are a list, not a picture."""
MAX_POINT_SEGMENTS: Final = 150
"""Arrows or curves of a figure: beyond these they cover each other."""
LAYOUT_NAMES: Final = ("wide", "narrow")
"""Layouts of a figure: for paper and desktop, and for a phone."""
LARGEST_HEADING: Final = "Largest effects"
MOVED_HEADING: Final = "Others that pooling moved most"
SMALLEST_HEADING: Final = "Smallest effects"
RowKey = tuple[str, str, int]
"""Group and label of a row, and which of the rows with the same it is: labels are shortened, and may be alike."""


def arrange_blocks(
    arm_blocks: Sequence[ArmBlock], row_order: RowOrder, max_segments: int | None
) -> tuple[list[ArmBlock], str]:
    """Put the rows of all arms into one order, and keep `max_segments` of them, under headings, where there are more.

    Parameters
    ----------
    arm_blocks : sequence of ArmBlock
    row_order : str
        By effect, the mean over the arms decides.
    max_segments : int or None
        None keeps all.

    Returns
    -------
    list of ArmBlock
    str
        A sentence that says what was left out; "" if nothing was.
    """
    require_segment_limit(max_segments)
    rows_by_arm = [_key_rows(block) for block in arm_blocks]
    key_by_row, common_block = _average_over_arms(rows_by_arm, arm_blocks[0].ate)
    common_block = sort_block(common_block, row_order)
    ordered_groups = [
        (group.name, [key_by_row[id(estimate)] for estimate in group.estimates]) for group in common_block.groups
    ]
    selection_note = ""
    ordered_keys = [key for _, keys in ordered_groups for key in keys]
    if max_segments is not None and len(ordered_keys) > max_segments:
        movements = {key: max(_measure_movement(rows.get(key)) for rows in rows_by_arm) for key in ordered_keys}
        effects = {key_by_row[id(estimate)]: estimate.effect for estimate in common_block.estimates}
        ordered_groups = _select_keys(effects, movements, max_segments, lowest_first=row_order == "lowest")
        selection_note = describe_selection(len(ordered_keys), [len(keys) for _, keys in ordered_groups])
    return [
        ArmBlock(block.arm, _take_rows(rows, ordered_groups), block.ate)
        for block, rows in zip(arm_blocks, rows_by_arm, strict=True)
    ], selection_note


def require_segment_limit(max_segments: object) -> None:
    """Require a whole number of at least three segments, or None for all.

    Raises
    ------
    ArgumentError
        If it is neither.
    """
    is_count = isinstance(max_segments, int) and not isinstance(max_segments, bool) and max_segments >= 3
    if max_segments is not None and not is_count:
        raise ArgumentError(
            f"max_segments is how many segments to draw, 3 or more, or None for all, not {max_segments!r}"
        )


def describe_selection(segment_count: int, selected_counts: Sequence[int]) -> str:
    """Describe which of many segments a figure shows, from the numbers of largest, moved and smallest ones."""
    largest_count, moved_count, smallest_count = selected_counts
    return (
        f"{sum(selected_counts):,} of {segment_count:,} segments are drawn: the {largest_count} largest effects, the "
        f"{smallest_count} smallest, and the {moved_count} others that pooling moved most."
    )


def select_outstanding(
    effects: Sequence[float], movements: Sequence[float], max_segments: int
) -> tuple[list[int], list[int], list[int]]:
    """Select the positions of the largest effects, of the others that moved most, and of the smallest, a third each.

    Effects that are not known come last of all.
    """
    known_first = sorted(
        range(len(effects)), key=lambda index: -effects[index] if math.isfinite(effects[index]) else math.inf
    )
    known_count = sum(map(math.isfinite, effects))
    third = min(max_segments // 3, known_count // 2)
    largest, smallest = known_first[:third], known_first[known_count - third : known_count]
    others = [index for index in known_first if index not in {*largest, *smallest}]
    moved = sorted(others, key=lambda index: -movements[index])[: max_segments - 2 * third]
    # Among themselves in the order of effects, as all rows of a figure.
    return largest, sorted(moved, key=known_first.index), smallest


def _select_keys(
    effects: dict[RowKey, float], movements: dict[RowKey, float], max_segments: int, *, lowest_first: bool
) -> list[tuple[str, list[RowKey]]]:
    keys = list(effects)
    selected_positions = select_outstanding(list(effects.values()), [movements[key] for key in keys], max_segments)
    headings = (LARGEST_HEADING, MOVED_HEADING, SMALLEST_HEADING)
    groups = [
        (heading, [keys[position] for position in positions])
        for heading, positions in zip(headings, selected_positions, strict=True)
    ]
    return [(heading, group_keys[::-1]) for heading, group_keys in groups[::-1]] if lowest_first else groups


def _measure_movement(estimate: Estimate | None) -> float:
    """Measure how far pooling moved an estimate; 0 where that is not known."""
    movement = math.nan if estimate is None else abs(estimate.raw_effect - estimate.effect)
    return movement if math.isfinite(movement) else 0.0


def _key_rows(arm_block: ArmBlock) -> dict[RowKey, Estimate]:
    label_counts: Counter[tuple[str, str]] = Counter()
    rows: dict[RowKey, Estimate] = {}
    for group in arm_block.groups:
        for estimate in group.estimates:
            label_counts[group.name, estimate.segment_label] += 1
            rows[group.name, estimate.segment_label, label_counts[group.name, estimate.segment_label]] = estimate
    return rows


def _average_over_arms(
    rows_by_arm: Sequence[dict[RowKey, Estimate]], ate: Estimate
) -> tuple[dict[int, RowKey], ArmBlock]:
    """Build a block whose effects are means over the arms, and the key of each of its rows by the row's identity."""
    averaged_rows: dict[RowKey, Estimate] = {}
    for key in dict.fromkeys(key for rows in rows_by_arm for key in rows):
        estimates = [rows[key] for rows in rows_by_arm if key in rows]
        known_effects = [estimate.effect for estimate in estimates if math.isfinite(estimate.effect)]
        mean_effect = sum(known_effects) / len(known_effects) if known_effects else math.nan
        averaged_rows[key] = replace(estimates[0], effect=mean_effect)
    rows_by_group: dict[str, list[Estimate]] = {}
    for (group_name, *_), estimate in averaged_rows.items():
        rows_by_group.setdefault(group_name, []).append(estimate)
    groups = tuple(EstimateGroup(name, tuple(estimates)) for name, estimates in rows_by_group.items())
    return {id(estimate): key for key, estimate in averaged_rows.items()}, ArmBlock("", groups, ate)


def _take_rows(
    rows: dict[RowKey, Estimate], ordered_groups: Sequence[tuple[str, Sequence[RowKey]]]
) -> tuple[EstimateGroup, ...]:
    """Take an arm's rows in the common order; an arm may lack some, and then has no empty groups."""
    groups = (EstimateGroup(name, tuple(rows[key] for key in keys if key in rows)) for name, keys in ordered_groups)
    return tuple(group for group in groups if group.estimates)
