"""Build the PyMC model of a problem, with a name for every dim.

eta[cell] = baseline[segment of cell] + effect[segment of cell, arm of cell]     0 for the control
data[cell] ~ family(inverse_link(eta[cell]), nuisance)
"""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.model.parameters import collect_hyperparameters, list_coefficients
from bayes_hte.model.priors import (
    ValueHolder,
    add_ordered_variable,
    add_prior_variable,
    hold_as_constant,
    hold_as_data,
)
from bayes_hte.model.problem import Problem
from bayes_hte.model.pymc.centering import GaussianMessage
from bayes_hte.model.pymc.pooling import CoefficientBuilder, add_between_scales

if TYPE_CHECKING:
    import pymc as pm
    from pytensor.tensor.variable import TensorVariable


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

    coefficients = {coefficient.name: coefficient for coefficient in list_coefficients(model)}
    with pm.Model(coords=coords) as pymc_model:
        hyperparameters = collect_hyperparameters(model)
        coefficient_builder = CoefficientBuilder(
            hyperparameters,
            problem.segment_design,
            hold_value,
            segment_count=len(problem.coords["segment"]),
            arm_count=len(problem.coords["arm"]),
            cell_message=_approximate_cells(problem, hold_value) if reusable else None,
            between_scales=add_between_scales(hyperparameters, problem.coords, hold_value) if reusable else None,
        )
        coefficient_variables: dict[str, TensorVariable] = {}
        for part in problem.family.listed_parts:
            coefficient_variables |= coefficient_builder.add_coefficients(
                coefficients.get(f"{part.prefix}baseline"), coefficients[f"{part.prefix}effect"]
            )
        nuisance_variables = _add_nuisance(problem, hold_value)

        eta_by_part = {
            part.prefix: _compute_predictor(long_cells, coefficient_variables, part.prefix)
            for part in problem.family.listed_parts
        }
        problem.family.add_likelihood(long_cells, eta_by_part.get("", eta_by_part), nuisance_variables, hold_value)
    return pymc_model


def _approximate_cells(problem: Problem, hold_value: ValueHolder) -> GaussianMessage | None:
    """Approximate every cell's likelihood in its linear predictor, (segment, arm); None where it has two of them."""
    if problem.family.cell_likelihood is None:
        return None
    eta_centres, eta_precisions = problem.family.cell_likelihood.approximate_by_normal(problem.cell_statistics)
    # In one array: the time to compile grows with their number.
    message = hold_value("message", np.stack([eta_centres * eta_precisions, eta_precisions]))
    return GaussianMessage(message[0], message[1])


def _add_nuisance(problem: Problem, hold_value: ValueHolder) -> "dict[str, TensorVariable]":
    """Add the nuisance parameters of the likelihood, by name."""
    nuisance = problem.family.nuisance
    if nuisance is None or problem.model.nuisance is None:
        return {}
    add_variable = add_ordered_variable if nuisance.is_ordered else add_prior_variable
    prior = problem.model.nuisance.stated_priors[nuisance.name]
    return {nuisance.name: add_variable(nuisance.name, prior, dims=nuisance.dims, hold_value=hold_value)}


def _compute_predictor(
    long_cells: xr.Dataset, coefficient_variables: "dict[str, TensorVariable]", part_prefix: str
) -> "TensorVariable":
    """Compute eta of every cell from a part's coefficients; the control's effect is the constant 0."""
    import pytensor.tensor as pt

    effect = coefficient_variables[f"{part_prefix}effect"]
    baseline = coefficient_variables.get(f"{part_prefix}baseline")
    segment_index, arm_index = long_cells["segment_index"].values, long_cells["arm_index"].values
    # Without a baseline (published estimates) there are no control cells.
    if baseline is None:
        return effect[segment_index, arm_index - 1]
    # eta[cell] = baseline[segment] + (0, effect[segment])[arm]
    effect_with_control = pt.concatenate([pt.zeros((effect.shape[0], 1)), effect], axis=1)
    return baseline[segment_index] + effect_with_control[segment_index, arm_index]
