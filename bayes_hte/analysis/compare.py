"""Compare models by how well they predict segments: leave-one-segment-out scores, and stacking weights.

Not `bayes_hte.analysis.compare` the function: a module of that name would replace it. `hte.compare` is the way in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte._support.numerics import isolate_call
from bayes_hte._support.validation import describe_type
from bayes_hte.analysis.fit import fit as fit_model
from bayes_hte.analysis.result import Fit, attach_verdict
from bayes_hte.criticism.leave_one_segment_out import score_left_out_segments
from bayes_hte.errors import ArgumentError, DataError, ModelError
from bayes_hte.estimands.result_tables import mark_reliability
from bayes_hte.model.families import select_model_statistics
from bayes_hte.spec import Model, cell_table, read_model
from bayes_hte.spec.fit_tree import get_seed, require_known_model
from bayes_hte.spec.model import PoolingKind

NAME_BY_POOLING: dict[PoolingKind, str] = {
    "none": "no pooling",
    "partial": "partial pooling",
    "complete": "complete pooling",
}
THIS_MODEL_NAME = "this model"
# Posterior draws of each fold's fit: their error is a part of the reported Monte-Carlo error.
DRAWS_PER_FOLD = 2000
ComparisonModel = Model | str | Path | Fit


@isolate_call
def compare(fit: Fit, others: Mapping[str, ComparisonModel] | None = None) -> pd.DataFrame:
    """Compare models by how well they predict segments: leave-one-segment-out scores.

    Parameters
    ----------
    fit : Fit
        The fit whose cells every model is held to.
    others : mapping, optional
        Name -> model, model file, or fit of the same cells. By default the same model without pooling, with
        partial and with complete pooling.

    Returns
    -------
    pandas.DataFrame
        One row per model, best first: model, elpd (sum of `loso`), se, elpd_difference (to the best),
        se_difference (of pointwise differences), mcse, weight (stacking of predictive densities), pareto_k (the
        largest), reliable.

    Raises
    ------
    ArgumentError
        If `fit` is no fit, there is no other model, or a name twice.
    DataError
        If there is one segment, or a fit of other cells.
    ModelError
        If a model does not fit the cells, or predicts other statistics of them.

    Notes
    -----
    A difference within twice its standard error says that the data do not decide.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> scores = hte.compare(hte.example_fit())
    >>> scores["model"].tolist()
    ['partial pooling', 'complete pooling', 'no pooling']
    """
    _require_fit(fit)
    if others is not None and not isinstance(others, Mapping):
        raise ArgumentError(
            f'others is a {type(others).__name__}; name each, as in compare(fit, {{"no covariate": other}})'
        )
    if others is not None and (not others or THIS_MODEL_NAME in others):
        raise ArgumentError(f'name the other models, and none of them "{THIS_MODEL_NAME}", which is this fit')
    require_known_model(fit.tree, "a comparison of models")
    compared_models = vary_pooling(fit.model) if others is None else others
    this_name = NAME_BY_POOLING[fit.model.pooling] if others is None else THIS_MODEL_NAME
    fit_by_name = {this_name: fit} | {name: fit_to_same_cells(fit, model) for name, model in compared_models.items()}
    for compared_fit in fit_by_name.values():
        _check_comparable(fit, compared_fit)
    scores_by_name = {name: score_segments(scored_fit) for name, scored_fit in fit_by_name.items()}
    comparison_table = tabulate_scores(
        scores_by_name, {name: one_fit.diagnosis.ok for name, one_fit in fit_by_name.items()}
    )
    return attach_verdict(fit, comparison_table)


@isolate_call
def loso(fit: Fit) -> pd.DataFrame:
    """Score how well the other segments predict each one: leave-one-segment-out log scores.

    Parameters
    ----------
    fit : Fit

    Returns
    -------
    pandas.DataFrame
        One row per segment: a column per dimension, elpd (log density of the segment's data given other
        segments' data), mcse (Monte-Carlo standard error of it; 0 where it is exact), pareto_k (tail of the
        importance weights; above 0.7 the segment was left out and the others fitted again), reliable.
        ``attrs["elpd"]`` is the sum, ``attrs["se"]`` its standard error over segments.

    Raises
    ------
    ArgumentError
        If `fit` is no fit.
    DataError
        If there is one segment.
    ModelError
        If only draws of a model of one's own are known.

    Notes
    -----
    A segment's own effect and baseline are integrated out: the score asks whether a segment like it was to be
    expected. It is the log of a mean density, not the mean of log densities. Structures beyond the exact engine
    are sampled again ten times, each time without a tenth of the segments; that takes minutes.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> scores = hte.loso(hte.example_fit())
    >>> scores["elpd"].round(2).tolist()
    [-11.0, -14.86, -13.04, -11.02, -6.64, -5.09]
    """
    _require_fit(fit)
    score_table = score_segments(fit)
    # Scores of folds are no better than the fits of the folds.
    is_reliable = fit.diagnosis.ok and bool(score_table.attrs.get("folds_reliable", True))
    return attach_verdict(fit, mark_reliability(score_table, reliable=is_reliable))


def _require_fit(candidate: object) -> None:
    """Raise ArgumentError if something else than a fit was given."""
    if not isinstance(candidate, Fit):
        raise ArgumentError(f"fit is {describe_type(candidate)}; give what hte.fit or hte.load returned")


def vary_pooling(model: Model) -> dict[str, Model]:
    """Put a model under the other poolings; partial only where it states the prior of a between-segment SD."""
    model_by_name: dict[str, Model] = {}
    for pooling, pooling_name in NAME_BY_POOLING.items():
        # Without a stated prior of the between-segment SD there is no partial pooling to compare with.
        if pooling == model.pooling or (pooling == "partial" and model.effect.between is None):
            continue
        changed_content: dict[str, Any] = {
            "pooling": pooling,
            "effect": _drop_structure(model.effect.model_dump(exclude_none=True)),
        }
        if model.amount is not None:
            amount_content = model.amount.model_dump(exclude_none=True)
            changed_content["amount"] = amount_content | {"effect": _drop_structure(amount_content["effect"])}
        model_by_name[pooling_name] = Model.model_validate(model.model_dump(exclude_none=True) | changed_content)
    return model_by_name


def _drop_structure(effect_content: dict[str, Any]) -> dict[str, Any]:
    """Keep the priors of the mean and of the between-segment SD: levels, strata, covariates and shapes go."""
    return {key: value for key, value in effect_content.items() if key in ("mean", "between")}


def fit_to_same_cells(this_fit: Fit, other_model: ComparisonModel) -> Fit:
    """Fit another model to the cells of a fit, with as many draws and the same seed."""
    if isinstance(other_model, Fit):
        return other_model
    model = other_model if isinstance(other_model, Model) else read_model(other_model)
    posterior = this_fit.tree["posterior"]
    draw_count = posterior.sizes["chain"] * posterior.sizes["draw"]
    return fit_model(this_fit.cells, model, draws=max(draw_count, 400), seed=get_seed(this_fit.tree), progress=False)


def _check_comparable(this_fit: Fit, other_fit: Fit) -> None:
    """Raise an error unless both fits predict the same numbers of the same cells."""
    # Log scores are log densities: of different numbers they have different units.
    if cell_table.hash_cell_table(this_fit.cells) != cell_table.hash_cell_table(other_fit.cells):
        raise DataError("a fit of other cells cannot be compared: fit every model to the same cell table")
    these_statistics, other_statistics = (
        set(select_model_statistics(compared_fit.cells, compared_fit.model).data_vars)
        for compared_fit in (this_fit, other_fit)
    )
    if these_statistics != other_statistics:
        raise ModelError(
            f'family "{other_fit.model.family}" predicts {sorted(map(str, other_statistics))}, '
            f'"{this_fit.model.family}" {sorted(map(str, these_statistics))}: densities of different numbers cannot be '
            "compared"
        )


def score_segments(scored_fit: Fit) -> pd.DataFrame:
    """Score the prediction of every segment from the others: the table of `hte.loso`.

    By the exact engine where it applies, else by fitting again, each time without a tenth of the segments.
    """
    seed = get_seed(scored_fit.tree)

    def refit_fold(cells: xr.Dataset, model: Model) -> xr.DataTree:
        return fit_model(cells, model, draws=DRAWS_PER_FOLD, seed=seed, progress=False).tree

    return score_left_out_segments(scored_fit.tree, refit_fold)


def tabulate_scores(scores_by_name: Mapping[str, pd.DataFrame], reliable_by_name: Mapping[str, bool]) -> pd.DataFrame:
    """Put the scores of models side by side, best first.

    Parameters
    ----------
    scores_by_name : mapping
        Model -> table of `hte.loso`, segments in the same order.
    reliable_by_name : mapping
        Model -> whether its fit passed its diagnosis.

    Returns
    -------
    pandas.DataFrame
        The columns of `hte.compare`.
    """
    # With elpd_s of S segments, as a sum over a sample of segments:
    #   elpd = Σ_s elpd_s        se = √S · SD_s(elpd_s)        mcse = √(Σ_s mcse_s²)
    # The differences to the best model are taken segment by segment, so that what is hard for both cancels.
    model_names = list(scores_by_name)
    segment_elpd = np.column_stack(
        [scores_by_name[model_name]["elpd"].to_numpy(dtype=float) for model_name in model_names]
    )
    segment_mcse = np.column_stack(
        [scores_by_name[model_name]["mcse"].to_numpy(dtype=float) for model_name in model_names]
    )
    total_elpd, segment_count = segment_elpd.sum(0), len(segment_elpd)
    best_index = int(np.argmax(total_elpd))
    elpd_differences = segment_elpd - segment_elpd[:, [best_index]]
    comparison_table = pd.DataFrame(
        {
            "model": model_names,
            "elpd": total_elpd,
            "se": np.sqrt(segment_count) * segment_elpd.std(0, ddof=1),
            "elpd_difference": elpd_differences.sum(0),
            "se_difference": np.sqrt(segment_count) * elpd_differences.std(0, ddof=1),
            "mcse": np.sqrt((segment_mcse**2).sum(0)),
            "weight": compute_stacking_weights(segment_elpd),
            "pareto_k": [float(scores_by_name[model_name]["pareto_k"].max()) for model_name in model_names],
            "reliable": [
                reliable_by_name[model_name] and bool(scores_by_name[model_name].attrs.get("folds_reliable", True))
                for model_name in model_names
            ],
        }
    )
    return comparison_table.sort_values("elpd", ascending=False, kind="stable", ignore_index=True)


def compute_stacking_weights(segment_elpd: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maximise the mean log score of a mixture of predictive densities over its weights.

    Parameters
    ----------
    segment_elpd : array
        Log density of each segment's data under each model; (segment, model).

    Returns
    -------
    array
        Weights that sum to 1; (model,).

    Notes
    -----
    The objective is concave on the simplex. Expectation-maximisation climbs it without steps to choose; at the
    maximum no model's mean density relative to the mixture's is above 1, which is the test of having arrived.

    References
    ----------
    Yao, Vehtari, Simpson & Gelman (2018), Bayesian Analysis 13:917.
    """
    # Maximise Σ_s log Σ_k w_k p_sk over the simplex; a factor that is common to all models of a segment cancels.
    segment_densities = np.exp(segment_elpd - segment_elpd.max(1, keepdims=True))
    model_weights = np.full(segment_elpd.shape[1], 1 / segment_elpd.shape[1])
    for _ in range(100_000):  # a second; ten models on ten segments arrive after some hundred rounds
        # g_k = mean_s (p_sk / Σ_j w_j p_sj), then w_k ← w_k g_k. The maximum is at most log(max_k g_k) away.
        relative_densities = (segment_densities / (segment_densities @ model_weights)[:, None]).mean(0)
        if relative_densities.max() < 1 + 1e-6:  # the mean log score is within a millionth of its maximum
            break
        model_weights = model_weights * relative_densities
    return np.asarray(model_weights / model_weights.sum())
