"""Compare tests of the same change: each segment's effect in either, their difference, and what a third would show."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import format_percent_probability, shorten_text
from bayes_hte.decisions.rules.reasons import SizeFormat, choose_size_format
from bayes_hte.decisions.verdicts import VerdictRule, find_tested_cells
from bayes_hte.estimands.effects import compute_effects, convert_to_scale, estimate_without_pooling, get_fitted_family
from bayes_hte.estimands.tables import EffectQuestion, build_effect_table
from bayes_hte.model.parameters import name_term_variable
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, SEGMENT, EffectScale
from bayes_hte.spec.fit_tree import get_fitted_cells, get_plan, get_seed, get_test_tree, list_test_names

TEST: Final = "test"
"""Dim of draws of several tests side by side."""


@dataclass(frozen=True, slots=True)
class TestEffects:
    """Draws of every segment's effect in each test, and in the next one.

    Attributes
    ----------
    by_test : xarray.DataArray
        Dims (test, chain, draw, segment, arm); NaN where a test lacks the segment.
    raw, raw_se : xarray.DataArray
        The segment on its own in each test; dims (test, segment, arm), NaN where there is none.
    """

    by_test: xr.DataArray
    raw: xr.DataArray
    raw_se: xr.DataArray


def collect_test_effects(fit_tree: xr.DataTree, scale: EffectScale) -> TestEffects:
    """Collect what a fit of two tests says of each of them, on a scale."""
    test_tree, pooled_cells, names = get_test_tree(fit_tree), get_fitted_cells(fit_tree), list_test_names(fit_tree)
    stacked_cells = get_fitted_cells(test_tree)
    raw_estimates = estimate_without_pooling(test_tree, scale)
    is_tested = find_tested_cells(stacked_cells)
    # Where an arm was not seen, the effect is what the other segments and the other test say: no test's own.
    effects = compute_effects(test_tree, scale).where(is_tested)
    pieces = [
        [_select_test(values, stacked_cells, pooled_cells, name) for name in names]
        for values in (effects, raw_estimates["raw"], raw_estimates["raw_se"])
    ]
    by_test, raw, raw_se = (
        xr.concat(each, dim=pd.Index(names, name=TEST), coords="minimal", compat="override") for each in pieces
    )
    return TestEffects(by_test, raw, raw_se)


def _select_test(
    values: xr.DataArray, stacked_cells: xr.Dataset, pooled_cells: xr.Dataset, test_name: str
) -> xr.DataArray:
    """Select the segments of one test under the labels of the pooled cells; NaN where the test lacks one."""
    dims = cell_table.list_dimensions(pooled_cells)
    (test_dimension,) = set(cell_table.list_dimensions(stacked_cells)) - set(dims)
    is_of_test = stacked_cells[test_dimension].values.astype(str) == test_name
    label_by_levels = dict(
        zip(zip(*(pooled_cells[name].values.astype(str) for name in dims), strict=True),
            pooled_cells[SEGMENT].values, strict=True)
    )  # fmt: skip
    test_levels = zip(*(stacked_cells[name].values[is_of_test].astype(str) for name in dims), strict=True)
    labels = [label_by_levels[levels] for levels in test_levels]
    selected = values.isel({SEGMENT: is_of_test}).reset_coords(drop=True).assign_coords({SEGMENT: labels})
    return selected.reindex({SEGMENT: pooled_cells[SEGMENT].values, ARM: cell_table.list_treated_arms(pooled_cells)})


def tabulate_test_comparison(fit_tree: xr.DataTree, question: EffectQuestion) -> pd.DataFrame:
    """Tabulate the effects of each segment in both tests and their difference; see `Fit.compare_tests`."""
    effects, names = collect_test_effects(fit_tree, question.scale), list_test_names(fit_tree)
    first, second = (effects.by_test.sel({TEST: name}, drop=True) for name in names)
    difference, next_effect = second - first, draw_next_test(fit_tree, question.scale)
    # NaN of one test makes all that compares two unknown.
    is_in_both = difference.notnull().all(("chain", "draw"))
    columns: dict[str, xr.DataArray] = {}
    for prefix, draws in (("first", first), ("second", second), ("difference", difference), ("next", next_effect)):
        columns |= _summarise(draws, prefix, question.ci_prob)
    p_larger = (difference > 0).mean(("chain", "draw"))
    columns["p_larger"] = p_larger
    columns["p_differ"] = p_larger.where(p_larger > 0.5, 1 - p_larger).where(is_in_both)
    columns["p_opposite"] = (first * second < 0).mean(("chain", "draw")).where(is_in_both)
    columns["raw_difference"], columns["raw_p"] = _test_raw_difference(effects)
    table = build_effect_table(
        {name: values.transpose(SEGMENT, ARM) for name, values in columns.items()}, get_fitted_cells(fit_tree)
    )
    # As signs are called everywhere: where the 95 % interval of the difference leaves 0 out.
    rule = VerdictRule()
    table["disagree"] = [rule.calls(p) for p in table["p_differ"]]
    plan = get_plan(fit_tree)
    sizes = choose_size_format(get_fitted_family(fit_tree), question.scale, "" if plan is None else plan.report.unit)
    table["why"] = [_write_sentence(row, names, sizes) for row in table.to_dict("records")]
    table = table.drop(columns="p_larger")
    table.attrs |= {"tests": names, "between_tests": summarise_between_tests(fit_tree, question.ci_prob)}
    return table


def _summarise(draws: xr.DataArray, prefix: str, ci_prob: float) -> dict[str, xr.DataArray]:
    """Summarise draws by mean and an interval with equal tails: columns of a name; NaN where there are no draws."""
    tail = (1 - ci_prob) / 2
    low, high = (draws.quantile(q, ("chain", "draw"), skipna=False).drop_vars("quantile") for q in (tail, 1 - tail))
    return {prefix: draws.mean(("chain", "draw"), skipna=False), f"{prefix}_low": low, f"{prefix}_high": high}


def _test_raw_difference(effects: TestEffects) -> tuple[xr.DataArray, xr.DataArray]:
    """Test the difference of the two raw estimates: their difference, and its two-sided p-value; no pooling."""
    from scipy import special

    raw_difference = effects.raw.isel({TEST: 1}, drop=True) - effects.raw.isel({TEST: 0}, drop=True)
    # z = (raw₂ − raw₁) / √(se₁² + se₂²),   p = 2 Φ(−|z|)
    z = raw_difference / (effects.raw_se**2).sum(TEST, skipna=False) ** 0.5
    p_value: xr.DataArray = xr.ones_like(raw_difference) * 2 * special.ndtr(-np.abs(np.asarray(z)))
    return raw_difference, p_value


def _write_sentence(row: dict[Hashable, Any], names: list[str], sizes: SizeFormat) -> str:
    """Write in a sentence what both tests say of a segment."""
    values = {key: float(row[key]) for key in ("first", "second", "p_larger", "p_differ", "p_opposite")}
    first_name, second_name = (shorten_text(name) for name in names)
    lacking = [name for name, key in ((first_name, "first"), (second_name, "second")) if np.isnan(values[key])]
    if len(lacking) == 2:
        return "Neither test had both arms in this segment."
    if lacking:
        return f"The test {lacking[0]!r} did not have both arms in this segment: its effect is that of the other one."
    first_text, second_text = (sizes.format_size(float(f"{values[key]:.3g}")) for key in ("first", "second"))
    effects_text = f"{first_text} in {first_name!r}, {second_text} in {second_name!r}"
    # The side that is the more probable one: of skewed draws the means may stand on the other.
    side = "larger" if values["p_larger"] > 0.5 else "smaller"
    p_text = format_percent_probability(values["p_differ"])
    if not row["disagree"]:
        return f"No clear disagreement: {effects_text}; the second is {side} with probability {p_text}."
    opposite = format_percent_probability(values["p_opposite"])
    return (
        f"The tests disagree: {effects_text}; the second is {side} with probability {p_text}, and the signs are "
        f"opposite with probability {opposite}."
    )


def describe_disagreements(fit_tree: xr.DataTree) -> tuple[str, ...]:
    """Describe the segments in which two tests disagree, a sentence each, on the link scale; none if they agree."""
    table = tabulate_test_comparison(fit_tree, EffectQuestion("link", 0.95))
    label_names = [*cell_table.list_dimensions(get_fitted_cells(fit_tree)), ARM]
    return tuple(
        f"{' · '.join(shorten_text(str(row[name])) for name in label_names)}: {row['why']}"
        for row in table[table["disagree"]].to_dict("records")
    )


def draw_between_tests(fit_tree: xr.DataTree) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the draws of both between-test SDs, of all segments' shift and of single ones; dims (chain, draw, …)."""
    posterior = fit_tree["test_posterior"].to_dataset()
    dimension = _find_test_dimension(fit_tree)
    return posterior[f"{name_term_variable('effect', dimension)}_between"], posterior["effect_between"]


def _find_test_dimension(fit_tree: xr.DataTree) -> str:
    stacked_cells, pooled_cells = fit_tree["test_cells"].to_dataset(), get_fitted_cells(fit_tree)
    (dimension,) = set(cell_table.list_dimensions(stacked_cells)) - set(cell_table.list_dimensions(pooled_cells))
    return dimension


def summarise_between_tests(fit_tree: xr.DataTree, ci_prob: float) -> dict[str, float]:
    """Summarise the SD between tests of a segment's effect, link scale, over arms: its mean and an interval."""
    shift_sd, own_sd = draw_between_tests(fit_tree)
    # SD of a segment between tests = √(shift² + deviation²)
    draws = np.hypot(shift_sd.values, own_sd.values)
    low, high = np.quantile(draws, [(1 - ci_prob) / 2, (1 + ci_prob) / 2])
    return {"sd": float(draws.mean()), "ci_low": float(low), "ci_high": float(high)}


def draw_next_test(fit_tree: xr.DataTree, scale: EffectScale) -> xr.DataArray:
    """Draw each segment's effect in a further test of the same change; dims (chain, draw, segment, arm).

    The mean over tests of the segment, which no test shifts, and a shift and a deviation drawn anew.
    """
    test_tree, pooled_cells = get_test_tree(fit_tree), get_fitted_cells(fit_tree)
    posterior = fit_tree["posterior"].to_dataset()
    stacked = test_tree["posterior"].to_dataset()
    shift_sd, own_sd = draw_between_tests(fit_tree)
    # A stream of its own: with that of the engine, draws would go with those of the posterior.
    rng = np.random.default_rng([get_seed(fit_tree), 15])
    centre = _compute_centre_over_tests(stacked, pooled_cells, test_tree, _find_test_dimension(fit_tree))
    sample_shape = {dim: centre.sizes[dim] for dim in ("chain", "draw", ARM)}
    common_noise = xr.DataArray(rng.standard_normal(tuple(sample_shape.values())), dims=tuple(sample_shape))
    own_noise = centre.copy(data=rng.standard_normal(centre.shape))
    # effect in the next test = mean over tests + shift SD · z + deviation SD · z_s
    next_effect = centre + shift_sd * common_noise + own_sd * own_noise
    family = get_fitted_family(fit_tree)
    parameters = {str(name): posterior[name] for name in posterior.data_vars} | {
        "effect": next_effect.transpose("chain", "draw", SEGMENT, ARM)
    }
    return convert_to_scale(family, parameters, scale, pooled_cells)


def _compute_centre_over_tests(
    stacked: xr.Dataset, pooled_cells: xr.Dataset, test_tree: xr.DataTree, test_dimension: str
) -> xr.DataArray:
    """Compute each segment's mean effect over all tests that might be: common effect, levels and the segment's own."""
    stacked_cells = get_fitted_cells(test_tree)
    # centre[s] = mean + Σ_terms effect of the level of s, the segment itself among the terms
    centre = stacked["effect_mean"]
    for name in _list_terms(stacked, stacked_cells, test_dimension):
        levels = [" | ".join(parts) for parts in zip(*(pooled_cells[d].values.astype(str) for d in name.split(":")),
                                                     strict=True)]  # fmt: skip
        variable = stacked[name_term_variable("effect", name)]
        level_effects = variable.sel({name: levels}).rename({name: SEGMENT}).drop_vars(SEGMENT)
        centre = centre + level_effects
    centre = centre.assign_coords({SEGMENT: pooled_cells[SEGMENT].values})
    return centre.transpose("chain", "draw", SEGMENT, ARM)


def _list_terms(stacked: xr.Dataset, stacked_cells: xr.Dataset, test_dimension: str) -> list[str]:
    """List the terms of effects whose levels all tests share: dims of the variables that are no test and no segment."""
    terms = []
    for name in map(str, stacked.dims):
        if name in {"chain", "draw", SEGMENT, ARM, test_dimension} or name_term_variable("effect", name) not in stacked:
            continue
        if set(name.split(":")) <= set(cell_table.list_dimensions(stacked_cells)):
            terms.append(name)
    return terms
