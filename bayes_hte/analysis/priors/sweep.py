"""`prior_sweep`: fit a model under several priors of the between-segment SD."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import BaseModel

from bayes_hte._support.numerics import isolate_call
from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.analysis.fit import fit
from bayes_hte.analysis.result import Fit
from bayes_hte.errors import ArgumentError, ModelError
from bayes_hte.estimands.result_tables import mark_reliability
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.priors import format_prior
from bayes_hte.spec import Model, read_model
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.distributions import Distribution, rescale_distribution
from bayes_hte.spec.files import validate_content
from bayes_hte.spec.plan import SamplerName

# Doubled and halved twice: a prior sixteen times as wide as the narrowest.
DEFAULT_SD_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@isolate_call
def prior_sweep(
    cells: xr.Dataset,
    model: Model | str | Path,
    between: Sequence[float | Distribution] = DEFAULT_SD_FACTORS,
    *,
    scale: EffectScale = "absolute",
    ci_prob: float = 0.95,
    rope: float | None = None,
    sampler: SamplerName = "auto",
    draws: int = 4000,
    seed: int = 1,
    higher_is_better: bool = True,
) -> pd.DataFrame:
    """Fit the model under several priors of the between-segment SD, and show every effect under each.

    Parameters
    ----------
    cells : xarray.Dataset
        From `bayes_hte.cells`.
    model : Model, str or Path
        Its ``effect.between`` is what is varied.
    between : sequence of float or Distribution
        Factors by which the model's own prior is stretched, or other priors in its place.
    scale : {"absolute", "relative", "link"}
        Of the effects.
    ci_prob : float
        Probability of the intervals.
    rope : float, optional
        The smallest effect that matters, on `scale`: adds p_rope, p_benefit and p_harm.
    sampler, draws, seed, higher_is_better
        As in `fit`.

    Returns
    -------
    pandas.DataFrame
        One row per prior, segment and arm: between (the prior), the columns of `Fit.table`, tau (posterior
        mean of the between-segment SD, link scale), log_evidence, reliable. ``log_evidence`` is the log of the
        marginal likelihood of the data under the model with that prior, NaN where the exact engine was not used:
        differences of it compare the priors, and a flat row says that the data do not.

    Raises
    ------
    ArgumentError
        If `between` is no list, or holds a factor that is not above 0.
    ModelError
        If the model does not pool effects partially, or a prior in `between` does not fit it.
    DataError, FitError
        As in `fit`.

    Notes
    -----
    Read down one segment: where its effect and P(> 0) hardly move, the conclusion does not hang on the prior.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> swept = hte.prior_sweep(hte.example_cells(), "conversion", [0.5, 1.0, 2.0])
    >>> swept[["between", "device", "effect", "p_positive"]].shape
    (18, 4)
    """
    model = model if isinstance(model, Model) else read_model(model)
    stated_prior = model.effect.between
    if model.pooling != "partial" or stated_prior is None:
        raise ModelError(f'there is no between-segment SD to vary under pooling = "{model.pooling}"')
    question = EffectQuestion(scale, ci_prob, rope, higher_is_better=higher_is_better)
    prior_tables = []
    # All models are built before the first fit, so that a wrong prior at the end of the list does not cost fits.
    for varied_model in [
        _replace_between_prior(model, stated_prior, prior_variant) for prior_variant in _list_prior_variants(between)
    ]:
        varied_fit = fit(
            cells,
            varied_model,
            sampler=sampler,
            draws=draws,
            seed=seed,
            progress=False,
            higher_is_better=higher_is_better,
        )
        prior_tables.append(_tabulate_varied_fit(varied_fit, varied_model.effect.between or stated_prior, question))
    return pd.concat(prior_tables, ignore_index=True)


def _list_prior_variants(between: object) -> list[object]:
    """List the factors and priors to try; raise ArgumentError if there are none."""
    # Text, mappings and priors can be iterated over too, but each is one thing and not a list.
    prior_variants = (
        list(between) if isinstance(between, Iterable) and not isinstance(between, str | Mapping | BaseModel) else []
    )
    if not prior_variants:
        raise ArgumentError(
            f"between is {describe_value(between)}; give a list of factors such as [0.5, 1, 2], or of priors in their "
            "place"
        )
    return prior_variants


def _replace_between_prior(model: Model, stated_prior: Distribution, prior_variant: object) -> Model:
    """Give a model another prior of the between-segment SD: its own stretched by a factor, or one in its place."""
    sd_factor = to_float(prior_variant)
    if sd_factor is not None and not 0 < sd_factor < math.inf:
        raise ArgumentError(
            f"between holds the factor {sd_factor:g}; a prior is stretched by finite numbers greater than 0"
        )
    effect_content = model.effect.model_dump(exclude_none=True)
    effect_content["between"] = prior_variant if sd_factor is None else rescale_distribution(stated_prior, sd_factor)
    model_content = model.model_dump(exclude_none=True) | {"effect": effect_content}
    return validate_content(model_content, Model, ModelError, error_prefix="between")


def _tabulate_varied_fit(varied_fit: Fit, between_prior: Distribution, question: EffectQuestion) -> pd.DataFrame:
    """Tabulate one fit of the sweep: `Fit.table` with its prior, tau and the log of its marginal likelihood."""
    effect_table = varied_fit.table(question.scale, question.ci_prob, rope=question.rope)
    effect_table.attrs = {}  # pandas compares attributes when it joins tables
    # One tau for all arms (`effect.shared_between`) or one per arm; another dim is that of strata.
    tau = varied_fit.tree["posterior"].to_dataset()["effect_between"].mean(("chain", "draw"))
    sampler_statistics = varied_fit.tree["sample_stats"].to_dataset()
    effect_table.insert(0, "between", format_prior(between_prior))
    if tau.dims not in ((), ("arm",)):
        raise ModelError("strata have between-segment SDs of their own: vary them one by one in the model file")
    effect_table["tau"] = tau.sel(arm=effect_table["arm"].to_numpy()).values if tau.dims else float(tau)
    effect_table["log_evidence"] = (
        float(sampler_statistics["log_evidence"]) if "log_evidence" in sampler_statistics else np.nan
    )
    return mark_reliability(effect_table, reliable=varied_fit.diagnosis.ok)
