"""The tables of the report as plain text in rows."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from bayes_hte._support.phrases import clean_text, format_count, format_percent_probability, format_share, shorten_text
from bayes_hte.decisions.verdicts import VERDICT_TONES, holds_zero_against_sign
from bayes_hte.model.families import FAMILIES, Family
from bayes_hte.report.answer.notes import format_rope
from bayes_hte.report.arm_results import ArmResult, SegmentReading
from bayes_hte.report.notation import choose_effect_format, format_interval_probability, name_link_scale

MAX_DETAILED_SEGMENTS = 100
"""More segments are a list to search, folded and with one line for each; a table of so many would be the page."""
MAX_LEVEL_COLUMNS = 80
"""A longer name would be most of the page; it is shown in full on hovering."""
_QUANTITY_TITLES = {
    "effect_mean": "Common effect",
    "between_sd": "Between-segment SD (τ)",
    "i2": "I²",
    "spread": "Spread of effects",
    "p_all_positive": "P(every effect > 0)",
    "p_all_negative": "P(every effect < 0)",
    "share_harmed": "Share of units probably harmed",
    "p_spread_matters": "P(spread matters)",
    "p_tau_matters": "P(τ matters)",
    "p_qualitative": "P(some gain, some lose)",
    "gail_simon_p": "Gail–Simon p-value",
    "slope": "Slope",
    "correlation": "Correlation with the baseline",
}
_PARTS_BY_PREFIX = {part.prefix: part for family in FAMILIES.values() for part in family.parts}
# Parameters of the model, whatever scale effects are reported on.
_LINK_SCALE_QUANTITIES = frozenset({"effect_mean", "between_sd", "slope"})


@dataclass(frozen=True, slots=True)
class NumberCell:
    """One number of a row: the heading of its column, its text, a class for the style sheet, and a bar in percent."""

    column_heading: str
    cell_text: str
    css_class: str = ""
    bar_percent: int | None = None


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One segment of the table; a level has the name shown, and the full one where that was shortened, else ""."""

    level_names: tuple[tuple[str, str], ...]
    number_cells: tuple[NumberCell, ...]
    verdict: str
    verdict_tone: str
    caution_mark: str


@dataclass(frozen=True, slots=True)
class QuantityRow:
    """One row of the table of heterogeneity."""

    quantity_title: str
    value_text: str
    interval_text: str
    meaning: str


def build_segment_rows(arm_result: ArmResult, dimension_names: list[str], *, has_unit_counts: bool) -> list[SegmentRow]:
    """Build one row per segment, in the order of the cell table."""
    return [
        SegmentRow(
            level_names=tuple(
                _shorten_level(str(reading.table_row[dimension_name])) for dimension_name in dimension_names
            ),
            number_cells=tuple(_build_number_cells(arm_result, reading, has_unit_counts=has_unit_counts)),
            verdict=reading.verdict,
            verdict_tone=VERDICT_TONES.get(reading.verdict, "open"),
            caution_mark=_choose_caution_mark(arm_result, reading),
        )
        for reading in arm_result.readings
    ]


def _shorten_level(level_text: str) -> tuple[str, str]:
    full_name = clean_text(level_text)
    shown_name = shorten_text(full_name, MAX_LEVEL_COLUMNS)
    return shown_name, "" if shown_name == full_name else full_name


def _build_number_cells(arm_result: ArmResult, reading: SegmentReading, *, has_unit_counts: bool) -> list[NumberCell]:
    table_row, effect_format = reading.table_row, arm_result.effect_format
    number_cells = _build_size_cells(arm_result, reading) if has_unit_counts else []
    raw_text = effect_format.format_signed(table_row["raw"])
    error_text = (
        f" ± {effect_format.format_unsigned(table_row['raw_se'])}" if math.isfinite(table_row["raw_se"]) else ""
    )
    number_cells.append(
        NumberCell("Raw ± SE", raw_text + error_text if math.isfinite(table_row["raw"]) else "none", "quiet")
    )
    number_cells.append(
        NumberCell(write_effect_heading(arm_result), effect_format.format_signed(table_row["effect"]), "main")
    )
    interval_text = effect_format.format_interval(table_row["ci_low"], table_row["ci_high"], with_sign=True)
    number_cells.append(
        NumberCell(f"{format_interval_probability(arm_result.question.ci_prob)} interval", interval_text, "interval")
    )
    number_cells.append(NumberCell("P(> 0)", format_percent_probability(table_row["p_positive"])))
    number_cells.append(NumberCell("P(< 0)", format_percent_probability(table_row["p_negative"])))
    if math.isfinite(table_row["pooling"]):
        number_cells.append(
            NumberCell("Pooling", f"{table_row['pooling']:.2f}", "pooling", round(100 * table_row["pooling"]))
        )
    # Nobody has said which side is the better one: the columns name the side.
    side_headings = ("P(benefit)", "P(harm)") if arm_result.direction_is_known else ("P(raises)", "P(lowers)")
    heading_by_column = dict(zip(("p_rope", "p_benefit", "p_harm"), ("P(too small)", *side_headings), strict=True))
    number_cells += [
        NumberCell(column_heading, format_percent_probability(table_row[column_name]))
        for column_name, column_heading in heading_by_column.items()
        if column_name in table_row
    ]
    return number_cells


def write_effect_heading(arm_result: ArmResult) -> str:
    """Write the heading of the column of effects with its unit, so that no number stands without one."""
    unit_heading = arm_result.effect_format.column_heading
    return f"Effect, {unit_heading}" if unit_heading else "Effect"


def _build_size_cells(arm_result: ArmResult, reading: SegmentReading) -> list[NumberCell]:
    treated_count = _format_unit_count(reading.table_row["n_treated"])
    # Published estimates have no arms of their own: one number of units per segment.
    if not arm_result.control:
        return [NumberCell("n", treated_count)]
    control_count = _format_unit_count(reading.table_row["n_control"])
    size_cells = [NumberCell("n control", control_count), NumberCell("n treated", treated_count)]
    if "size_control" in reading.table_row:
        # What averages count by, where that is not n.
        sizes = [_format_unit_count(reading.table_row[f"size_{side}"]) for side in ("control", "treated")]
        size_cells += [NumberCell("Size control", sizes[0]), NumberCell("Size treated", sizes[1])]
    return size_cells


def _format_unit_count(unit_count: Any) -> str:
    return "unknown" if pd.isna(unit_count) else format_count(float(unit_count))


def _choose_caution_mark(arm_result: ArmResult, reading: SegmentReading) -> str:
    if not reading.is_tested:
        return "an arm is missing"
    marks = []
    if arm_result.pooling == "complete" and len(arm_result.readings) > 1:
        marks.append("common effect")
    elif arm_result.is_mostly_borrowed(reading):
        marks.append("mostly borrowed")
    # A coloured badge must not stand beside such an interval without the reason.
    if holds_zero_against_sign(reading.table_row, arm_result.question.ci_prob):
        marks.append(
            f"P counts one side; the {format_interval_probability(arm_result.question.ci_prob)} interval holds 0"
        )
    return ", ".join(marks)


def build_quantity_rows(arm_result: ArmResult, family: Family, outcome_unit: str) -> list[QuantityRow]:
    """Build the rows of heterogeneity: how much effects differ, with value, interval and meaning."""
    return [
        _build_quantity_row(arm_result, quantity_name, table_row, family, outcome_unit)
        for quantity_name, table_row in arm_result.heterogeneity.items()
        # A share of units harmed would guess which side is the worse one.
        if arm_result.direction_is_known or quantity_name != "share_harmed"
    ]


def _build_quantity_row(
    arm_result: ArmResult, quantity_name: str, table_row: dict[str, object], family: Family, outcome_unit: str
) -> QuantityRow:
    value, low, high = (float(str(table_row[column_name])) for column_name in ("value", "ci_low", "ci_high"))
    meaning, base_name = clean_text(str(table_row["meaning"])), _get_base_name(quantity_name)
    if base_name in _LINK_SCALE_QUANTITIES or base_name == "spread":
        scale = "link" if base_name in _LINK_SCALE_QUANTITIES else arm_result.question.scale
        quantity_format = choose_effect_format(family, scale, outcome_unit, [high - low])
        # For an identity link the link scale is the outcome's own; parts of an outcome have links of their own.
        part = next((part for prefix, part in _PARTS_BY_PREFIX.items() if quantity_name.startswith(prefix)), None)
        of_link = part.link_scale_name if part else name_link_scale(family)
        quantity_format = replace(quantity_format, unit_phrase=f" in {of_link}") if part else quantity_format
        meaning = meaning.replace(", link scale", f", {of_link}" if of_link else "")
        return QuantityRow(
            _write_quantity_title(quantity_name),
            f"{quantity_format.format_unsigned(value)}{quantity_format.unit_phrase}",
            quantity_format.format_interval(low, high),
            meaning,
        )
    if base_name == "correlation":
        return QuantityRow(
            _write_quantity_title(quantity_name),
            _format_signed(value),
            f"{_format_signed(low)} to {_format_signed(high)}",
            meaning,
        )
    # A p-value is no probability of an effect: it is not written in percent as those are.
    if base_name == "gail_simon_p":
        p_value_text = "< 0.001" if value < 0.0005 else f"{value:.3f}"
        return QuantityRow(_write_quantity_title(quantity_name), p_value_text, "", meaning)
    if base_name.startswith("p_"):
        # The meaning states the smallest effect in the data's unit, the page in its own.
        if arm_result.question.rope is not None:
            stated_rope = f"{arm_result.question.rope:g}, the smallest effect that matters"
            meaning = meaning.replace(stated_rope, format_rope(arm_result, arm_result.question.rope))
        return QuantityRow(_write_quantity_title(quantity_name), format_percent_probability(value), "", meaning)
    interval_text = f"{format_share(low)} to {format_share(high)}" if math.isfinite(low) else ""
    return QuantityRow(_write_quantity_title(quantity_name), format_share(value), interval_text, meaning)


def _get_base_name(quantity_name: str) -> str:
    """Get the kind of a quantity: ``between_sd`` of ``chance_between_sd`` and of ``between_sd[mobile]``."""
    for part_prefix in _PARTS_BY_PREFIX:
        quantity_name = quantity_name.removeprefix(part_prefix)
    return quantity_name.split("[", 1)[0]


def _write_quantity_title(quantity_name: str) -> str:
    part_titles = [part.title for prefix, part in _PARTS_BY_PREFIX.items() if quantity_name.startswith(prefix)]
    dimension_titles = (
        [shorten_text(clean_text(quantity_name.split("[", 1)[1].removesuffix("]")))] if "[" in quantity_name else []
    )
    return ", ".join(
        [_QUANTITY_TITLES.get(_get_base_name(quantity_name), quantity_name), *dimension_titles, *part_titles]
    )


def _format_signed(correlation: float) -> str:
    # A true minus sign, as in all other numbers of the page.
    return f"{correlation:+.2f}".replace("-", "−")
