"""`prior_sweep`: the same question under other priors of the between-segment SD."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from pydantic import BaseModel

from bayes_hte.analysis import fit
from bayes_hte.asked import described, number
from bayes_hte.errors import ModelError
from bayes_hte.priors import as_text
from bayes_hte.result import Fit
from bayes_hte.schema import Scale
from bayes_hte.spec import Model, read_model
from bayes_hte.spec.distributions import Distribution, rescaled
from bayes_hte.spec.files import validate
from bayes_hte.spec.plan import Sampler
from bayes_hte.summary import Question

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def prior_sweep(
    cells: xr.Dataset,
    model: Model | str | Path,
    between: Sequence[float | Distribution] = FACTORS,
    *,
    scale: Scale = "absolute",
    ci_prob: float = 0.95,
    sampler: Sampler = "auto",
    draws: int = 4000,
    seed: int = 1,
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
    sampler, draws, seed
        As in `fit`.

    Returns
    -------
    pandas.DataFrame
        One row per prior, segment and arm: between (the prior), the columns of `Fit.table`, and tau (posterior
        mean of the between-segment SD, link scale). ``log_evidence`` is the log of the marginal likelihood of
        the data under the model with that prior, NaN where the exact engine was not used: differences of it
        compare the priors, and a flat row says that the data do not.

    Raises
    ------
    ModelError
        If the model does not pool effects partially, or what `between` holds is no factor or prior that fits it.
    DataError, FitError
        As in `fit`.

    Notes
    -----
    Read down one segment: where its effect and P(> 0) hardly move, the conclusion does not hang on the prior.

    Examples
    --------
    >>> import pandas as pd, bayes_hte as hte
    >>> counts = pd.DataFrame({
    ...     "device": ["mobile", "mobile", "tablet", "tablet"], "arm": ["a", "b", "a", "b"],
    ...     "n": [9000, 9100, 300, 280], "events": [810, 955, 27, 40],
    ... })
    >>> cells = hte.cells.from_summary(counts, arm="arm", control="a", segments=["device"], n="n", events="events")
    >>> swept = hte.prior_sweep(cells, "conversion", [0.5, 1.0, 2.0])
    >>> swept[["between", "device", "effect", "p_positive"]].shape
    (6, 4)
    """
    model = model if isinstance(model, Model) else read_model(model)
    stated = model.effect.between
    if model.pooling != "partial" or stated is None:
        raise ModelError(f'there is no between-segment SD to vary under pooling = "{model.pooling}"')
    question = Question(scale, ci_prob)
    frames = []
    for varied in [_varied(model, stated, each) for each in _listed(between)]:
        one = fit(cells, varied, sampler=sampler, draws=draws, seed=seed, progress=False)
        frames.append(_rows(one, varied.effect.between or stated, question))
    return pd.concat(frames, ignore_index=True)


def _listed(between: object) -> list[object]:
    found = (
        list(between) if isinstance(between, Iterable) and not isinstance(between, str | Mapping | BaseModel) else []
    )
    if not found:
        raise ModelError(
            f"between is {described(between)}; give a list of factors such as [0.5, 1, 2], or of priors in their place"
        )
    return found


def _varied(model: Model, stated: Distribution, each: object) -> Model:
    """The model with another prior of the between-segment SD."""
    factor = number(each)
    if factor is not None and not 0 < factor < math.inf:
        raise ModelError(f"between holds the factor {factor:g}; a prior is stretched by finite numbers greater than 0")
    effect = model.effect.model_dump(exclude_none=True)
    effect["between"] = each if factor is None else rescaled(stated, factor)
    content = model.model_dump(exclude_none=True) | {"effect": effect}
    return validate(content, Model, ModelError, where="between")


def _rows(one: Fit, prior: Distribution, question: Question) -> pd.DataFrame:
    table = one.table(question.scale, question.ci_prob)
    table.attrs = {}  # pandas compares attributes when it joins tables
    tau = one.core["posterior"].to_dataset()["effect_between"].mean(("chain", "draw"))
    stats = one.core["sample_stats"].to_dataset()
    table.insert(0, "between", as_text(prior))
    if tau.dims not in ((), ("arm",)):
        raise ModelError("strata have between-segment SDs of their own: vary them one by one in the model file")
    table["tau"] = tau.sel(arm=table["arm"].to_numpy()).values if tau.dims else float(tau)
    table["log_evidence"] = float(stats["log_evidence"]) if "log_evidence" in stats else np.nan
    table["reliable"] = one.diagnosis.ok
    return table
