"""`prior_from_fit` and `learn_prior`: priors from one earlier fit, or from many past experiments."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.validation import describe_type, describe_value, to_float
from bayes_hte.analysis.fit import fit
from bayes_hte.analysis.result import Fit
from bayes_hte.cells import from_estimates
from bayes_hte.errors import ArgumentError, DataError, ModelError
from bayes_hte.model.parameters import Coefficient, list_coefficients
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Model
from bayes_hte.spec.distributions import Distribution, Gamma, HalfNormal, LogNormal, Normal
from bayes_hte.spec.fit_tree import require_known_model

# With two the SD between experiments would be a single difference: almost only its prior would remain.
MIN_EXPERIMENTS = 3


def prior_from_fit(previous: Fit, *, discount: float = 0.5) -> Model:
    """Turn the posterior of an earlier experiment, discounted, into the prior of the next.

    Parameters
    ----------
    previous : Fit
        Partially pooled one way; of the same metric.
    discount : float
        What an earlier unit is worth in units of the next experiment: 1 trusts the earlier experiment as if it were
        part of the next, 0.5 doubles the variances of what it found.

    Returns
    -------
    Model
        In the units of the link scale. A mean over segments has a Normal prior with the posterior's mean, and its
        variance divided by `discount`; a between-segment SD a Gamma with that mean and such a variance.

    Raises
    ------
    ArgumentError
        If `discount` is not above 0 and at most 1, or `previous` is no fit.
    DataError
        If the fit did not pass its diagnosis.
    ModelError
        If the model has parameters that cannot be handed on this way.

    Notes
    -----
    Only what segments share is handed on, not the segments' own effects: the next experiment may have others.
    With several treated arms the prior is that of their average, because a model file knows no arms by name.

    References
    ----------
    Ibrahim & Chen (2000), Power prior distributions, Statistical Science 15:46.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> learnt = hte.prior_from_fit(hte.example_fit(), discount=0.5)
    >>> learnt.effect.mean.dist, learnt.effect.between.dist
    ('Normal', 'Gamma')
    """
    discount_factor = to_float(discount)
    if discount_factor is None or not 0 < discount_factor <= 1:
        raise ArgumentError(
            f"discount is the worth of an earlier unit, above 0 and at most 1, not {describe_value(discount)}"
        )
    _require_fit(previous)
    if not previous.diagnosis.ok:
        raise DataError(f"the earlier fit is not reliable, and so no prior: {' '.join(previous.diagnosis.problems)}")
    posterior = previous.tree["posterior"].to_dataset()
    updated_sections: dict[str, object] = {"units": "link", "title": f"{previous.model.title}, continued"[:200]}
    resolved_model = build_problem(
        previous.cells, require_known_model(previous.tree, "a prior for the next experiment")
    ).model
    # Power prior for a posterior that is nearly normal: p(θ | data)^d ∝ N(m, s² / d), so SDs are divided by √d.
    for coefficient in _list_transferable_coefficients(resolved_model):
        mean_moments = _compute_mean_and_sd(posterior[f"{coefficient.name}_mean"])
        between_moments = _compute_mean_and_sd(posterior[f"{coefficient.name}_between"])
        discounted_priors = {
            "mean": Normal(mu=mean_moments[0], sigma=mean_moments[1] / discount_factor**0.5),
            "between": Gamma(mu=between_moments[0], sigma=between_moments[1] / discount_factor**0.5),
        }
        updated_sections[coefficient.name] = coefficient.pool_priors.model_copy(update=discounted_priors)
    # The outcome's SD is positive, and its posterior is nearer to a normal one on the log scale.
    if resolved_model.nuisance is not None and "sigma" in posterior.data_vars:
        log_sigma_mean, log_sigma_sd = _compute_mean_and_sd(_take_log(posterior["sigma"]))
        updated_sections["nuisance"] = resolved_model.nuisance.model_copy(
            update={"sigma": LogNormal(mu=log_sigma_mean, sigma=log_sigma_sd / discount_factor**0.5)}
        )
    return resolved_model.model_copy(update=updated_sections)


def _list_transferable_coefficients(model: Model) -> list[Coefficient]:
    """List the coefficients whose shared mean and between-segment SD can be handed on; ModelError for other models."""
    # Levels, strata and covariates have parameters of their own, and the next experiment may have others.
    effect = model.effect
    if model.pooling != "partial" or model.amount is not None or effect.by or effect.strata or effect.covariates:
        raise ModelError("a prior is handed on from effects that are partially pooled one way; fit such a model first")
    return [
        coefficient
        for coefficient in list_coefficients(model)
        if coefficient.pooling == "partial" and coefficient.pool_priors.mean is not None
    ]


def _compute_mean_and_sd(parameter_draws: xr.DataArray) -> tuple[float, float]:
    """Compute mean and SD over draws, and over arms where there are several."""
    return float(parameter_draws.mean()), float(parameter_draws.std())


def _take_log(parameter_draws: xr.DataArray) -> xr.DataArray:
    """Take the natural logarithm of every draw."""
    return parameter_draws.copy(data=np.log(parameter_draws.values))


def learn_prior(experiments: Sequence[Fit], *, seed: int = 1) -> Model:
    """Learn a prior from many past experiments: what the next one is likely to show, judged by all of them.

    Parameters
    ----------
    experiments : sequence of Fit
        Three or more of the same family and metric, partially pooled one way.
    seed : int
        Of the small fits behind it.

    Returns
    -------
    Model
        The model of the first experiment, in units of the link scale, with `effect.mean` a Normal and
        `effect.between` a LogNormal: each the predictive distribution for a new experiment.

    Raises
    ------
    ArgumentError
        If the experiments are no list of fits.
    DataError
        If there are fewer than three experiments, or one is not reliable.
    ModelError
        If they differ in family, or are not pooled one way.

    Notes
    -----
    Every experiment's posterior of the common effect (and of the log of the between-segment SD) counts as an
    estimate with a standard error, and these are pooled by a hierarchical model of experiments. The experiments'
    own priors should be weak: they are part of each estimate.
    """
    if not isinstance(experiments, Sequence) or isinstance(experiments, str):
        raise ArgumentError(
            f"experiments are {describe_type(experiments)}; give a list of fits, {MIN_EXPERIMENTS} or more"
        )
    for experiment in experiments:
        _require_fit(experiment)
    if len(experiments) < MIN_EXPERIMENTS:
        raise DataError(
            f"{len(experiments)} experiments say little of how experiments differ; give {MIN_EXPERIMENTS} or more"
        )
    resolved_models = [
        build_problem(experiment.cells, require_known_model(experiment.tree, "a learnt prior")).model
        for experiment in experiments
    ]
    if len({model.family for model in resolved_models}) > 1:
        raise ModelError(f"experiments of different families: {sorted({model.family for model in resolved_models})}")
    for experiment, model in zip(experiments, resolved_models, strict=True):
        _list_transferable_coefficients(model)
        if not experiment.diagnosis.ok:
            raise DataError(f"an experiment is not reliable: {' '.join(experiment.diagnosis.problems)}")
    posteriors = [experiment.tree["posterior"].to_dataset() for experiment in experiments]
    mean_moments = _predict_new_experiment(
        [_compute_mean_and_sd(posterior["effect_mean"]) for posterior in posteriors], seed
    )
    # An SD is positive, and its posterior is nearer to a normal one on the log scale.
    log_between_moments = _predict_new_experiment(
        [_compute_mean_and_sd(_take_log(posterior["effect_between"])) for posterior in posteriors], seed
    )
    learnt_effect = resolved_models[0].effect.model_copy(
        update={
            "mean": Normal(mu=mean_moments[0], sigma=mean_moments[1]),
            "between": LogNormal(mu=log_between_moments[0], sigma=log_between_moments[1]),
        }
    )
    model_title = f"{resolved_models[0].title}, prior learnt from {len(experiments)} experiments"[:200]
    return resolved_models[0].model_copy(update={"effect": learnt_effect, "units": "link", "title": model_title})


def _require_fit(candidate: object) -> None:
    """Raise ArgumentError if something else than a fit was given."""
    if not isinstance(candidate, Fit):
        raise ArgumentError(
            f"a prior is learnt from fits, not {describe_type(candidate)}; give what hte.fit or hte.load returned"
        )


def _predict_new_experiment(estimate_moments: list[tuple[float, float]], seed: int) -> tuple[float, float]:
    """Predict a quantity of a new experiment from its estimates in earlier ones.

    Parameters
    ----------
    estimate_moments : list of (float, float)
        Estimate and standard error of each earlier experiment.
    seed : int
        Of the fit.

    Returns
    -------
    tuple of float
        Mean and SD of the predictive distribution.
    """
    estimate_table = pd.DataFrame(estimate_moments, columns=["estimate", "se"]).rename_axis("experiment").reset_index()
    estimate_values = estimate_table["estimate"].to_numpy()
    estimate_scale = float(np.sqrt(np.mean(estimate_table["se"] ** 2) + estimate_values.var()))
    # y_i ~ N(θ_i, se_i²), θ_i ~ N(μ, τ²). estimate_scale² = mean(se²) + var(y) is no less than τ², for var(y) is about
    # τ² + mean(se²). Priors of ten times that SD for μ, and of twice that for τ, leave the word to the experiments.
    cells = from_estimates(estimate_table, segments=["experiment"], estimate="estimate", se="se")
    weak_prior: Distribution = Normal(mu=float(estimate_values.mean()), sigma=10 * estimate_scale)
    model = Model.model_validate(
        {"family": "estimate", "effect": {"mean": weak_prior, "between": HalfNormal(sigma=2 * estimate_scale)}}
    )
    prediction_table = fit(cells, model, sampler="exact", draws=8000, seed=seed).predict_new_segment("link")
    return float(prediction_table["effect"].iloc[0]), float(prediction_table["sd"].iloc[0])
