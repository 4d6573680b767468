"""The effect that an experiment was planned for, as the measure of how much segments may differ.

effect_between ~ HalfNormal(|δ|), δ the planned effect on the link scale: segments that differ by more than the effect
itself are believed to be rare, and what is rare is set by what was thought likely before the data.

References
----------
Wolbers et al. (2025), Pharmaceutical Statistics 24.
"""

import math

import xarray as xr

from bayes_hte import schema
from bayes_hte.errors import ModelError
from bayes_hte.families import FAMILIES, Family
from bayes_hte.schema import Scale
from bayes_hte.spec.distributions import HalfNormal
from bayes_hte.spec.model import Model


def anchored(model: Model, cells: xr.Dataset, planned: float, scale: Scale) -> Model:
    """The model with the between-segment SD anchored at a planned effect.

    Parameters
    ----------
    model : Model
        Partially pooled; its prior of `effect.between` is replaced.
    cells : xarray.Dataset
        The control's overall mean translates the effect to the link scale; no effect is looked at.
    planned : float
        The planned effect on `scale`.
    scale : {"absolute", "relative", "link"}

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If effects are not partially pooled, or the planned effect is 0 or cannot be put on the link scale.
    """
    if model.pooling != "partial":
        raise ModelError(
            f'a planned effect is the anchor of partial pooling; the model has pooling = "{model.pooling}"'
        )
    if model.amount is not None:
        raise ModelError("a planned effect on a mean says nothing of each of two parts: state both priors in the model")
    family = FAMILIES[model.family]
    statistics = family.statistics(cells)
    size = abs(on_link(family, statistics, planned, scale))
    if model.units == "control_sd":
        size /= family.control_location(statistics)[1]
    if not (math.isfinite(size) and size > 0):
        raise ModelError(f"a planned effect of {planned:g} has no size on the link scale; state one other than 0")
    effect = model.effect.model_copy(update={"between": HalfNormal(sigma=size)})
    return model.model_copy(update={"effect": effect})


def on_link(family: Family, statistics: xr.Dataset, effect: float, scale: Scale) -> float:
    """An effect on the link scale, at the control's overall mean."""
    if scale == "link" or (scale == "absolute" and family.link == "identity"):
        return effect
    if scale == "relative" and family.link == "log":
        return math.log1p(effect) if effect > -1 else -math.inf
    mean = control_mean(family, statistics)
    treated = mean + effect if scale == "absolute" else mean * (1 + effect)
    if family.link == "identity":
        return treated - mean
    inside = 0 < mean < 1 and 0 < treated < 1 if family.percent else mean > 0 and treated > 0
    if not inside:
        raise ModelError(
            f"a planned effect of {effect:g} is impossible where the control's overall mean is {mean:.4g}: "
            f"is it meant on the {scale} scale?"
        )
    return _link(family, treated) - _link(family, mean)


def _link(family: Family, mean: float) -> float:
    if family.link == "logit":
        return math.log(mean / (1 - mean))
    return math.log(-math.log1p(-mean)) if family.percent else math.log(mean)


def control_mean(family: Family, statistics: xr.Dataset) -> float:
    """The control's mean over all its units: a probability, a rate, or the risk by the horizon."""
    control = statistics.isel({schema.ARM: 0})
    match family.name:
        case "binomial":
            return float(control["events"].sum() / control["n"].sum())
        case "poisson":
            return float(control["events"].sum() / control["exposure"].sum())
        case "negative_binomial":
            return float(control["total"].sum() / control["n"].sum())
        case "normal" | "mean":
            return family.control_location(statistics)[0]
        case "piecewise_exponential":
            from bayes_hte.families.piecewise_exponential import lengths

            whole = control[["failures", "at_risk"]].sum(schema.SEGMENT)
            spent = lengths(statistics, float(statistics.attrs["horizon"]))
            rate = (whole["failures"] / whole["at_risk"].where(whole["at_risk"] > 0)).fillna(0.0).values
            return float(-math.expm1(-float(rate @ spent)))
    raise ModelError(f'state the planned effect of family "{family.name}" on the link scale (scale = "link")')
