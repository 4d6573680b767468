"""The effect that an experiment was planned for, as the measure of how much segments may differ.

effect_between ~ HalfNormal(|δ|), δ the planned effect on the link scale: segments that differ by more than the effect
itself are believed to be rare, and what is rare is set by what was thought likely before the data.

References
----------
Wolbers et al. (2025), Pharmaceutical Statistics 24.
"""

import math

import xarray as xr

from bayes_hte.errors import ModelError
from bayes_hte.model.families import FAMILIES, Family, select_model_statistics
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.distributions import HalfNormal
from bayes_hte.spec.model import Model


def with_planned_effect(model: Model, cells: xr.Dataset, planned_effect: float, scale: EffectScale) -> Model:
    """Return the model with the prior of the between-segment SD anchored at a planned effect.

    Parameters
    ----------
    model : Model
        Partially pooled; its prior of `effect.between` is replaced.
    cells : xarray.Dataset
        The control's overall mean translates the effect to the link scale; no effect is looked at.
    planned_effect : float
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
    cell_statistics = select_model_statistics(cells, model)
    anchor_sd = abs(convert_to_link(family, cell_statistics, planned_effect, scale))
    # effect_between ~ HalfNormal(|δ|), in the model's own units
    if model.units == "control_sd":
        anchor_sd /= family.measure_control_outcome(cell_statistics)[1]
    if not (math.isfinite(anchor_sd) and anchor_sd > 0):
        raise ModelError(
            f"a planned effect of {planned_effect:g} has no size on the link scale; state one other than 0"
        )
    anchored_priors = model.effect.model_copy(update={"between": HalfNormal(sigma=anchor_sd)})
    return model.model_copy(update={"effect": anchored_priors})


def convert_to_link(family: Family, cell_statistics: xr.Dataset, planned_effect: float, scale: EffectScale) -> float:
    """Convert a planned effect to the link scale, at the control's overall mean."""
    if scale == "link" or (scale == "absolute" and family.link == "identity"):
        return planned_effect
    # log(m (1 + δ)) − log m = log(1 + δ), whatever the mean m
    if scale == "relative" and family.link == "log":
        return math.log1p(planned_effect) if planned_effect > -1 else -math.inf
    control_mean = compute_control_mean(family, cell_statistics)
    treated_mean = control_mean + planned_effect if scale == "absolute" else control_mean * (1 + planned_effect)
    if family.link == "identity":
        return treated_mean - control_mean
    is_possible = control_mean > 0 and treated_mean > 0
    if family.mean_is_probability:
        is_possible = is_possible and control_mean < 1 and treated_mean < 1
    if not is_possible:
        raise ModelError(
            f"a planned effect of {planned_effect:g} is impossible where the control's overall mean is "
            f"{control_mean:.4g}: is it meant on the {scale} scale?"
        )
    return family.convert_mean_to_link(treated_mean) - family.convert_mean_to_link(control_mean)


def compute_control_mean(family: Family, cell_statistics: xr.Dataset) -> float:
    """Compute the control's mean over all its units: a probability, a rate, or the risk by the horizon.

    Raises
    ------
    ModelError
        If the family's planned effects make sense on the link scale only.
    """
    if family.compute_control_mean is None:
        raise ModelError(f'state the planned effect of family "{family.name}" on the link scale (scale = "link")')
    return family.compute_control_mean(cell_statistics)
