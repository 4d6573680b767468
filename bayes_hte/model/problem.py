"""A `Model` meets cells: the problem that engines solve, and its PyMC model, with a name for every dim.

eta[cell] = baseline[segment of cell] + effect[segment of cell, arm of cell]     0 for the control
data[cell] ~ family(inverse_link(eta[cell]), nuisance)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.errors import DataError, ModelError
from bayes_hte.model.families import FAMILIES, Family
from bayes_hte.model.long_form import build_long_form, label_dims
from bayes_hte.model.name_clashes import check_colons, check_name_clashes
from bayes_hte.model.parameters import (
    Coefficient,
    SegmentDesign,
    build_segment_design,
    collect_extra_coords,
    collect_hyperparameters,
    expand_dimensions,
    list_coefficients,
)
from bayes_hte.model.priors import (
    ValueHolder,
    add_ordered_variable,
    add_prior_variable,
    hold_as_constant,
    hold_as_data,
    resolve_units,
)
from bayes_hte.model.pymc.centering import GaussianMessage
from bayes_hte.model.pymc.pooling import prepare_builder
from bayes_hte.spec import cell_table
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Model

if TYPE_CHECKING:
    import pymc as pm
    from pytensor.tensor.variable import TensorVariable


@dataclass(frozen=True, slots=True)
class Problem:
    """A model and a cell table that fit each other: everything an engine needs, checked once.

    Attributes
    ----------
    model : Model
        Priors in the outcome's own units.
    family : Family
    cell_statistics : xarray.Dataset
        Sufficient statistics of the family, dims (segment, arm).
    long_cells : xarray.Dataset
        Sufficient statistics of the cells that hold data, dim cell.
    coords : dict
        Labels of segment, arm, variant, and of what the structure or the family adds.
    segment_design : SegmentDesign
        Levels and covariates of every segment.
    """

    model: Model
    family: Family
    cell_statistics: xr.Dataset
    long_cells: xr.Dataset
    coords: dict[str, list[str]]
    segment_design: SegmentDesign


def build_problem(cells: xr.Dataset, model: Model) -> Problem:
    """Check that the model fits the cells, and put its priors into their units.

    Raises
    ------
    DataError
        If the cells break their contract, or hold nothing to compare.
    ModelError
        If the family needs statistics that the cells lack, or the structure dimensions that they lack.
    """
    cell_table.check_cell_table(cells)
    family = FAMILIES[model.family]
    if not family.has_baseline and cell_table.identify_kind(cells) != "estimates":
        raise ModelError(f'family "{family.name}" takes published estimates; these cells hold the data themselves')
    if family.has_baseline and cell_table.identify_kind(cells) == "estimates":
        fitting_names = [
            f'"{known_family.name}"' for known_family in FAMILIES.values() if not known_family.has_baseline
        ]
        raise ModelError(
            f'published estimates need family {" or ".join(fitting_names)}, the model has family "{family.name}"'
        )
    if not cell_table.list_treated_arms(cells):
        raise DataError(f"the only arm is the control {cells.attrs['control']!r}: there is nothing to compare")
    check_colons(model, cell_table.list_dimensions(cells))
    model = expand_dimensions(model, cells)
    cell_statistics = family.select_statistics(cells)
    if model.units == "control_sd":
        # Arms by number: where xarray aligns arms by name it sorts them, and the control must stay the first.
        numbered_statistics = cell_statistics.assign_coords(
            {cell_table.ARM: np.arange(cell_statistics.sizes[cell_table.ARM])}
        )
        control_mean, control_sd = family.measure_control_outcome(numbered_statistics)
        if not control_sd > 0:
            raise DataError(
                "the control's outcome does not vary, so priors cannot be stated in its SD: "
                'use a model with priors in the outcome\'s own units (units = "link")'
            )
        model = resolve_units(model, control_mean=control_mean, control_sd=control_sd)
    # The dims of all families' nuisance parameters are reserved, whichever family the model has.
    segment_design = build_segment_design(model, cells)
    nuisance_parameters = [known_family.nuisance for known_family in FAMILIES.values() if known_family.nuisance]
    own_coords = label_dims(cells) | {dim: [] for nuisance in nuisance_parameters for dim in nuisance.dims}
    check_name_clashes(model, own_coords, family.simulated_names)
    coords = label_dims(cells) | collect_extra_coords(model, cells, segment_design)
    return Problem(model, family, cell_statistics, build_long_form(cell_statistics), coords, segment_design)


def build_pymc_model(problem: Problem, *, reusable: bool = False) -> "pm.Model":
    """Build the PyMC model of one problem.

    Parameters
    ----------
    problem : Problem
    reusable : bool
        Hold data and parameters of priors in `pm.Data`, so that a compiled model can take others.
    """
    import pymc as pm

    model, long_cells = problem.model, problem.long_cells
    hold_value = hold_as_data if reusable else hold_as_constant
    coords = {**problem.coords, "cell": list(map(str, long_cells["cell"].values))}

    with pm.Model(coords=coords) as pymc_model:
        coefficient_builder = prepare_builder(model, problem.segment_design, len(problem.coords["segment"]), hold_value)
        cell_message = _approximate_cells(problem, hold_value) if reusable else None
        coefficient_variables: dict[str, TensorVariable] = {}
        offset = None
        # Baselines first: effects may be tied to their offsets.
        for coefficient in reversed(list_coefficients(model)):
            tied_offset = offset if coefficient.dims != ("segment",) else None
            coefficient_message = cell_message and _select_message(
                coefficient, cell_message, coefficient_variables.get("baseline")
            )
            coefficient_variables[coefficient.name], offset = coefficient_builder.add_coefficient(
                coefficient, tied_offset, coefficient_message
            )
        nuisance_variables = _add_nuisance(problem, hold_value)

        eta_by_part = {
            part.prefix: _compute_predictor(
                long_cells,
                coefficient_variables[f"{part.prefix}effect"],
                coefficient_variables.get(f"{part.prefix}baseline"),
            )
            for part in problem.family.listed_parts
        }
        problem.family.add_likelihood(long_cells, eta_by_part.get("", eta_by_part), nuisance_variables, hold_value)
    return pymc_model


def _approximate_cells(problem: Problem, hold_value: ValueHolder) -> GaussianMessage | None:
    """Approximate every cell's likelihood in its linear predictor, (segment, arm); None where it has two of them."""
    if problem.family.cell_likelihood is None:
        return None
    eta_centres, eta_precisions = problem.family.cell_likelihood.approximate_by_normal(problem.cell_statistics)
    return GaussianMessage(hold_value("pull", eta_centres * eta_precisions), hold_value("precision", eta_precisions))


def _select_message(
    coefficient: Coefficient, cell_message: GaussianMessage, baseline: "TensorVariable | None"
) -> GaussianMessage:
    """Select the message about one coefficient: control cells tell of baselines, and given these all others of effects.

    With message x ~ Normal(at, 1 / precision) of eta, that of an effect is eta less the segment's baseline.
    """
    if coefficient.dims == ("segment",):
        return GaussianMessage(cell_message.information[:, 0], cell_message.precision[:, 0])
    if baseline is None:
        return cell_message
    return GaussianMessage(cell_message.information[:, 1:], cell_message.precision[:, 1:]).without(baseline[:, None])


def _add_nuisance(problem: Problem, hold_value: ValueHolder) -> "dict[str, TensorVariable]":
    """Add the nuisance parameters of the likelihood, by name."""
    nuisance = problem.family.nuisance
    if nuisance is None or problem.model.nuisance is None:
        return {}
    add_variable = add_ordered_variable if nuisance.is_ordered else add_prior_variable
    prior = problem.model.nuisance.stated_priors[nuisance.name]
    return {nuisance.name: add_variable(nuisance.name, prior, dims=nuisance.dims, hold_value=hold_value)}


def _compute_predictor(
    long_cells: xr.Dataset, effect: "TensorVariable", baseline: "TensorVariable | None"
) -> "TensorVariable":
    """Compute eta of every cell; the control's effect is the constant 0."""
    import pytensor.tensor as pt

    segment_index, arm_index = long_cells["segment_index"].values, long_cells["arm_index"].values
    # Without a baseline (published estimates) there are no control cells.
    if baseline is None:
        return effect[segment_index, arm_index - 1]
    effect_with_control = pt.concatenate([pt.zeros((effect.shape[0], 1)), effect], axis=1)
    return baseline[segment_index] + effect_with_control[segment_index, arm_index]


def list_stated_priors(model: Model) -> dict[str, Distribution]:
    """List every prior that the model file states, by the name of its variable."""
    return {name: hyperparameter.prior for name, hyperparameter in collect_hyperparameters(model).items()}
