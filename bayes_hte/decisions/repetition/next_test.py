"""Find how many more units it takes until a segment's decision is likely, and what they are worth.

Preposterior analysis of a follow-up in one segment. Its estimate y of the benefit b has variance v, which n more units
make of the variance se² that the segment's own N units have now,

    v = se² N / n            y | b ~ N(b, v)

The posterior of b has mean m and SD s now. Afterwards, in the normal approximation,

    mean  M = m + k (y − m)      SD  s √(1 − k)      k = s² / (s² + v)

Which M leads to a decision follows from the rule; how probable that is, from y over the draws of b, whatever their
distribution. The worth of the follow-up is what can be decided better afterwards. The gain g_r of treating segment r,
which hears of segment s by their covariance, has the mean afterwards

    E[g_r | y] ~ N(E g_r, σ_r²)     σ_r = |Cov(g_r, b_s)| / √(s² + v)

and its treatment is chosen where that is above 0, so that the expected value of the sample information is

    EVSI = Σ_r share_r (E max(0, E[g_r | y]) − max(0, E g_r)),   E max(0, N(μ, σ²)) = μ Φ(μ / σ) + σ φ(μ / σ)

References
----------
Raiffa & Schlaifer (1961), Applied Statistical Decision Theory (unit normal loss, preposterior analysis).
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import format_percentage
from bayes_hte._support.validation import check_number, describe_value
from bayes_hte.decisions.decide import decide_segments, weigh_segments
from bayes_hte.decisions.direction import is_direction_known
from bayes_hte.decisions.repetition.normal_decisions import estimate_gains
from bayes_hte.decisions.repetition.standard_errors import count_units, measure_standard_errors
from bayes_hte.decisions.rules.evidence import get_size_that_matters, turn_to_benefit
from bayes_hte.decisions.verdicts import MOSTLY_BORROWED_FACTOR, find_tested_cells
from bayes_hte.errors import ArgumentError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.pooling_factor import average_pooling
from bayes_hte.estimands.tables import EffectQuestion, build_effect_table
from bayes_hte.estimands.weights import compute_population_shares
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, SEGMENT, name_size_unit
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model, is_from_posterior
from bayes_hte.spec.rule import resolve_threshold

MAX_SIZE_RATIO: Final = 1e4
"""Times the units of now that are looked through: nobody runs a larger follow-up."""
MAX_EXACT_COUNT: Final = 2.0**53
"""Units up to which a floating-point number still counts one by one."""
GRID_POINTS: Final = 81
"""Sizes on the first grid, 12 % apart in the logarithm; bisection goes on from there."""


@dataclass(frozen=True, slots=True)
class SegmentOutlook:
    """What is known of one segment and arm before a follow-up.

    Attributes
    ----------
    benefits : ndarray
        Draws on the scale of the rule, (draw,).
    variance : float
        Sampling variance of the segment's own estimate with the units that it has.
    pooling : float
        Share of the estimate that is borrowed now; NaN where nobody knows it.
    is_pooled : bool
        Whether a segment that borrows too much is not called.
    pays_from : float
        Mean benefit above which shipping pays its cost; −∞ where it costs nothing.
    """

    benefits: FloatArray
    variance: float
    pooling: float
    is_pooled: bool
    pays_from: float = -np.inf


def tabulate_next_test(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, assurance: float, n: float | None = None
) -> pd.DataFrame:
    """Tabulate further units needed and what a follow-up is worth, by segment and arm; see `Fit.next_test`.

    Raises
    ------
    ArgumentError
        If `assurance` is no probability or `n` no number above 0.
    DataError
        If nobody has said how large the cells are.
    """
    wanted = check_number(assurance, "assurance, the probability that a decision is reached")
    if not 0 < wanted < 1:
        raise ArgumentError(
            f"assurance is {describe_value(assurance)}, which is no probability between 0 and 1; give one, such as 0.8"
        )
    cells, units = get_fitted_cells(fit_tree), count_units(fit_tree)
    added_units = units if n is None else xr.full_like(units, check_number(n, "n, the further units of a segment"))
    if not bool((added_units >= 0).all()) or (n is not None and not n > 0):
        raise ArgumentError(f"n is {describe_value(n)}, and a follow-up has units; give a number above 0")
    decisions = decide_segments(fit_tree, question, rule)["decision"].to_numpy(str)
    needed, reached = _find_needed_units(fit_tree, question, rule, wanted, decisions)
    columns = {"units_now": units, "units_needed": needed, "p_decision": reached, "evsi_units": added_units}
    columns |= compute_information_value(fit_tree, question, rule, added_units)
    table = build_effect_table(columns, cells)
    table.insert(list(table.columns).index("units_now"), "decision", decisions)
    table["why"] = [_write_reason(row, wanted) for row in table.to_dict("records")]
    for name in ("units_now", "units_needed", "evsi_units"):
        table[name] = np.ceil(table[name]).where(table[name] <= MAX_EXACT_COUNT).astype("Int64")
    table.attrs["gain_units"] = "money per person" if rule.value is not None else "outcome per person"
    # Clusters, views and hours are counted as they are.
    table.attrs["units"] = "units" if "n" in cells else name_size_unit(cells)
    return table


def _find_needed_units(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, wanted: float, decisions: np.ndarray
) -> tuple[xr.DataArray, xr.DataArray]:
    """Find the units that each segment still needs, and how probable a decision then is; dims (segment, arm)."""
    benefits = turn_to_benefit(compute_effects(fit_tree, question.scale), higher_is_better=question.higher_is_better)
    benefits = benefits.transpose("chain", "draw", SEGMENT, ARM)
    errors, pooling = measure_standard_errors(fit_tree, question.scale), average_pooling(fit_tree)["pooling"]
    pooling, units = pooling.transpose(SEGMENT, ARM), count_units(fit_tree)
    is_tested = find_tested_cells(get_fitted_cells(fit_tree)).transpose(SEGMENT, ARM)
    can_be_called = is_tested & is_direction_known(fit_tree, question)
    is_one_effect = get_fitted_model(fit_tree).pooling == "complete" and not is_from_posterior(fit_tree)
    pays_from = find_paying_benefit(fit_tree, question, rule)
    needed, reached = np.full(errors.shape, np.nan), np.full(errors.shape, np.nan)
    now = decisions.reshape(errors.shape)
    # An arm that may be shipped and gains less than the one that is: no more units of it are needed.
    may_ship = weigh_segments(fit_tree, question, rule)["decision"].transpose(SEGMENT, ARM).values == "ship"
    is_outdone = may_ship & (now == "undecided") & (now == "ship").any(axis=1, keepdims=True)
    for segment, arm in np.ndindex(*errors.shape):
        if now[segment, arm] != "undecided" or is_outdone[segment, arm]:
            needed[segment, arm], reached[segment, arm] = 0.0, 1.0
        elif bool(can_be_called.values[segment, arm]):
            outlook = SegmentOutlook(
                benefits.values[..., segment, arm].ravel(),
                float(errors.values[segment, arm]) ** 2,
                float(pooling.values[segment, arm]),
                not is_one_effect,
                float(pays_from.values[segment, arm]),
            )
            ratio, reached[segment, arm] = find_size_ratio(outlook, rule, wanted)
            needed[segment, arm] = ratio * units.values[segment, arm]
    return errors.copy(data=needed), errors.copy(data=reached)


def find_size_ratio(outlook: SegmentOutlook, rule: Rule, wanted: float) -> tuple[float, float]:
    """Find the least follow-up, in times the units of now, after which a decision is as probable as is wanted.

    Returns
    -------
    ratio : float
        NaN where none of any size is enough.
    probability : float
        Of a decision after it, or after the largest.
    """
    grid = np.geomspace(1e-2, MAX_SIZE_RATIO, GRID_POINTS)
    probabilities = np.array([compute_decision_probability(outlook, rule, ratio) for ratio in grid])
    is_enough = probabilities >= wanted
    if not is_enough.any():
        return float("nan"), float(probabilities[-1])
    first = int(is_enough.argmax())
    # The smallest of the grid is 1 %: a segment at the edge of a decision needs no more exact number.
    low, high = grid[max(first - 1, 0)], grid[first]
    # To 1 part in 1000: a unit among a thousand.
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        is_enough_there = compute_decision_probability(outlook, rule, middle) >= wanted
        low, high = (low, middle) if is_enough_there else (middle, high)
    return float(high), float(compute_decision_probability(outlook, rule, high))


def compute_decision_probability(outlook: SegmentOutlook, rule: Rule, ratio: float) -> float:
    """Compute how probable a decision is after a follow-up that is `ratio` times as large as the units of now."""
    from scipy import special

    if outlook.is_pooled and _compute_pooling_after(outlook.pooling, ratio) > MOSTLY_BORROWED_FACTOR:
        return 0.0
    mean, sd = float(outlook.benefits.mean()), float(outlook.benefits.std(ddof=1))
    # v = se² N / n,   k = s² / (s² + v)
    variance = outlook.variance / ratio
    weight = sd**2 / (sd**2 + variance)
    sd_after = sd * np.sqrt(1 - weight)
    centres, spread = mean + weight * (outlook.benefits - mean), weight * np.sqrt(variance)
    probability = 0.0
    for low, high in find_decision_ranges(rule, sd_after, outlook.pays_from):
        # P(low < M < high) over the noise of y, then over draws
        probability += float((special.ndtr((high - centres) / spread) - special.ndtr((low - centres) / spread)).mean())
    return probability


def _compute_pooling_after(pooling: float, ratio: float) -> float:
    """Compute the share that is borrowed once the segment has 1 + ratio times its units."""
    # f = se² / (se² + τ²), and se² is divided by 1 + ratio
    return pooling / (pooling + (1 - pooling) * (1 + ratio))


def find_paying_benefit(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule) -> xr.DataArray:
    """Find the mean benefit, on the rule's scale, above which shipping pays its cost; dims (segment, arm)."""
    zero = compute_effects(fit_tree, question.scale).isel(chain=0, draw=0, drop=True).transpose(SEGMENT, ARM) * 0.0
    if rule.cost <= 0:
        return zero - np.inf
    # gain = slope · benefit − cost, and −cost where the benefit is 0; never where more benefit gains no more
    cost_alone = estimate_gains(fit_tree, question, rule, zero)
    slope = estimate_gains(fit_tree, question, rule, zero + 1.0) - cost_alone
    paying: xr.DataArray = (-cost_alone / slope.where(slope > 0)).fillna(np.inf)
    return paying.transpose(SEGMENT, ARM)


def find_decision_ranges(rule: Rule, sd: float, pays_from: float = -np.inf) -> list[tuple[float, float]]:
    """Find the posterior means from which a normal benefit with an SD is shipped, stopped or called equivalent.

    Parameters
    ----------
    rule : Rule
    sd : float
    pays_from : float
        Means below it are not shipped, as that costs more than it brings.

    Returns
    -------
    list of tuple
        Ranges that do not overlap; none of an action that no mean can reach.
    """
    from scipy import special

    size = get_size_that_matters(rule)
    # P(b > c) ≥ p  ⇔  M ≥ c + z_p sd
    ship_from = max(resolve_threshold(each.above, size) + float(special.ndtri(each.p)) * sd for each in rule.ship)
    stop_to = min(resolve_threshold(each.below, size) - float(special.ndtri(each.p)) * sd for each in rule.stop)
    ranges = [(max(ship_from, pays_from), np.inf), (-np.inf, stop_to)]
    if rule.equivalent is not None:
        width = resolve_threshold(rule.equivalent.within, size)
        reach = _find_equivalence_reach(width, rule.equivalent.p, sd)
        # Shipping and stopping go before being equivalent, also where shipping does not pay.
        low, high = max(-reach, stop_to), min(reach, ship_from)
        ranges += [(low, high)] if high > low else []
    return ranges


def _find_equivalence_reach(width: float, needed: float, sd: float) -> float:
    """Find how far from 0 a mean may lie so that |b| ≤ width with the probability needed; −∞ if none may."""
    from scipy import special

    def compute_probability_within(mean: float) -> float:
        return float(special.ndtr((width - mean) / sd) - special.ndtr((-width - mean) / sd))

    if compute_probability_within(0.0) < needed:
        return -np.inf
    low, high = 0.0, width
    # At |M| = width the probability is at most one half, which no rule may ask for less than.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if compute_probability_within(middle) >= needed else (low, middle)
    return low


def compute_information_value(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, added_units: xr.DataArray
) -> dict[str, xr.DataArray]:
    """Compute what a follow-up in each segment is worth, per person of the population; dims (segment, arm).

    evsi counts what it teaches of all segments, evsi_own of its own segment alone, evpi what knowing its effect would.
    """
    value = 1.0 if rule.value is None else rule.value
    absolute = turn_to_benefit(compute_effects(fit_tree, "absolute"), higher_is_better=question.higher_is_better)
    gains = (value * absolute - rule.cost).transpose("chain", "draw", SEGMENT, ARM).values
    gains = gains.reshape(-1, *gains.shape[2:])
    # On the absolute scale, on which gains are benefits but for value and cost: v in its square
    variance = measure_standard_errors(fit_tree, "absolute") ** 2 * count_units(fit_tree) / added_units
    is_tested = find_tested_cells(get_fitted_cells(fit_tree)).transpose(SEGMENT, ARM).values
    shares = compute_population_shares(get_fitted_cells(fit_tree)).values
    results = {name: np.full(variance.shape, np.nan) for name in ("evsi", "evsi_own", "evpi")}
    for arm in range(gains.shape[2]):
        arm_gains = gains[:, :, arm]
        mean, covariance = arm_gains.mean(0), np.atleast_2d(np.cov(arm_gains, rowvar=False))
        # Without an estimate of its own nobody knows how precise another one would be: it is taken to teach nothing.
        noise = np.where(is_tested[:, arm], value**2 * variance.values[:, arm], np.inf)
        own_variance = np.diag(covariance)
        # σ_r = |Cov(g_r, b_s)| / √(Var b_s + v), with b_s = g_s / value
        shifts = np.abs(covariance) / np.sqrt(own_variance + noise)
        # Information is never worth less than nothing; rounding may say so.
        benefit = np.maximum(expect_best_choice(mean[:, None], shifts) - np.maximum(mean, 0.0)[:, None], 0.0)
        # Of the segment itself all draws are at hand, which are skewed where it is small. Its mean then is
        # m + ρ (g − m) of a draw g, with ρ² = Var b / (Var b + v): never worth more than g itself, which is evpi.
        centres = mean + np.sqrt(own_variance / (own_variance + noise)) * (arm_gains - mean)
        worth_now = np.maximum(mean, 0.0)
        np.fill_diagonal(benefit, np.maximum(np.maximum(centres, 0.0).mean(0) - worth_now, 0.0))
        benefit = np.where(is_tested[:, arm], shares[:, None] * benefit, np.nan)
        results["evsi"][:, arm] = benefit.sum(0)
        results["evsi_own"][:, arm] = np.diag(benefit)
        results["evpi"][:, arm] = shares * np.maximum(np.maximum(arm_gains, 0.0).mean(0) - worth_now, 0.0)
    return {name: variance.copy(data=values) for name, values in results.items()}


def expect_best_choice(mean: FloatArray, sd: FloatArray) -> FloatArray:
    """Compute E max(0, N(mean, sd²)): what the better of treating and not treating brings, once the mean is known.

    Examples
    --------
    >>> expect_best_choice(np.array([0.0, 2.0]), np.array([1.0, 0.0])).round(4).tolist()
    [0.3989, 2.0]
    """
    from scipy import special

    # μ Φ(μ / σ) + σ φ(μ / σ)
    safe_sd = np.maximum(sd, 1e-300)
    # Beyond 38 SDs the density is 0 in double precision.
    z = np.clip(mean / safe_sd, -40.0, 40.0)
    return np.asarray(mean * special.ndtr(z) + safe_sd * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))


def _write_reason(row: Mapping[Hashable, Any], wanted: float) -> str:
    """Write in a sentence what the segment still needs."""
    needed, probability = float(row["units_needed"]), float(row["p_decision"])
    if needed == 0:
        settled = row["decision"] if row["decision"] != "undecided" else "another arm is shipped to this segment"
        return f"Decided: {settled}."
    if np.isnan(probability):
        return "Not tested, or its better direction is not known: no follow-up of this segment is planned."
    if np.isnan(needed):
        return (
            f"No follow-up of this segment alone makes a decision {format_percentage(wanted)} likely: even with "
            f"{MAX_SIZE_RATIO:,.0f} times its units it is {format_percentage(round(probability, 2))}."
        )
    return f"With {np.ceil(needed):,.0f} further units a decision is {format_percentage(round(probability, 2))} likely."
