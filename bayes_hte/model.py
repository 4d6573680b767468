"""The PyMC model: what the cells and a `Model` say together, with a name for every dim.

eta[cell] = baseline[segment of cell] + effect[segment of cell, arm of cell]     0 for the control
data[cell] ~ family(inverse_link(eta[cell]), nuisance)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte import schema
from bayes_hte.errors import DataError, ModelError
from bayes_hte.families import FAMILIES, Family
from bayes_hte.layout import coordinates, long_form
from bayes_hte.pooling import hyperpriors, pooled
from bayes_hte.priors import resolve, variable
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Model

if TYPE_CHECKING:
    import pymc as pm
    from pytensor.tensor.variable import TensorVariable


@dataclass(frozen=True, slots=True)
class Problem:
    """One model meets one cell table: everything an engine needs, checked once.

    Attributes
    ----------
    model : Model
        Priors in the outcome's own units.
    family : Family
    statistics : xarray.Dataset
        What the family needs of the cells, dims (segment, arm).
    cells : xarray.Dataset
        The same in long form, dim cell.
    coords : dict
        Labels of segment, arm and variant.
    """

    model: Model
    family: Family
    statistics: xr.Dataset
    cells: xr.Dataset
    coords: dict[str, list[str]]


def problem(cells: xr.Dataset, model: Model) -> Problem:
    """Check that the model fits the cells, and put its priors into their units.

    Raises
    ------
    DataError
        If the cells break their contract, or hold nothing to compare.
    ModelError
        If the family needs statistics that the cells lack.
    """
    schema.check(cells)
    family = FAMILIES[model.family]
    if not family.has_baseline and schema.kind_of(cells) != "estimates":
        raise ModelError('family "estimate" takes published estimates; these cells hold the data themselves')
    if family.has_baseline and schema.kind_of(cells) == "estimates":
        raise ModelError(f'published estimates need family "estimate", the model has family "{model.family}"')
    if not schema.treated_arms(cells):
        raise DataError(f"the only arm is the control {cells.attrs['control']!r}: there is nothing to compare")
    statistics = family.statistics(cells)
    if model.units == "control_sd":
        # Arms by number: where xarray aligns arms by name it sorts them, and the control must stay the first.
        numbered = statistics.assign_coords({schema.ARM: np.arange(statistics.sizes[schema.ARM])})
        mean, sd = family.control_location(numbered)
        if not sd > 0:
            raise DataError(
                "the control's outcome does not vary, so priors cannot be stated in its SD: "
                'use a model with priors in the outcome\'s own units (units = "link")'
            )
        model = resolve(model, control_mean=mean, control_sd=sd)
    return Problem(model, family, statistics, long_form(statistics), coordinates(cells))


def build(task: Problem) -> "pm.Model":
    """The PyMC model of one problem."""
    import pymc as pm

    model = task.model
    coords = {**task.coords, "cell": list(map(str, task.cells["cell"].values))}

    with pm.Model(coords=coords) as built:
        effect = pooled("effect", model.effect, model.pooling, dims=("segment", "arm"))
        baseline = None
        if model.baseline is not None:
            baseline = pooled("baseline", model.baseline, model.baseline.pooling, dims=("segment",))
        nuisance = {} if model.nuisance is None else {"sigma": variable("sigma", model.nuisance.sigma, dims="variant")}

        task.family.likelihood(task.cells, _predictor(task.cells, effect, baseline), nuisance)
    return built


def _predictor(cells: xr.Dataset, effect: "TensorVariable", baseline: "TensorVariable | None") -> "TensorVariable":
    """eta of every cell; the control's effect is the constant 0."""
    import pytensor.tensor as pt

    segment, arm = cells["segment_index"].values, cells["arm_index"].values
    if baseline is None:
        return effect[segment, arm - 1]
    with_control = pt.concatenate([pt.zeros((effect.shape[0], 1)), effect], axis=1)
    return baseline[segment] + with_control[segment, arm]


def top_level_priors(model: Model) -> dict[str, Distribution]:
    """Every prior that the model file states, by the name of its variable."""
    priors = hyperpriors("effect", model.effect, model.pooling)
    if model.baseline is not None:
        priors |= hyperpriors("baseline", model.baseline, model.baseline.pooling)
    if model.nuisance is not None:
        priors |= {"sigma": model.nuisance.sigma}
    return priors
