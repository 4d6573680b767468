"""Check whether data like these were to be expected under the fitted model, by quantities meant for the family.

totals      zeros, events, answers at each level: what a wrong shape of the outcome gets wrong first
zeros       Σ over cells of ((observed − predicted) / SD of predictions)²: what no parameter of a cell explains
furthest    the segment whose estimate the others predict worst: one that the common distribution does not expect
scatter     of effects around a common one, where complete pooling assumes that there is no other

p is P(replicated ≥ observed); near 0 or 1 the model does not expect what was seen. Totals and zeros are replicated from
the posterior, which is conservative (Gelman, Meng & Stern 1996, Statistica Sinica 6:733): a statistic that a parameter
of each cell fits is left out, as its replications would come out where the data are. The other two are predictions of
a segment from all others (`left_out_predictions`). benchmarks/README.md has the rates of false alarms and the power.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from bayes_hte.criticism.own_estimates.left_out_predictions import predict_left_out
from bayes_hte.criticism.own_estimates.segment_estimates import SegmentEstimates, estimate_segments
from bayes_hte.errors import DataError
from bayes_hte.estimands.effects import get_fitted_family
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model, require_known_model

SURPRISING_TAIL_PROBABILITY = 0.01
"""Of p, or of 1 − p: one check in fifty of a right model is marked."""
CHECK_COLUMNS = ["check", "observed", "expected", "low", "high", "p", "verdict"]


def tabulate_predictive_checks(fit_tree: xr.DataTree, question: EffectQuestion) -> pd.DataFrame:
    """Tabulate predictive checks, one row each; see `Fit.predictive_checks`.

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
    family = get_fitted_family(fit_tree)
    check_rows: list[dict[str, Any]] = []
    for position, variable_name in enumerate(map(str, replicated_data.data_vars)):
        variable_pair = observed_data[variable_name], replicated_data[variable_name]
        if cell_table.VALUE in observed_data[variable_name].dims:
            cells = get_fitted_cells(fit_tree)
            answer_names = dict(zip(cells[cell_table.VALUE].values, cell_table.list_answers(cells), strict=True))
            check_rows += [
                _check_level(level, answer_names[level], *variable_pair, question)
                for level in variable_pair[0].value.values
            ]
            continue
        cells_pair = _select_observed_cells(*variable_pair)
        if variable_name in family.simulated_totals:
            check_rows.append(_check_total(family.simulated_totals[variable_name], *cells_pair, question))
        # Every linear predictor fits one number of each cell: those come first, and say nothing here.
        if position >= len(family.listed_parts):
            check_rows.append(_check_distances(variable_name, *cells_pair, question))
    check_rows += _check_left_out_segments(fit_tree, question)
    return pd.DataFrame(check_rows, columns=CHECK_COLUMNS)


def _select_observed_cells(
    observed_values: xr.DataArray, replicated_values: xr.DataArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Select the cells with a number, observed (cell,) and replicated (draw, cell)."""
    observed_cells = observed_values.values.astype(float)
    replicated_cells = replicated_values.transpose("chain", "draw", "cell").values.astype(float)
    replicated_cells = replicated_cells.reshape(-1, replicated_cells.shape[-1])
    is_observed = np.isfinite(observed_cells)
    return observed_cells[is_observed], replicated_cells[:, is_observed]


def _check_total(
    total_label: str,
    observed_cells: NDArray[np.float64],
    replicated_cells: NDArray[np.float64],
    question: EffectQuestion,
) -> dict[str, Any]:
    """Check the sum over cells of a variable whose sum means something to a reader."""
    return _build_check_row(total_label, float(observed_cells.sum()), replicated_cells.sum(1), question)


def _check_distances(
    variable_name: str,
    observed_cells: NDArray[np.float64],
    replicated_cells: NDArray[np.float64],
    question: EffectQuestion,
) -> dict[str, Any]:
    """Check the sum of squared distances of cells from their predictions."""
    predicted_mean, predicted_sd = replicated_cells.mean(0), replicated_cells.std(0)
    # A cell whose predictions never vary has no distance: its infinite SD leaves it out.
    predicted_sd = np.where(predicted_sd > 0, predicted_sd, np.inf)
    # D² = Σ_cells ((y − mean) / SD)², of the observed data and of every replication
    observed_distance = float((((observed_cells - predicted_mean) / predicted_sd) ** 2).sum())
    replicated_distances = (((replicated_cells - predicted_mean) / predicted_sd) ** 2).sum(1)
    return _build_check_row(
        f"cells: squared distances of {variable_name}", observed_distance, replicated_distances, question
    )


def _check_level(
    outcome_level: float,
    level_name: str,
    observed_values: xr.DataArray,
    replicated_values: xr.DataArray,
    question: EffectQuestion,
) -> dict[str, Any]:
    """Check the number of units whose outcome has a level, over all cells."""
    observed_total = float(observed_values.sel({cell_table.VALUE: outcome_level}).sum())
    replicated_totals = _flatten_draws(replicated_values.sel({cell_table.VALUE: outcome_level}).sum("cell"))
    return _build_check_row(f"units with outcome {level_name}", observed_total, replicated_totals, question)


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


def _check_left_out_segments(fit_tree: xr.DataTree, question: EffectQuestion) -> list[dict[str, Any]]:
    """Check segments against what the others predict of them: the furthest, or the scatter around a common effect."""
    problem = build_problem(get_fitted_cells(fit_tree), get_fitted_model(fit_tree))
    posterior = fit_tree["posterior"].to_dataset()
    check_rows = []
    for estimates in estimate_segments(problem):
        z_scores = predict_left_out(estimates, posterior)
        if z_scores is None:
            continue
        check_rows.append(_check_furthest_segment(estimates, z_scores, question))
        if estimates.coefficient.pooling == "complete":
            check_rows.append(_check_scatter(estimates, question))
    return check_rows


def _check_furthest_segment(
    estimates: SegmentEstimates, z_scores: NDArray[np.float64], question: EffectQuestion
) -> dict[str, Any]:
    """Check the segment that is furthest from its prediction against the largest of as many normal numbers."""
    segment_count = len(z_scores)
    furthest = int(np.abs(z_scores).argmax())
    largest_z = float(np.abs(z_scores[furthest]))
    # P(max |z| ≤ x) = (1 − 2 Φ(−x))^S, and its quantiles q: x = −Φ⁻¹((1 − q^(1/S)) / 2)
    probabilities = np.array([(1 - question.ci_prob) / 2, (1 + question.ci_prob) / 2])
    ci_low, ci_high = -special.ndtri(-np.expm1(np.log(probabilities) / segment_count) / 2)
    grid = np.linspace(0.0, 10.0, 2001)
    # E max = ∫ P(max > x) dx
    expected = float(np.trapezoid(_compute_exceedance(grid, segment_count), grid))
    subject = "in the control" if estimates.arm_index is None else f"under {estimates.arm}"
    part_phrase = f" ({estimates.part_title})" if estimates.part_title else ""
    segment_label = estimates.problem.coords["segment"][int(estimates.segment_index[furthest])]
    tail_probability = float(_compute_exceedance(np.array(largest_z), segment_count))
    return {
        "check": f"furthest segment {subject}{part_phrase}: {segment_label}, in SDs of its prediction",
        "observed": largest_z,
        "expected": expected,
        "low": float(ci_low),
        "high": float(ci_high),
        "p": tail_probability,
        # A furthest segment that is not far is nothing to mark.
        "verdict": _phrase_verdict(min(tail_probability, 0.5)),
    }


def _compute_exceedance(threshold: NDArray[np.float64], segment_count: int) -> NDArray[np.float64]:
    """Compute the probability that the largest of so many |z| exceeds a threshold, with its digits in the tail."""
    # 1 − (1 − 2 Φ(−x))^S
    with np.errstate(divide="ignore"):
        return np.asarray(-np.expm1(segment_count * np.log1p(-2 * special.ndtr(-threshold))))


def _check_scatter(estimates: SegmentEstimates, question: EffectQuestion) -> dict[str, Any]:
    """Check the scatter of estimates around one common value by Cochran's Q."""
    w = estimates.standard_errors**-2.0
    # Q = Σ w (y − ȳ)² ~ χ² with S − 1 degrees of freedom
    q = float(w @ (estimates.estimates - w @ estimates.estimates / w.sum()) ** 2)
    freedom = estimates.count - 1
    upper_tail = np.array([(1 + question.ci_prob) / 2, (1 - question.ci_prob) / 2])
    ci_low, ci_high = special.chdtri(freedom, upper_tail)
    tail_probability = float(special.chdtrc(freedom, q))
    return {
        "check": f"scatter of effects under {estimates.arm} around the common one: Q",
        "observed": q,
        "expected": float(freedom),
        "low": float(ci_low),
        "high": float(ci_high),
        "p": tail_probability,
        "verdict": _phrase_verdict(tail_probability),
    }
