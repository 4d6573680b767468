"""Check whether data like these were to be expected under the fitted model, by quantities meant for the family.

cells       Σ over cells of ((observed − predicted) / SD of predictions)²: cells that no parameter explains
totals      zeros, events, answers at each level: what a wrong shape of the outcome gets wrong first
outliers    the largest |offset| of a segment's effect from its centre, against that of as many normal (or t) numbers:
            a segment that the common distribution does not expect

p is P(replicated ≥ observed); near 0 or 1 the model does not expect what was seen. Cells have parameters of their own,
so the first check is conservative (Gelman, Meng & Stern 1996, Statistica Sinica 6:733).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.errors import DataError
from bayes_hte.estimands.effects import get_fitted_family
from bayes_hte.estimands.pooling_factor import compute_between_variance, decompose_effects
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.coefficients import draw_offsets, limit_offset_variance
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import get_fitted_model, get_seed, require_known_model
from bayes_hte.spec.model import Effect

SURPRISING_TAIL_PROBABILITY = 0.01
"""Of p, or of 1 − p: one check in fifty of a right model is marked."""
CHECK_COLUMNS = ["check", "observed", "expected", "low", "high", "p", "verdict"]


def tabulate_predictive_checks(fit_tree: xr.DataTree, question: EffectQuestion) -> pd.DataFrame:
    """Tabulate posterior predictive checks, one row each; see `Fit.predictive_checks`.

    Raises
    ------
    DataError
        If the fit is too large to hold predictive draws.
    ModelError
        If only draws of the model are known.
    """
    require_known_model(fit_tree, "a predictive check")
    if "posterior_predictive" not in fit_tree.children:
        raise DataError("this fit is too large to hold predictive draws; check a part of its segments")
    replicated_data = fit_tree["posterior_predictive"].to_dataset()
    observed_data = fit_tree["observed_data"].to_dataset()
    total_labels = get_fitted_family(fit_tree).simulated_totals
    check_rows: list[dict[str, Any]] = []
    for variable_name in map(str, replicated_data.data_vars):
        variable_pair = observed_data[variable_name], replicated_data[variable_name]
        check_rows += _check_variable(variable_name, *variable_pair, question, total_labels.get(variable_name))
    check_rows += _check_furthest_segments(fit_tree, question)
    return pd.DataFrame(check_rows, columns=CHECK_COLUMNS)


def _check_variable(
    variable_name: str,
    observed_values: xr.DataArray,
    replicated_values: xr.DataArray,
    question: EffectQuestion,
    total_label: str | None,
) -> list[dict[str, Any]]:
    """Check one observed variable: the total of each level of a histogram, else distances of cells and the total."""
    if cell_table.VALUE in observed_values.dims:
        return [
            _check_level(level, observed_values, replicated_values, question)
            for level in observed_values[cell_table.VALUE].values
        ]
    observed_cells = observed_values.values.astype(float)
    replicated_cells = replicated_values.transpose("chain", "draw", "cell").values.astype(float)
    replicated_cells = replicated_cells.reshape(-1, replicated_cells.shape[-1])
    is_observed = np.isfinite(observed_cells)
    observed_cells, replicated_cells = observed_cells[is_observed], replicated_cells[:, is_observed]
    predicted_mean, predicted_sd = replicated_cells.mean(0), replicated_cells.std(0)
    # A cell whose predictions never vary has no distance: its infinite SD leaves it out.
    predicted_sd = np.where(predicted_sd > 0, predicted_sd, np.inf)
    # D² = Σ_cells ((y − mean) / SD)², of the observed data and of every replication
    observed_distance = float((((observed_cells - predicted_mean) / predicted_sd) ** 2).sum())
    replicated_distances = (((replicated_cells - predicted_mean) / predicted_sd) ** 2).sum(1)
    distance_label = f"cells: squared distances of {variable_name}"
    check_rows = [_build_check_row(distance_label, observed_distance, replicated_distances, question)]
    # Of other variables the total means nothing to a reader.
    if total_label is not None:
        observed_total, replicated_totals = float(observed_cells.sum()), replicated_cells.sum(1)
        check_rows.append(_build_check_row(total_label, observed_total, replicated_totals, question))
    return check_rows


def _check_level(
    outcome_level: float, observed_values: xr.DataArray, replicated_values: xr.DataArray, question: EffectQuestion
) -> dict[str, Any]:
    """Check the number of units whose outcome has a level, over all cells."""
    observed_total = float(observed_values.sel({cell_table.VALUE: outcome_level}).sum())
    replicated_totals = _flatten_draws(replicated_values.sel({cell_table.VALUE: outcome_level}).sum("cell"))
    return _build_check_row(f"units with outcome {outcome_level:g}", observed_total, replicated_totals, question)


def _flatten_draws(replicated_values: xr.DataArray) -> NDArray[np.float64]:
    """Flatten the draws of a scalar, dims (chain, draw), into one axis."""
    return np.asarray(replicated_values.values.reshape(-1), dtype=float)


def _build_check_row(
    check_name: str, observed_value: float, replicated_values: NDArray[np.float64], question: EffectQuestion
) -> dict[str, Any]:
    """Build the row of a check: observed number, replications' mean and interval, and P(replicated ≥ observed)."""
    tail_prob = (1 - question.ci_prob) / 2
    ci_low, ci_high = np.quantile(replicated_values, [tail_prob, 1 - tail_prob])
    # Ties count half: a total that every replication hits is no surprise.
    is_greater, is_equal = replicated_values > observed_value, replicated_values == observed_value
    tail_probability = float(is_greater.mean() + 0.5 * is_equal.mean())
    return {
        "check": check_name,
        "observed": observed_value,
        "expected": float(replicated_values.mean()),
        "low": float(ci_low),
        "high": float(ci_high),
        "p": tail_probability,
        "verdict": _phrase_verdict(tail_probability),
    }


def _phrase_verdict(tail_probability: float) -> str:
    """Phrase how an observed number compares with its replications; a small p is more than they show."""
    if tail_probability < SURPRISING_TAIL_PROBABILITY:
        return "more than the model expects"
    return "less than the model expects" if tail_probability > 1 - SURPRISING_TAIL_PROBABILITY else "as expected"


def _check_furthest_segments(fit_tree: xr.DataTree, question: EffectQuestion) -> list[dict[str, Any]]:
    """Check the segment furthest from its centre, arm by arm; only where effects share one distribution."""
    model = get_fitted_model(fit_tree)
    if model.pooling != "partial" or model.amount is not None or model.effect.shape == "horseshoe":
        return []
    # offset_s = (effect_s − centre_s) / τ, draw by draw; the model expects normal or t numbers of variance 1
    effect_offsets = decompose_effects(fit_tree)["rest"] / compute_between_variance(fit_tree) ** 0.5
    rng = np.random.default_rng(get_seed(fit_tree))
    check_rows = []
    for arm in map(str, effect_offsets["arm"].values):
        largest_offsets = _flatten_draws(abs(effect_offsets.sel(arm=arm)).max("segment"))
        sizes = {"draw": len(largest_offsets), "segment": effect_offsets.sizes["segment"]}
        reference_offsets = np.abs(_draw_standard_offsets(model.effect, sizes, rng)).max(1)
        tail_probability = float((reference_offsets > largest_offsets).mean())
        ci_low, ci_high = np.quantile(reference_offsets, [(1 - question.ci_prob) / 2, (1 + question.ci_prob) / 2])
        mean_offsets = effect_offsets.sel(arm=arm).mean(("chain", "draw"))
        furthest_segment = str(mean_offsets["segment"].values[int(np.abs(mean_offsets.values).argmax())])
        check_rows.append(
            {
                "check": f"furthest segment under {arm}: {furthest_segment}, in between-segment SDs",
                "observed": float(largest_offsets.mean()),
                "expected": float(reference_offsets.mean()),
                "low": float(ci_low),
                "high": float(ci_high),
                "p": tail_probability,
                "verdict": _phrase_verdict(tail_probability),
            }
        )
    return check_rows


def _draw_standard_offsets(
    effect_priors: Effect, sizes: Mapping[str, int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw offsets of segments in their own SDs: standard normal, or Student t scaled to variance 1."""
    own_offsets = draw_offsets(effect_priors, sizes, rng).own.values
    return np.asarray(own_offsets / np.sqrt(limit_offset_variance(effect_priors)))
