"""Judge effects by a stated rule: helps, harms, too small to matter, not known; the one home of what these words mean.

An effect *matters* where it is larger than the smallest effect that matters (the rope); where none is stated, every
effect does. *Benefit* and *harm* are effects that matter, on the better and on the worse side of 0. The three
probabilities P(benefit), P(harm) and P(too small) add up to 1, so that at most one of them can be called: no segment
is harmed and too small to matter. A sign that is called while the size is not has words of its own, better and worse.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import pandas as pd
import xarray as xr

from bayes_hte.spec import Plan
from bayes_hte.spec.cell_table import ARM, SEGMENT, has_data
from bayes_hte.spec.rule import find_sign_probabilities

Verdict = Literal[
    "helps",
    "harms",
    "better",
    "worse",
    "raises",
    "lowers",
    "above 0",
    "below 0",
    "too small",
    "not known",
    "not tested",
]
"""What a row is judged to be.

helps, harms
    The effect matters, and is on the better or the worse side of 0.
better, worse
    Its side is called, but not whether it matters: only where a smallest effect that matters is stated.
raises, lowers, above 0, below 0
    In place of the four, where nobody has said which direction is better.
too small
    The effect does not matter, on whichever side of 0 it is.
not known, not tested
    Nothing is called; or there are no data in one of the arms.
"""

MAX_PULL_SE: Final = 3.0
"""Standard errors between raw and pooled estimate: by chance alone 1 in 370 segments without an effect of its own."""
MOSTLY_BORROWED_FACTOR: Final = 0.8
"""Above this share of the estimate comes from the other segments, the segment itself was hardly tested."""
DEFAULT_CI_PROB: Final = 0.95


def compute_interval_call_prob(ci_prob: float) -> float:
    """Compute the probability of a sign above which an interval with equal tails leaves 0 out: .975 of 95 %."""
    # One tail holds (1 − ci) / 2, and what is not in it (1 + ci) / 2.
    return (1 + ci_prob) / 2


@dataclass(frozen=True, slots=True)
class VerdictRule:
    """How probable something must be before it is called.

    Attributes
    ----------
    call_prob : float
        A benefit, a harm, a sign, a difference from the average is called where its probability is above this. By
        default a sign is called exactly where the 95 % interval shows it: a coloured badge beside an interval that
        holds 0 would say two things.
    max_pooling : float
        A segment with a larger pooling factor is mostly borrowed: it was hardly tested on its own.
    """

    call_prob: float = compute_interval_call_prob(DEFAULT_CI_PROB)
    max_pooling: float = MOSTLY_BORROWED_FACTOR

    def calls(self, probability: float) -> bool:
        """Tell whether something as probable as this is called; what is unknown (NaN) is not."""
        # Strict: with equal tails, P > 0.975 is the same as a 95 % interval without 0.
        return bool(probability > self.call_prob)


def choose_verdict_rule(plan: Plan | None, ci_prob: float = DEFAULT_CI_PROB) -> VerdictRule:
    """Choose how probable a sign must be: as the plan states it, else what intervals of `ci_prob` show.

    A plan states it as ``report.call_prob``, or in its rule: then by the stricter of shipping and stopping.
    """
    if plan is not None and plan.report.call_prob is not None:
        return VerdictRule(call_prob=plan.report.call_prob)
    # A rule may ask for sizes only: then nothing is stated about signs, and the interval shows them.
    if plan is not None and plan.decision is not None and (needed := find_sign_probabilities(plan.decision)):
        return VerdictRule(call_prob=max(needed.values()))
    return VerdictRule(call_prob=compute_interval_call_prob(ci_prob))


@dataclass(frozen=True, slots=True)
class VerdictWords:
    """Verdicts by side of 0: on effects that matter, and on those of which the sign alone is called."""

    matters_better: Verdict
    matters_worse: Verdict
    sign_better: Verdict
    sign_worse: Verdict


JUDGING_WORDS: Final = VerdictWords("helps", "harms", "better", "worse")
NEUTRAL_WORDS: Final = VerdictWords("raises", "lowers", "above 0", "below 0")
"""Where nobody has said which direction is better: help and harm would be a guess."""
VERDICT_TONES: Final[Mapping[Verdict, str]] = MappingProxyType({"helps": "good", "harms": "bad"})
"""Only help and harm have a colour: everything else is no reason to act, or none that was stated."""
VERDICTS_WITH_SIGN: Final = frozenset({"helps", "harms", "better", "worse", "raises", "lowers", "above 0", "below 0"})
"""Verdicts that call a sign, which can be wrong."""


def find_tested_cells(cells: xr.Dataset) -> xr.DataArray:
    """Find where an effect was tested: data in the treated arm, and in the control where there is one.

    Returns
    -------
    xarray.DataArray
        Dims (segment, arm), of the treated arms.
    """
    cell_has_data = has_data(cells).transpose(SEGMENT, ARM)
    control = cells.attrs["control"]
    if not control:
        return cell_has_data
    return cell_has_data.drop_sel({ARM: control}) & cell_has_data.sel({ARM: control}, drop=True)


def list_tested_rows(segment_table: pd.DataFrame, cells: xr.Dataset) -> list[bool]:
    """Tell of each row of the table of segments whether its effect was tested.

    Parameters
    ----------
    segment_table : pandas.DataFrame
        Of `Fit.table`: the segments of every arm in the order of the cells.
    cells : xarray.Dataset
    """
    is_tested = find_tested_cells(cells)
    tested_by_arm = {str(arm): is_tested.sel({ARM: arm}).values for arm in is_tested[ARM].values}
    segment_positions = segment_table.groupby("arm", sort=False).cumcount()
    return [
        bool(tested_by_arm[arm][position])
        for arm, position in zip(segment_table["arm"].astype(str), segment_positions, strict=True)
    ]


def judge_effects(
    effect_table: pd.DataFrame,
    rule: VerdictRule,
    *,
    higher_is_better: bool,
    is_tested: Sequence[bool] | None = None,
    direction_is_known: bool = True,
) -> list[Verdict]:
    """Judge each row of a table of effects by the probabilities of benefit, of harm, and of being too small to matter.

    Parameters
    ----------
    effect_table : pandas.DataFrame
        With p_positive and p_negative, and p_benefit, p_harm and p_rope where a smallest effect that matters is
        stated: segments, averages, levels.
    rule : VerdictRule
    higher_is_better : bool
        Whether an effect above 0 helps.
    is_tested : sequence of bool, optional
        Of each row, whether it has data of its own; by default all have.
    direction_is_known : bool
        False where it is doubtful which direction is better: verdicts then name the direction, and nothing more;
        `higher_is_better` is then true, as it is where nothing is stated.

    Returns
    -------
    list of str

    Examples
    --------
    >>> effects = pd.DataFrame({"p_positive": [0.99, 0.6, 0.01], "p_negative": [0.01, 0.4, 0.99]})
    >>> judge_effects(effects, VerdictRule(), higher_is_better=True)
    ['helps', 'not known', 'harms']

    Of three effects that are surely above 0 the first is larger than 1, the smallest that matters, the second is not,
    and of the third nobody knows.

    >>> effects = pd.DataFrame({"p_positive": 0.99, "p_negative": 0.01, "p_benefit": [0.98, 0.01, 0.5]})
    >>> effects = effects.assign(p_harm=0.0, p_rope=1 - effects["p_benefit"])
    >>> judge_effects(effects, VerdictRule(), higher_is_better=True)
    ['helps', 'too small', 'better']
    """
    words = JUDGING_WORDS if direction_is_known else NEUTRAL_WORDS
    side_probabilities = list_side_probabilities(effect_table, higher_is_better=higher_is_better)
    row_is_tested = [True] * len(effect_table) if is_tested is None else is_tested
    return [
        # Without an arm the effect comes from other segments, however probable its sign is.
        _judge_sides(sides, rule, words) if tested else "not tested"
        for tested, sides in zip(row_is_tested, side_probabilities, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class SideProbabilities:
    """Of one effect the probabilities of its sides of 0, and of its three sizes, which add up to 1.

    Attributes
    ----------
    better, worse : float
        That the effect is on the better side of 0, on the worse one.
    benefit, harm : float
        The same, and that it is large enough to matter.
    too_small : float
        That it is not; 0 where every effect matters.
    """

    better: float
    worse: float
    benefit: float
    harm: float
    too_small: float


def list_side_probabilities(effect_table: pd.DataFrame, *, higher_is_better: bool) -> list[SideProbabilities]:
    """List the probabilities of the sides of each row; without a smallest effect that matters, every effect does."""
    p_better, p_worse = effect_table["p_positive"], effect_table["p_negative"]
    if not higher_is_better:
        p_better, p_worse = p_worse, p_better
    p_benefit, p_harm, p_too_small = p_better, p_worse, 0 * p_better
    if "p_rope" in effect_table.columns:
        p_benefit, p_harm, p_too_small = (effect_table[name] for name in ("p_benefit", "p_harm", "p_rope"))
    return [
        SideProbabilities(*map(float, row))
        for row in zip(p_better, p_worse, p_benefit, p_harm, p_too_small, strict=True)
    ]


def _judge_sides(sides: SideProbabilities, rule: VerdictRule, words: VerdictWords) -> Verdict:
    # The sizes go first: they exclude each other, and the sign alone says less.
    ordered_claims: list[tuple[float, Verdict]] = [
        (sides.benefit, words.matters_better),
        (sides.harm, words.matters_worse),
        (sides.too_small, "too small"),
        (sides.better, words.sign_better),
        (sides.worse, words.sign_worse),
    ]
    return next((verdict for probability, verdict in ordered_claims if rule.calls(probability)), "not known")


def holds_zero_against_sign(effect_row: Mapping[str, float], ci_prob: float) -> bool:
    """Tell whether a sign is more probable than the interval, which holds 0 all the same.

    P(> 0) = .96 beside a 95 % interval that holds 0 is no contradiction: P counts one side of 0, and the interval
    leaves out 2.5 % on each side.
    """
    is_probable = max(effect_row["p_positive"], effect_row["p_negative"]) > ci_prob
    return bool(is_probable and effect_row["ci_low"] <= 0 <= effect_row["ci_high"])


def find_distinct_segments(contrast_table: pd.DataFrame, rule: VerdictRule) -> set[tuple[str, str]]:
    """Find the pairs of arm and segment whose effect clearly differs from what it is compared with.

    Parameters
    ----------
    contrast_table : pandas.DataFrame
        Of `Fit.contrasts`.
    rule : VerdictRule
    """
    is_clear = (contrast_table["p_positive"] > rule.call_prob) | (contrast_table["p_negative"] > rule.call_prob)
    clear_contrasts = contrast_table[is_clear]
    return set(zip(clear_contrasts["arm"].astype(str), clear_contrasts["segment"].astype(str), strict=True))


def is_mostly_borrowed(pooling_factor: float, rule: VerdictRule) -> bool:
    """Tell whether a segment's estimate is mostly that of the others; an unknown factor (NaN) says nothing."""
    return bool(pooling_factor > rule.max_pooling)


def is_pulled_in(table_row: Mapping[str, Any]) -> bool:
    """Tell whether a segment's own estimate lies further from the pooled one than chance would move it.

    Where most of an estimate is borrowed, intervals of true exceptions among many like segments hold them in .00 to .57
    of experiments under normal effects, in .19 to .80 under Student's t with 4 degrees of freedom.
    """
    # |raw − pooled| > 3 se; NaN where there is no raw estimate
    return bool(abs(table_row["raw"] - table_row["effect"]) > MAX_PULL_SE * table_row["raw_se"])


def compute_false_sign_rate(called_effects: pd.DataFrame) -> float:
    """Compute the expected share of wrong signs among called effects: the mean local false sign rate, NaN of none."""
    if called_effects.empty:
        return math.nan
    # Σ_s min(P(effect_s > 0), P(effect_s < 0)) / S
    return float(called_effects[["p_positive", "p_negative"]].min(axis=1).mean())
