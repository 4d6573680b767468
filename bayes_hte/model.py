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
from bayes_hte.informed import Evidence
from bayes_hte.layout import coordinates, long_form
from bayes_hte.names import check_colons, check_names
from bayes_hte.pooling import builder
from bayes_hte.priors import Given, constant, exchangeable, ordered_variable, resolve, variable
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Model
from bayes_hte.structure import (
    AMOUNT,
    CHANCE,
    NUISANCE_DIMS,
    Coefficient,
    Design,
    coefficients,
    design,
    expanded,
    extra_coords,
    hyperparameters,
)

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
        Labels of segment, arm, variant, and of what the structure or the family adds.
    design : Design
        Where every segment stands in the model's structure.
    """

    model: Model
    family: Family
    statistics: xr.Dataset
    cells: xr.Dataset
    coords: dict[str, list[str]]
    design: Design


def problem(cells: xr.Dataset, model: Model) -> Problem:
    """Check that the model fits the cells, and put its priors into their units.

    Raises
    ------
    DataError
        If the cells break their contract, or hold nothing to compare.
    ModelError
        If the family needs statistics that the cells lack, or the structure dimensions that they lack.
    """
    schema.check(cells)
    family = FAMILIES[model.family]
    if not family.has_baseline and schema.kind_of(cells) != "estimates":
        raise ModelError('family "estimate" takes published estimates; these cells hold the data themselves')
    if family.has_baseline and schema.kind_of(cells) == "estimates":
        raise ModelError(f'published estimates need family "estimate", the model has family "{model.family}"')
    if not schema.treated_arms(cells):
        raise DataError(f"the only arm is the control {cells.attrs['control']!r}: there is nothing to compare")
    check_colons(model, schema.dimensions(cells))
    model = expanded(model, cells)
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
    placed = design(model, cells)
    own = coordinates(cells) | {dim: [] for dims in NUISANCE_DIMS.values() for dim in dims}
    check_names(model, own, family.predictive_names)
    coords = coordinates(cells) | extra_coords(model, cells, placed)
    return Problem(model, family, statistics, long_form(statistics), coords, placed)


def build(task: Problem, *, reusable: bool = False) -> "pm.Model":
    """The PyMC model of one problem.

    Parameters
    ----------
    task : Problem
    reusable : bool
        Hold data and parameters of priors in `pm.Data`, so that a compiled model can take others.
    """
    import pymc as pm

    model, cells = task.model, task.cells
    given = exchangeable if reusable else constant
    coords = {**task.coords, "cell": list(map(str, cells["cell"].values))}

    with pm.Model(coords=coords) as built:
        build_with = builder(model, task.design, len(task.coords["segment"]), given)
        evidence = _evidence(task, given) if reusable else None
        found: dict[str, TensorVariable] = {}
        offset = None
        for asked in reversed(coefficients(model)):  # baselines first: effects may be tied to their offsets
            tied = offset if asked.dims != ("segment",) else None
            mine = evidence and _evidence_of(asked, evidence, found.get("baseline"))
            found[asked.name], offset = build_with.coefficient(asked, tied, mine)
        nuisance = _nuisance(task, given)

        parts = (CHANCE, AMOUNT) if model.amount is not None else ("",)
        eta = {part: _predictor(cells, found[f"{part}effect"], found.get(f"{part}baseline")) for part in parts}
        task.family.likelihood(cells, eta.get("", eta), nuisance, given)
    return built


def _evidence(task: Problem, given: Given) -> Evidence | None:
    """What every cell says of its own linear predictor, (segment, arm); None where there are two of them."""
    if task.family.curve is None:
        return None
    at, precision = task.family.curve.normal(task.statistics)
    return Evidence(given("pull", at * precision), given("precision", precision))


def _evidence_of(asked: Coefficient, evidence: Evidence, baseline: "TensorVariable | None") -> Evidence:
    """The control's cells speak of baselines, and given these the others of effects."""
    if asked.dims == ("segment",):
        return Evidence(evidence.pull[:, 0], evidence.precision[:, 0])
    if baseline is None:
        return evidence
    return Evidence(evidence.pull[:, 1:], evidence.precision[:, 1:]).beyond(baseline[:, None])


def _nuisance(task: Problem, given: Given) -> "dict[str, TensorVariable]":
    """What the likelihood needs besides."""
    if task.model.nuisance is None:
        return {}
    return {
        name: (ordered_variable if name == "cutpoints" else variable)(
            name, prior, dims=NUISANCE_DIMS[name], given=given
        )
        for name, prior in task.model.nuisance.given.items()
    }


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
    return {name: hyper.prior for name, hyper in hyperparameters(model).items()}
