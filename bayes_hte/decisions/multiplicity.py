"""Count what many segments do to calls: expected wrong ones, joint intervals, p-values for those who report them."""

from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.cells.checks.hypothesis_tests import MIN_EXPECTED_COUNT, RealValues, compute_binomial_p
from bayes_hte.decisions.decide import decide_segments
from bayes_hte.decisions.rules.evidence import turn_to_benefit
from bayes_hte.decisions.verdicts import find_tested_cells
from bayes_hte.estimands.effects import compute_effects, estimate_without_pooling, get_fitted_family
from bayes_hte.estimands.tables import EffectQuestion, build_effect_table, select_sign_probabilities, summarise_draws
from bayes_hte.inference.draw_blocks import SAMPLE_DIMS
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, SEGMENT, list_treated_arms
from bayes_hte.spec.fit_tree import get_fitted_cells

CALLED: Final = ("ship", "stop")
"""Decisions that can be wrong calls: an effect that is too small to matter calls no sign."""


def tabulate_multiplicity(fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule) -> pd.DataFrame:
    """Tabulate p-values beside posterior answers, one row per segment and arm; see `Fit.multiplicity`."""
    cells, effect_draws = get_fitted_cells(fit_tree), compute_effects(fit_tree, question.scale)
    raw_estimates = estimate_without_pooling(fit_tree, question.scale)
    p_raw, tests = compute_raw_p_values(fit_tree, raw_estimates)
    summary = {**summarise_draws(effect_draws, question), **select_sign_probabilities(fit_tree)}
    low, high = compute_simultaneous_intervals(effect_draws, question.ci_prob)
    decision_table = decide_segments(fit_tree, question, rule)
    columns = {
        "raw": raw_estimates["raw"],
        "raw_se": raw_estimates["raw_se"],
        "test": tests,
        "p_raw": p_raw,
        "p_holm": adjust_by_holm(p_raw),
        "p_bh": adjust_by_benjamini_hochberg(p_raw),
        "effect": summary["effect"],
        "p_positive": summary["p_positive"],
        # min(P(effect > 0), P(effect < 0))
        "local_false_sign_rate": summary["p_positive"].where(
            summary["p_positive"] <= summary["p_negative"], summary["p_negative"]
        ),
        "simultaneous_low": low,
        "simultaneous_high": high,
    }
    table = build_effect_table(columns, cells)
    table = table.assign(decision=decision_table["decision"], p_wrong=decision_table["p_wrong"])
    table.attrs |= count_wrong_calls(effect_draws, decision_table, higher_is_better=question.higher_is_better)
    table.attrs |= {"wanted_wrong_share": rule.wrong_calls, "simultaneous_prob": question.ci_prob}
    return table


def count_wrong_calls(
    effect_draws: xr.DataArray, decision_table: pd.DataFrame, *, higher_is_better: bool
) -> dict[str, Any]:
    """Count the calls of a table of decisions, and how many of them are expected to be wrong.

    Parameters
    ----------
    effect_draws : xarray.DataArray
        Dims (chain, draw, segment, arm).
    decision_table : pandas.DataFrame
        Of `decide_segments`: rows in the order of segments and, within these, arms.
    higher_is_better : bool

    Returns
    -------
    dict
        calls; expected_wrong_calls, the sum of their P(wrong); expected_wrong_share, NaN without calls;
        p_all_calls_right, from joint draws, 1 without calls.
    """
    benefit_draws = turn_to_benefit(effect_draws, higher_is_better=higher_is_better)
    benefits = benefit_draws.transpose(SEGMENT, ARM, *SAMPLE_DIMS).values.reshape(len(decision_table), -1)
    decisions = decision_table["decision"].to_numpy()
    called = np.isin(decisions, CALLED)
    # Right: a benefit where shipped, a harm where stopped; all together in the same draw.
    is_right = np.where((decisions == "ship")[called, None], benefits[called] > 0, benefits[called] < 0)
    wrong_probabilities = decision_table.loc[called, "p_wrong"]
    return {
        "calls": int(called.sum()),
        "expected_wrong_calls": float(wrong_probabilities.sum()),
        "expected_wrong_share": float(wrong_probabilities.mean()) if called.any() else float("nan"),
        "p_all_calls_right": float(is_right.all(axis=0).mean()),
    }


def compute_simultaneous_intervals(draws: xr.DataArray, probability: float) -> tuple[xr.DataArray, xr.DataArray]:
    """Compute intervals that hold all effects together with a probability, from joint draws.

    Every effect's own interval is widened around its median by one factor, so that skewed and heavy-tailed effects keep
    their shape: the factor with which all hold together in so many of the draws.

    Parameters
    ----------
    draws : xarray.DataArray
        Dims chain, draw and any others, which are taken together.
    probability : float

    Returns
    -------
    low, high : xarray.DataArray

    Examples
    --------
    Of four independent normal effects each is held with .95^(1/4), within 2.49 SDs (Šidák):

    >>> rng = np.random.default_rng(1)
    >>> draws = xr.DataArray(rng.standard_normal((4, 5000, 4)), dims=("chain", "draw", "segment"))
    >>> low, high = compute_simultaneous_intervals(draws, 0.95)
    >>> round(float((high - low).mean()) / 2, 1)
    2.5
    """
    tail_prob = (1 - probability) / 2
    low, median, high = (
        draws.quantile(level, SAMPLE_DIMS).drop_vars("quantile") for level in (tail_prob, 0.5, 1 - tail_prob)
    )
    below, above = median - low, high - median
    # d = (θ − median) / (high − median) above the median, (median − θ) / (median − low) below; factor = its quantile
    distances = (draws - median) / above.where(above > 0)
    distances = distances.where(draws >= median, (median - draws) / below.where(below > 0))
    other_dims = [dim for dim in draws.dims if dim not in SAMPLE_DIMS]
    # An effect without spread, as of one value in all draws, has no distance and is held by its own value.
    largest_distances = distances.max(other_dims).fillna(0.0)
    factor = largest_distances.quantile(probability, SAMPLE_DIMS).drop_vars("quantile").clip(min=1.0)
    return median - factor * below, median + factor * above


def compute_raw_p_values(fit_tree: xr.DataTree, raw_estimates: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Compute two-sided p-values of each segment's own estimate, and name the test of each.

    z tests of raw / raw_se, as the table shows them. Where counts are too few for it, the exact test of the counts:
    Fisher's of units with the event, the conditional binomial test of events over exposures; times to an event have z
    tests only.

    Returns
    -------
    p_values : xarray.DataArray
        Dims (segment, arm); NaN where a segment has no estimate of its own.
    tests : xarray.DataArray
        "z", "Fisher", "conditional binomial", or "" where there is none.
    """
    from scipy import special

    family, cells = get_fitted_family(fit_tree), get_fitted_cells(fit_tree)
    raw, raw_se = raw_estimates["raw"], raw_estimates["raw_se"]
    has_estimate = np.isfinite(raw) & (raw_se > 0)
    # p = 2 Φ(−|raw| / se)
    p_values = raw.copy(data=2 * special.ndtr(-abs(raw / raw_se.where(has_estimate)))).reset_coords(drop=True)
    tests = p_values.copy(data=np.where(has_estimate, "z", ""))
    statistics = family.select_statistics(cells)
    # Of times to an event, who was at risk for how long matters as much as the number of events.
    if "events" not in statistics or "at_risk" in statistics:
        return p_values, tests
    # Events are of units, or of time and the like that units were observed for.
    is_binomial = "exposure" not in statistics
    is_tested = find_tested_cells(cells)
    # Covariates of segments have dims of their own.
    count_cells = statistics[["events", "n" if is_binomial else "exposure"]]
    for arm in list_treated_arms(cells):
        counts = count_cells.sel({ARM: [str(cells.attrs["control"]), arm]}).transpose(SEGMENT, ARM)
        exact_p, is_exact = _test_few_counts(counts, is_binomial=is_binomial)
        is_exact &= is_tested.sel({ARM: arm}).values
        p_values.loc[{ARM: arm}] = np.where(is_exact, exact_p, p_values.sel({ARM: arm}).values)
        test_name = "Fisher" if is_binomial else "conditional binomial"
        tests = tests.astype(object)
        tests.loc[{ARM: arm}] = np.where(is_exact, test_name, tests.sel({ARM: arm}).values)
    return p_values, tests


def _test_few_counts(counts: xr.Dataset, *, is_binomial: bool) -> tuple[RealValues, NDArray[np.bool_]]:
    """Test counts of control and one arm exactly where they are too few for a z test; rows are segments."""
    events = counts["events"].values
    sizes = counts["n"].values if is_binomial else counts["exposure"].values
    totals, total_sizes = events.sum(axis=1), sizes.sum(axis=1)
    shares = sizes / np.where(total_sizes > 0, total_sizes, 1)[:, None]
    expected = totals[:, None] * shares
    if not is_binomial:
        is_exact = (expected.min(axis=1) < MIN_EXPECTED_COUNT) & (totals > 0)
        # Given their sum, events of the treated are binomial with the treated's share of the exposure.
        p_values = compute_binomial_p(
            np.round(events[:, 1]).astype(np.int64), np.round(totals).astype(np.int64), shares[:, 1]
        )
        return p_values, is_exact
    from scipy.stats import fisher_exact  # half a second, and only where counts are few

    failures = sizes - events
    expected_failures = failures.sum(axis=1)[:, None] * shares
    is_few = np.minimum(expected, expected_failures).min(axis=1) < MIN_EXPECTED_COUNT
    is_exact = is_few & (sizes.min(axis=1) > 0)
    p_values = np.full(len(events), np.nan)
    for index in np.flatnonzero(is_exact):
        p_values[index] = fisher_exact([events[index], failures[index]]).pvalue
    return p_values, is_exact


def adjust_by_holm(p_values: xr.DataArray) -> xr.DataArray:
    """Adjust p-values so that the chance of any false rejection is bounded, whatever depends on what (Holm 1979)."""
    return p_values.copy(data=_adjust_known(p_values.values, _step_down))


def adjust_by_benjamini_hochberg(p_values: xr.DataArray) -> xr.DataArray:
    """Adjust p-values so that the expected share of false rejections is bounded (Benjamini & Hochberg 1995)."""
    return p_values.copy(data=_adjust_known(p_values.values, _step_up))


def _adjust_known(p_values: RealValues, adjust: Any) -> RealValues:
    """Adjust the p-values that are known; NaN were never tested, and count for nothing."""
    adjusted = np.full(p_values.shape, np.nan)
    is_known = np.isfinite(p_values)
    known = p_values[is_known]
    order = np.argsort(known, kind="stable")
    adjusted_known = np.empty(len(known))
    adjusted_known[order] = adjust(known[order])
    adjusted[is_known] = adjusted_known
    return adjusted


def _step_down(sorted_p: RealValues) -> RealValues:
    # Holm: max_{j ≤ i} (m − j + 1) p_(j)
    count = len(sorted_p)
    return np.minimum(np.maximum.accumulate((count - np.arange(count)) * sorted_p), 1.0)


def _step_up(sorted_p: RealValues) -> RealValues:
    # Benjamini–Hochberg: min_{j ≥ i} m p_(j) / j
    count = len(sorted_p)
    scaled = count * sorted_p / np.arange(1, count + 1)
    return np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
