"""The log density of one cell as a function of its linear predictor: what the fast engine needs of a family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.model.long_form import ParameterDraws

FloatArray = NDArray[np.float64]
ArmCellData = Mapping[str, FloatArray]
"""Arrays that a family's `CellLikelihood` needs of one arm's cells, by name; the last axis is the segment."""


@dataclass(frozen=True, slots=True)
class CellLikelihood:
    """Log density of one cell as a function of its linear predictor eta: all that the fast engine needs of a family.

    Plain NumPy, vectorised over whatever comes before the last axis. Cells without data give 0.

    Attributes
    ----------
    pack_arrays : callable
        cell_statistics or long_cells -> arrays by name, constants included; the axes of the cells come last.
    compute_log_density : callable
        (arm_data, eta, nuisance_values) -> log density; nuisance_values are those of the arm, or None.
    compute_derivatives : callable
        (arm_data, eta, nuisance_values) -> (first derivative, minus the second or its expectation) in eta.
    guess_eta : callable
        arm_data -> a value of eta near which the data are informative; 0 for cells without data.
    is_quadratic : bool
        Whether the log density is quadratic in eta, so that its integrals have a closed form.
    nuisance_name : str or None
        Name of the nuisance parameter that the log density needs.
    nuisance_per_arm : bool
        Whether the nuisance parameter has one value per arm; else the axis of its values comes first: (value, …).
    compute_nuisance_density : callable or None
        (cell_statistics, values (point, value)) -> log density of what depends on the nuisance parameter alone.
    guess_nuisance : callable or None
        cell_statistics -> values of the nuisance parameter to start from.
    """

    pack_arrays: Callable[[xr.Dataset], dict[str, FloatArray]]
    compute_log_density: Callable[[ArmCellData, FloatArray, FloatArray | None], FloatArray]
    compute_derivatives: Callable[[ArmCellData, FloatArray, FloatArray | None], tuple[FloatArray, FloatArray]]
    guess_eta: Callable[[ArmCellData], FloatArray]
    is_quadratic: bool
    nuisance_name: str | None = None
    nuisance_per_arm: bool = True
    compute_nuisance_density: Callable[[xr.Dataset, FloatArray], FloatArray] | None = None
    guess_nuisance: Callable[[xr.Dataset], FloatArray] | None = None

    def select_arm_nuisance(self, natural_values: Mapping[str, FloatArray], arm: int) -> FloatArray | None:
        """Select the nuisance values of one arm from points: dims (point, 1), or (value, point, 1)."""
        if self.nuisance_name is None:
            return None
        nuisance_values = natural_values[self.nuisance_name]
        if self.nuisance_per_arm:
            return nuisance_values[:, arm, None]
        # Contiguous, for densities loop over the values and read one row of points at a time.
        return np.ascontiguousarray(nuisance_values.T)[:, :, None]

    def approximate_by_normal(self, cell_statistics: xr.Dataset) -> tuple[FloatArray, FloatArray]:
        """Approximate every cell's likelihood by a normal one in eta.

        Returns
        -------
        centres, precisions : ndarray
            (segment, arm); both are 0 where there are no data.
        """
        cell_statistics = cell_statistics.transpose("segment", "arm", ...)
        packed_arrays = self.pack_arrays(cell_statistics)
        rough_nuisance = (
            {}
            if self.nuisance_name is None or self.guess_nuisance is None
            else {self.nuisance_name: self.guess_nuisance(cell_statistics)[None]}
        )
        centres, precisions = [], []
        for arm in range(cell_statistics.sizes["arm"]):
            arm_data = {name: np.ascontiguousarray(values[..., arm]) for name, values in packed_arrays.items()}
            centres.append(self.guess_eta(arm_data))
            arm_nuisance = self.select_arm_nuisance(rough_nuisance, arm)
            # precision = −∂² log p / ∂eta² at the centre
            precisions.append(self.compute_derivatives(arm_data, centres[-1][None], arm_nuisance)[1][0])
        # A cell whose guess or curvature is no number, or whose curvature is negative, says nothing: precision 0.
        return np.nan_to_num(np.stack(centres, axis=1)), np.maximum(np.nan_to_num(np.stack(precisions, axis=1)), 0.0)

    def compute_log_likelihood(
        self, long_cells: xr.Dataset, eta: xr.DataArray, parameter_draws: ParameterDraws
    ) -> xr.DataArray:
        """Compute the log density of each cell of the long form for draws of eta, dims (…, cell)."""
        sample_dims = [dim for dim in eta.dims if dim != "cell"]
        ordered_eta = eta.transpose(*sample_dims, "cell")
        log_density: xr.DataArray = ordered_eta.copy(
            data=self.compute_log_density(self.pack_arrays(long_cells), ordered_eta.values, None)
        )
        return log_density.transpose(*eta.dims)
