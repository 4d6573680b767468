"""Build the problem that engines solve: a model and a cell table that fit each other, checked once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from bayes_hte.errors import DataError, ModelError
from bayes_hte.model.families import FAMILIES, Family, select_model_statistics
from bayes_hte.model.long_form import build_long_form, label_dims
from bayes_hte.model.name_clashes import check_colons, check_name_clashes
from bayes_hte.model.parameters import (
    SegmentDesign,
    build_segment_design,
    collect_extra_coords,
    collect_hyperparameters,
    expand_dimensions,
)
from bayes_hte.model.priors import (
    resolve_units,
)
from bayes_hte.spec import cell_table
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Model

if TYPE_CHECKING:
    pass


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
    cell_statistics = select_model_statistics(cells, model)
    if model.units == "control_sd":
        model = _state_in_outcome_units(model, family, cell_statistics)
    segment_design = build_segment_design(model, cells)
    # The dims of all families' nuisance parameters are reserved, whichever family the model has.
    nuisance_parameters = [known_family.nuisance for known_family in FAMILIES.values() if known_family.nuisance]
    own_coords = label_dims(cells) | {dim: [] for nuisance in nuisance_parameters for dim in nuisance.dims}
    check_name_clashes(model, own_coords, family.simulated_names)
    coords = label_dims(cells) | collect_extra_coords(model, cells, segment_design)
    return Problem(model, family, cell_statistics, build_long_form(cell_statistics), coords, segment_design)


def _state_in_outcome_units(model: Model, family: Family, cell_statistics: xr.Dataset) -> Model:
    """State the priors of a model in the outcome's own units instead of the control's SDs."""
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
    return resolve_units(model, control_mean=control_mean, control_sd=control_sd)


def list_stated_priors(model: Model) -> dict[str, Distribution]:
    """List every prior that the model file states, by the name of its variable."""
    return {name: hyperparameter.prior for name, hyperparameter in collect_hyperparameters(model).items()}
