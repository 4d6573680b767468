"""Judge effects by a stated rule: helps, harms, not known; and which segments are like the average or hardly tested."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd
import xarray as xr

from bayes_hte.spec import Plan
from bayes_hte.spec.cell_table import ARM, SEGMENT, has_data

Verdict = Literal["helps", "harms", "not known", "not tested"]

DEFAULT_CALL_PROB: Final = 0.95
"""A sign is called where its probability is above this: the convention that readers bring."""
MOSTLY_BORROWED_FACTOR: Final = 0.8
"""Above this share of the estimate comes from the other segments, the segment itself was hardly tested."""


@dataclass(frozen=True, slots=True)
class VerdictRule:
    """How probable something must be before it is called.

    Attributes
    ----------
    call_prob : float
        A sign, a difference from the average or a relevant benefit is called where its probability is above this.
    max_pooling : float
        A segment with a larger pooling factor is mostly borrowed: it was hardly tested on its own.
    """

    call_prob: float = DEFAULT_CALL_PROB
    max_pooling: float = MOSTLY_BORROWED_FACTOR

    def calls(self, probability: float) -> bool:
        """Tell whether something as probable as this is called; what is unknown (NaN) is not."""
        # Strict: with equal tails, P > 0.975 is the same as a 95 % interval without 0.
        return bool(probability > self.call_prob)


def choose_verdict_rule(plan: Plan | None) -> VerdictRule:
    """Choose the rule that a plan states as ``report.call_prob``; without a plan, the default."""
    return VerdictRule() if plan is None else VerdictRule(call_prob=plan.report.call_prob)


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
    segment_positions = segment_table.groupby("arm", sort=False).cumcount()
    return [
        bool(is_tested.sel({ARM: arm}).values[position])
        for arm, position in zip(segment_table["arm"].astype(str), segment_positions, strict=True)
    ]


def judge_effects(
    effect_table: pd.DataFrame, rule: VerdictRule, *, higher_is_better: bool, is_tested: Sequence[bool] | None = None
) -> list[Verdict]:
    """Judge each row of a table of effects by the probabilities of its signs.

    Parameters
    ----------
    effect_table : pandas.DataFrame
        With p_positive and p_negative: segments, averages, levels.
    rule : VerdictRule
    higher_is_better : bool
        Whether an effect above 0 helps.
    is_tested : sequence of bool, optional
        Of each row, whether it has data of its own; by default all have.

    Returns
    -------
    list of str
        helps, harms, not known or not tested.

    Examples
    --------
    >>> effects = pd.DataFrame({"p_positive": [0.99, 0.6, 0.01], "p_negative": [0.01, 0.4, 0.99]})
    >>> judge_effects(effects, VerdictRule(), higher_is_better=True)
    ['helps', 'not known', 'harms']
    """
    p_helps, p_harms = effect_table["p_positive"], effect_table["p_negative"]
    if not higher_is_better:
        p_helps, p_harms = p_harms, p_helps
    row_is_tested = [True] * len(effect_table) if is_tested is None else is_tested
    verdicts: list[Verdict] = []
    for tested, p_help, p_harm in zip(row_is_tested, p_helps, p_harms, strict=True):
        # Without an arm the effect comes from other segments, however probable its sign is.
        if not tested:
            verdicts.append("not tested")
        elif rule.calls(p_help):
            verdicts.append("helps")
        else:
            verdicts.append("harms" if rule.calls(p_harm) else "not known")
    return verdicts


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


def compute_false_sign_rate(called_effects: pd.DataFrame) -> float:
    """Compute the expected share of wrong signs among called effects: the mean local false sign rate, NaN of none."""
    if called_effects.empty:
        return math.nan
    # Σ_s min(P(effect_s > 0), P(effect_s < 0)) / S
    return float(called_effects[["p_positive", "p_negative"]].min(axis=1).mean())
