"""The tables of the report as plain text in rows."""

import math
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte.families import Family
from bayes_hte.plot.text import clean, count, shorten
from bayes_hte.report.answer import BORROWED, Case, Segment, declared
from bayes_hte.report.notation import logarithm, measure, percent, probability, share
from bayes_hte.schema import ARM, SEGMENT, present

LONGEST_LEVEL = 80
"""A longer name would be most of the page; it is shown in full on hovering."""
_QUANTITIES = {
    "effect_mean": "Common effect",
    "between_sd": "Between-segment SD (τ)",
    "i2": "I²",
    "spread": "Spread of effects",
    "p_all_positive": "P(every effect > 0)",
    "p_all_negative": "P(every effect < 0)",
    "share_harmed": "Share of units harmed",
    "p_spread_matters": "P(spread matters)",
    "p_tau_matters": "P(τ matters)",
    "p_qualitative": "P(some gain, some lose)",
    "gail_simon_p": "Gail–Simon p-value",
    "slope": "Slope",
    "correlation": "Correlation with the baseline",
}
_PARTS = {"chance_": "chance of a positive outcome", "amount_": "amount"}
_LINKS = {"chance_": "log-odds", "amount_": "the log of positive outcomes"}
_LINK_SCALE = frozenset({"effect_mean", "between_sd", "slope"})
_TONES = {"helps": "good", "harms": "bad", "not known": "open", "not tested": "open"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a row: the head of its column, its text, and a class for the style sheet."""

    head: str
    text: str
    kind: str = ""
    bar: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One segment of the table; a level is what is shown, and the full name where that was shortened."""

    levels: tuple[tuple[str, str], ...]
    cells: tuple[Cell, ...]
    verdict: str
    tone: str
    mark: str


@dataclass(frozen=True, slots=True)
class Quantity:
    """One line of the table of heterogeneity."""

    name: str
    value: str
    interval: str
    meaning: str


def segment_rows(case: Case, dimensions: list[str], *, units: bool) -> list[Row]:
    """One row per segment, in the order of the cell table."""
    return [
        Row(
            levels=tuple(_level(str(segment.row[name])) for name in dimensions),
            cells=tuple(_cells(case, segment, units=units)),
            verdict=segment.verdict,
            tone=_TONES[segment.verdict],
            mark=_mark(case, segment),
        )
        for segment in case.segments
    ]


def _level(text: str) -> tuple[str, str]:
    full = clean(text)
    shown = shorten(full, LONGEST_LEVEL)
    return shown, "" if shown == full else full


def _cells(case: Case, segment: Segment, *, units: bool) -> list[Cell]:
    row, measure_ = segment.row, case.measure
    found = _sizes(case, segment) if units else []
    raw = measure_.signed(row["raw"])
    error = f" ± {measure_.plain(row['raw_se'])}" if math.isfinite(row["raw_se"]) else ""
    found.append(Cell("Raw ± SE", raw + error if math.isfinite(row["raw"]) else "none", "quiet"))
    found.append(Cell(effect_head(case), measure_.signed(row["effect"]), "main"))
    interval = measure_.interval(row["ci_low"], row["ci_high"], sign=True)
    found.append(Cell(f"{percent(case.question.ci_prob)} interval", interval, "interval"))
    found.append(Cell("P(> 0)", probability(row["p_positive"])))
    found.append(Cell("P(< 0)", probability(row["p_negative"])))
    if math.isfinite(row["pooling"]):
        found.append(Cell("Pooling", f"{row['pooling']:.2f}", "pooling", round(100 * row["pooling"])))
    named = {"p_rope": "P(too small)", "p_benefit": "P(benefit)", "p_harm": "P(harm)"}
    found += [Cell(head, probability(row[key])) for key, head in named.items() if key in row]
    return found


def effect_head(case: Case) -> str:
    """The head of the column of effects: with its unit, so that no number stands without one."""
    return f"Effect, {case.measure.heading}" if case.measure.heading else "Effect"


def _sizes(case: Case, segment: Segment) -> list[Cell]:
    treated = Cell("n treated" if case.control else "n", _n(segment.row["n_treated"]))
    return [Cell("n control", _n(segment.row["n_control"])), treated] if case.control else [treated]


def _n(value: Any) -> str:
    return "unknown" if pd.isna(value) else count(float(value))


def _mark(case: Case, segment: Segment) -> str:
    if not segment.tested:
        return "an arm is missing"
    if case.pooling == "complete" and len(case.segments) > 1:
        return "common effect"
    borrowed = case.pooling == "partial" and segment.row["pooling"] > BORROWED
    return "mostly borrowed" if borrowed else ""


def tested(cells: xr.Dataset, arm: str) -> list[bool]:
    """Which segments have data in the arm, and in the control where there is one."""
    there = present(cells)
    own = there.sel({ARM: arm}, drop=True)
    if cells.attrs["control"]:
        own = own & there.sel({ARM: cells.attrs["control"]}, drop=True)
    return [bool(value) for value in own.transpose(SEGMENT).values]


def quantities(case: Case, family: Family, unit: str) -> list[Quantity]:
    """How much effects differ: value, interval and meaning."""
    return [_quantity(case, name, row, family, unit) for name, row in case.spread.items()]


def _quantity(case: Case, name: str, row: dict[str, object], family: Family, unit: str) -> Quantity:
    value, low, high = (float(str(row[key])) for key in ("value", "ci_low", "ci_high"))
    meaning, base = clean(str(row["meaning"])), _base(name)
    if base in _LINK_SCALE or base == "spread":
        scale = "link" if base in _LINK_SCALE else case.question.scale
        written = measure(family, scale, unit, [high - low])
        # For an identity link the link scale is the outcome's own; parts of an outcome have links of their own.
        part = next((part for part in _PARTS if name.startswith(part)), "")
        of_link = _LINKS.get(part, logarithm(family))
        written = replace(written, words=f" in {of_link}") if part else written
        meaning = meaning.replace(", link scale", f", {of_link}" if of_link else "")
        return Quantity(_title(name), f"{written.plain(value)}{written.words}", written.interval(low, high), meaning)
    if base == "correlation":
        return Quantity(_title(name), _signed(value), f"{_signed(low)} to {_signed(high)}", meaning)
    if base == "gail_simon_p":
        return Quantity(_title(name), "< 0.001" if value < 0.0005 else f"{value:.3f}", "", meaning)
    if base.startswith("p_"):
        if case.question.rope is not None:
            stated = f"{case.question.rope:g}, the smallest effect that matters"
            meaning = meaning.replace(stated, declared(case, case.question.rope))
        return Quantity(_title(name), probability(value), "", meaning)
    interval = f"{share(low)} to {share(high)}" if math.isfinite(low) else ""
    return Quantity(_title(name), share(value), interval, meaning)


def _base(name: str) -> str:
    """The kind of a quantity: ``between_sd`` of ``chance_between_sd`` and of ``between_sd[mobile]``."""
    for part in _PARTS:
        name = name.removeprefix(part)
    return name.split("[", 1)[0]


def _title(name: str) -> str:
    of = [label for part, label in _PARTS.items() if name.startswith(part)]
    inside = [shorten(clean(name.split("[", 1)[1].removesuffix("]")))] if "[" in name else []
    return ", ".join([_QUANTITIES.get(_base(name), name), *inside, *of])


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
