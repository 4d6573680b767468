"""Priors that come from somewhere: from one earlier fit, from many past experiments, from the plan."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte.analysis import fit
from bayes_hte.asked import described, number, type_of
from bayes_hte.cells import from_estimates
from bayes_hte.effects import known_model
from bayes_hte.errors import DataError, ModelError
from bayes_hte.model import problem
from bayes_hte.result import Fit
from bayes_hte.spec import Model
from bayes_hte.spec.distributions import Distribution, Gamma, HalfNormal, LogNormal, Normal
from bayes_hte.structure import Coefficient, coefficients

LEAST = 3
"""Experiments from which a distribution of experiments can be learnt at all."""


def prior_from_fit(previous: Fit, *, discount: float = 0.5) -> Model:
    """The model of an earlier experiment with its posterior, discounted, as the prior of the next.

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
    DataError
        If `discount` is not above 0 and at most 1, or the fit did not pass its diagnosis.
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
    >>> import pandas as pd, bayes_hte as hte
    >>> counts = pd.DataFrame({
    ...     "device": ["mobile", "mobile", "tablet", "tablet"], "arm": ["a", "b", "a", "b"],
    ...     "n": [9000, 9100, 300, 280], "events": [810, 955, 27, 40],
    ... })
    >>> cells = hte.cells.from_summary(counts, arm="arm", control="a", segments=["device"], n="n", events="events")
    >>> learnt = hte.prior_from_fit(hte.fit(cells, "conversion"), discount=0.5)
    >>> learnt.effect.mean.dist, learnt.effect.between.dist
    ('Normal', 'Gamma')
    """
    worth = number(discount)
    if worth is None or not 0 < worth <= 1:
        raise DataError(f"discount is the worth of an earlier unit, above 0 and at most 1, not {described(discount)}")
    _check_fit(previous)
    if not previous.diagnosis.ok:
        raise DataError(f"the earlier fit is not reliable, and so no prior: {' '.join(previous.diagnosis.problems)}")
    posterior = previous.core["posterior"].to_dataset()
    update: dict[str, object] = {"units": "link", "title": f"{previous.spec.title}, continued"[:200]}
    resolved = problem(previous.cells, known_model(previous.core, "a prior for the next experiment")).model
    for asked in _handed_on(resolved):
        mean = _moments(posterior[f"{asked.name}_mean"])
        between = _moments(posterior[f"{asked.name}_between"])
        priors = {
            "mean": Normal(mu=mean[0], sigma=mean[1] / worth**0.5),
            "between": Gamma(mu=between[0], sigma=between[1] / worth**0.5),
        }
        update[asked.name] = asked.pool.model_copy(update=priors)
    if resolved.nuisance is not None and "sigma" in posterior.data_vars:
        centre, sd = _moments(_log(posterior["sigma"]))
        update["nuisance"] = resolved.nuisance.model_copy(update={"sigma": LogNormal(mu=centre, sigma=sd / worth**0.5)})
    return resolved.model_copy(update=update)


def _handed_on(model: Model) -> list[Coefficient]:
    """Coefficients whose posterior of what segments share can be the next prior."""
    effect = model.effect
    if model.pooling != "partial" or model.amount is not None or effect.by or effect.strata or effect.covariates:
        raise ModelError("a prior is handed on from effects that are partially pooled one way; fit such a model first")
    return [each for each in coefficients(model) if each.pooling == "partial" and each.pool.mean is not None]


def _moments(draws: xr.DataArray) -> tuple[float, float]:
    """Mean and SD over draws, and over arms where there are several."""
    return float(draws.mean()), float(draws.std())


def _log(draws: xr.DataArray) -> xr.DataArray:
    return draws.copy(data=np.log(draws.values))


def learn_prior(experiments: Sequence[Fit], *, seed: int = 1) -> Model:
    """A prior learnt from many past experiments: what the next one is likely to show, judged by all of them.

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
        raise DataError(f"experiments are {type_of(experiments)}; give a list of fits, {LEAST} or more")
    for each in experiments:
        _check_fit(each)
    if len(experiments) < LEAST:
        raise DataError(f"{len(experiments)} experiments say little of how experiments differ; give {LEAST} or more")
    models = [problem(each.cells, known_model(each.core, "a learnt prior")).model for each in experiments]
    if len({model.family for model in models}) > 1:
        raise ModelError(f"experiments of different families: {sorted({model.family for model in models})}")
    for each, model in zip(experiments, models, strict=True):
        _handed_on(model)
        if not each.diagnosis.ok:
            raise DataError(f"an experiment is not reliable: {' '.join(each.diagnosis.problems)}")
    posteriors = [each.core["posterior"].to_dataset() for each in experiments]
    common = _predicted([_moments(posterior["effect_mean"]) for posterior in posteriors], seed)
    spread = _predicted([_moments(_log(posterior["effect_between"])) for posterior in posteriors], seed)
    effect = models[0].effect.model_copy(
        update={"mean": Normal(mu=common[0], sigma=common[1]), "between": LogNormal(mu=spread[0], sigma=spread[1])}
    )
    title = f"{models[0].title}, prior learnt from {len(experiments)} experiments"[:200]
    return models[0].model_copy(update={"effect": effect, "units": "link", "title": title})


def _check_fit(given: object) -> None:
    if not isinstance(given, Fit):
        raise DataError(f"a prior is learnt from fits, not {type_of(given)}; give what hte.fit or hte.load returned")


def _predicted(estimates: list[tuple[float, float]], seed: int) -> tuple[float, float]:
    """Mean and SD of the predictive distribution of a new estimate's true value."""
    rows = pd.DataFrame(estimates, columns=["estimate", "se"]).rename_axis("experiment").reset_index()
    y = rows["estimate"].to_numpy()
    scale = float(np.sqrt(np.mean(rows["se"] ** 2) + y.var()))
    cells = from_estimates(rows, segments=["experiment"], estimate="estimate", se="se")
    wide: Distribution = Normal(mu=float(y.mean()), sigma=10 * scale)
    model = Model.model_validate(
        {"family": "estimate", "effect": {"mean": wide, "between": HalfNormal(sigma=2 * scale)}}
    )
    found = fit(cells, model, sampler="exact", draws=8000, seed=seed).predict_new_segment("link")
    return float(found["effect"].iloc[0]), float(found["sd"].iloc[0])
