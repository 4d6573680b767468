"""Compare models by how well they predict segments: leave-one-segment-out scores, and stacking weights.

Not `bayes_hte.analysis.compare` the function: a module of that name would replace it. `Fit.compare` is the way in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.analysis.result import Fit
from bayes_hte.analysis.run import fit
from bayes_hte.criticism.leave_one_segment_out import score_left_out_segments
from bayes_hte.errors import DataError, ModelError
from bayes_hte.estimands.effects import require_known_model
from bayes_hte.model.families import FAMILIES
from bayes_hte.spec import Model, cell_table, read_model
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


def compare_models(this_fit: Fit, other_models: Mapping[str, ComparisonModel] | None = None) -> pd.DataFrame:
    """Compare models by their leave-one-segment-out scores: one row per model, best first; see `Fit.compare`.

    Raises
    ------
    DataError
        If there is one segment, no other model, a name twice, or a fit of other data.
    ModelError
        If a model does not fit the cells, or predicts other statistics of them.
    """
    if other_models is not None and not isinstance(other_models, Mapping):
        raise DataError(
            f'others is a {type(other_models).__name__}; name each, as in compare({{"no covariate": other}})'
        )
    if other_models is not None and (not other_models or THIS_MODEL_NAME in other_models):
        raise DataError(f'name the other models, and none of them "{THIS_MODEL_NAME}", which is this fit')
    require_known_model(this_fit.core, "a comparison of models")
    compared_models = vary_pooling(this_fit.spec) if other_models is None else other_models
    this_name = NAME_BY_POOLING[this_fit.spec.pooling] if other_models is None else THIS_MODEL_NAME
    fit_by_name = {this_name: this_fit} | {
        name: fit_to_same_cells(this_fit, model) for name, model in compared_models.items()
    }
    for compared_fit in fit_by_name.values():
        _check_comparable(this_fit, compared_fit)
    scores_by_name = {name: score_segments(scored_fit) for name, scored_fit in fit_by_name.items()}
    return tabulate_scores(scores_by_name, {name: one_fit.diagnosis.ok for name, one_fit in fit_by_name.items()})


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
    posterior = this_fit.core["posterior"]
    draw_count = posterior.sizes["chain"] * posterior.sizes["draw"]
    return fit(this_fit.cells, model, draws=max(draw_count, 400), seed=int(this_fit.core.attrs["seed"]), progress=False)


def _check_comparable(this_fit: Fit, other_fit: Fit) -> None:
    """Raise an error unless both fits predict the same numbers of the same cells."""
    # Log scores are log densities: of different numbers they have different units.
    if cell_table.hash_cell_table(this_fit.cells) != cell_table.hash_cell_table(other_fit.cells):
        raise DataError("a fit of other cells cannot be compared: fit every model to the same cell table")
    these_statistics, other_statistics = (
        set(FAMILIES[compared_fit.spec.family].select_statistics(compared_fit.cells).data_vars)
        for compared_fit in (this_fit, other_fit)
    )
    if these_statistics != other_statistics:
        raise ModelError(
            f'family "{other_fit.spec.family}" predicts {sorted(map(str, other_statistics))}, "{this_fit.spec.family}" '
            f"{sorted(map(str, these_statistics))}: densities of different numbers cannot be compared"
        )


def score_segments(scored_fit: Fit) -> pd.DataFrame:
    """Score the prediction of every segment from the others: the table of `Fit.loso`.

    By the exact engine where it applies, else by fitting again, each time without a tenth of the segments.
    """
    seed = int(scored_fit.core.attrs["seed"])

    def refit_fold(cells: xr.Dataset, model: Model) -> xr.DataTree:
        return fit(cells, model, draws=DRAWS_PER_FOLD, seed=seed, progress=False).core

    return score_left_out_segments(scored_fit.core, refit_fold)


def tabulate_scores(scores_by_name: Mapping[str, pd.DataFrame], reliable_by_name: Mapping[str, bool]) -> pd.DataFrame:
    """Put the scores of models side by side, best first.

    Parameters
    ----------
    scores_by_name : mapping
        Model -> table of `Fit.loso`, segments in the same order.
    reliable_by_name : mapping
        Model -> whether its fit passed its diagnosis.

    Returns
    -------
    pandas.DataFrame
        The columns of `Fit.compare`.
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
