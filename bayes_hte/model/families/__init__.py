"""Outcome families: one file holds everything about one kind of outcome.

To add one:

1. `model/families/<name>.py`: the functions and the value FAMILY of `family.Family`, in the order of the other files.
2. Here: its module in the imports, and its line in the registry.
3. `spec/family_rules.py`: its line, which tables and keys its model files have. A nuisance parameter of a new name is
   also a field of `Nuisance` in `spec/model.py`, whose docstrings name the families.
4. `models/<use>.toml`: a model with a reason beside every prior; its statistics among the keys of
   `docs/models_readme.py`, which is then run.
5. `tests/support/example_cells.py` and `example_structures.py`: a small cell table and a model. The tests of all
   families then hold derivatives, PyMC source, simulations and engines to each other.
6. `tests/model/families/`: its oracle, the likelihood from the distribution's own definition. And a design in
   `benchmarks/calibration_designs.py`, for simulation-based calibration.

Cells that no reader makes yet also need a kind in `spec/cell_table.py`. Nothing else knows a family by its name.
"""

from collections.abc import Mapping
from typing import Final

import xarray as xr

from bayes_hte.model.families import (
    binomial,
    estimate,
    mean,
    negative_binomial,
    normal,
    ordinal,
    piecewise_exponential,
    poisson,
    two_part,
)
from bayes_hte.model.families.family import Family
from bayes_hte.spec.model import Model

_FAMILIES_IN_ORDER = (
    binomial.FAMILY,
    normal.FAMILY,
    mean.FAMILY,
    estimate.FAMILY,
    poisson.FAMILY,
    negative_binomial.FAMILY,
    two_part.FAMILY,
    ordinal.FAMILY,
    piecewise_exponential.FAMILY,
)
FAMILIES: Final[Mapping[str, Family]] = {family.name: family for family in _FAMILIES_IN_ORDER}
"""Every family by its name in a model file."""


def select_model_statistics(cells: xr.Dataset, model: Model) -> xr.Dataset:
    """Select the statistics of the cells that a model's family needs, with the variances that the model asks for."""
    stated_options = {} if model.unit_variance is None else {"unit_variance": model.unit_variance}
    return FAMILIES[model.family].select_statistics(cells.assign_attrs(stated_options))


__all__ = ["FAMILIES", "Family", "select_model_statistics"]
