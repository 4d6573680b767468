"""The contract of a family: what every outcome's file defines, by the same names in the same order.

cell_statistics   sufficient statistics, dims (segment, arm, …); the control is the first arm
long_cells        the cells that hold data, dim cell (`bayes_hte.model.long_form.build_long_form`)
arm_data          arrays of one arm's cells, for the fast engine; the last axis is the segment
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.errors import ModelError
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec.cell_table import EffectScale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


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


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of outcome: its statistics, its likelihood, and what is reported of it.

    Attributes
    ----------
    name : str
        The name in a model file.
    link : str
        ``logit``, ``log`` or ``identity``.
    ratio_name : str or None
        Name of exp(effect on the link scale), for sentences; None for the identity link.
    mean_is_probability : bool
        Whether the mean outcome is a probability, so that absolute effects are differences of probabilities.
    has_baseline : bool
        Whether the control's mean is part of the model.
    select_statistics : callable
        cells -> cell_statistics; raises ModelError if the cells lack them.
    add_likelihood : callable
        (long_cells, eta, nuisance_variables, hold_value) -> None; adds the observed variables to the PyMC model.
        `hold_value` puts data into it.
    cell_likelihood : CellLikelihood or None
        The log density of one cell, for the fast engine; None where a family is made of two others.
    compute_log_likelihood : callable
        (long_cells, eta, parameter_draws) -> log density of each cell, dims (…, cell).
    simulate_data : callable
        (long_cells, eta, parameter_draws, rng) -> replicated data, by the name of the statistic.
    simulated_names : tuple of str
        Names of the statistics that `simulate_data` replicates.
    compute_mean : callable
        (eta, parameter_draws, cell_statistics) -> mean outcome; eta has the dims of baseline or effect.
    estimate_raw_effects : callable
        (cell_statistics, scale) -> Dataset raw, raw_se with dims (segment, arm): each segment on its own.
    compute_effect_variance : callable
        (cell_statistics, parameter_draws) -> sampling variance of a segment's effect on the link scale, were
        it estimated alone; dims (…, segment, arm); infinite where an arm was not seen.
    measure_control_outcome : callable
        cell_statistics -> (mean, SD) of the control's outcome over units; what ``control_sd`` refers to.
    """

    name: str
    link: Literal["logit", "log", "identity"]
    ratio_name: str | None
    mean_is_probability: bool
    has_baseline: bool
    select_statistics: Callable[[xr.Dataset], xr.Dataset]
    add_likelihood: Callable[[xr.Dataset, Any, "dict[str, TensorVariable]", ValueHolder], None]
    cell_likelihood: CellLikelihood | None
    compute_log_likelihood: Callable[[xr.Dataset, xr.DataArray, ParameterDraws], xr.DataArray]
    simulate_data: Callable[[xr.Dataset, xr.DataArray, ParameterDraws, np.random.Generator], dict[str, xr.DataArray]]
    simulated_names: tuple[str, ...]
    compute_mean: Callable[[xr.DataArray, ParameterDraws, xr.Dataset], xr.DataArray]
    estimate_raw_effects: Callable[[xr.Dataset, EffectScale], xr.Dataset]
    compute_effect_variance: Callable[[xr.Dataset, ParameterDraws], xr.DataArray]
    measure_control_outcome: Callable[[xr.Dataset], tuple[float, float]]

    @property
    def checked_cell_likelihood(self) -> CellLikelihood:
        """The cell likelihood of a family that has a single one; two_part has none."""
        if self.cell_likelihood is None:
            raise AssertionError(f'family "{self.name}" is made of two parts, each with a curve of its own')
        return self.cell_likelihood


def compute_identity_mean(
    eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset
) -> xr.DataArray:
    """Return eta, the mean under the identity link."""
    return eta


def compute_bounded_exp(eta: FloatArray) -> FloatArray:
    """Compute e^eta, kept finite: an arm that was not seen has an exposure of 0, and 0 × ∞ is no number."""
    # e^88.7 is the largest single-precision number, e^709.8 the largest double.
    return np.asarray(np.exp(np.minimum(eta, 80.0 if eta.dtype == np.float32 else 700.0)))


def compute_exponential_mean(
    eta: xr.DataArray, parameter_draws: ParameterDraws, cell_statistics: xr.Dataset
) -> xr.DataArray:
    """Compute e^eta, the mean under the log link."""
    return eta.copy(data=np.exp(eta.values))


def refuse_control_sd(cell_statistics: xr.Dataset) -> tuple[float, float]:
    """Refuse priors in control SDs where effects are ratios, and need no unit."""
    raise ModelError('units = "control_sd" needs an identity link; write priors on the link scale (units = "link")')


def compare_on_log_scale(arm_means: xr.DataArray, arm_variances: xr.DataArray) -> xr.Dataset:
    """Estimate log ratios of means with the delta method's standard error; NaN where a mean is 0."""
    positive_means = arm_means.where(arm_means > 0)
    # Var log m ≈ Var m / m²
    return compare_with_control(
        positive_means.copy(data=np.log(positive_means.values)), arm_variances / positive_means**2, "link"
    )


def require_statistics(cells: xr.Dataset, statistic_names: list[str], *, family: str, why: str) -> xr.Dataset:
    """Select the statistics that a family needs, or raise ModelError with what the cells hold instead."""
    missing_names = [name for name in statistic_names if name not in cells]
    if missing_names:
        available_names = sorted(map(str, cells.data_vars))
        needed_names = ", ".join(statistic_names)
        raise ModelError(
            f'family "{family}" needs {needed_names} of every cell, the cells hold {available_names}: {why}'
        )
    return cells[statistic_names].assign_attrs(cells.attrs)


def compare_with_control(arm_means: xr.DataArray, arm_variances: xr.DataArray, scale: EffectScale) -> xr.Dataset:
    """Estimate differences in means, or ratios less one, with standard errors; dims (segment, arm) without the control.

    The ratio's error is the delta method's: relative variance of the treated mean plus that of the control's.
    """
    control_mean, control_variance = arm_means.isel(arm=0, drop=True), arm_variances.isel(arm=0, drop=True)
    treated_means, treated_variances = arm_means.isel(arm=slice(1, None)), arm_variances.isel(arm=slice(1, None))
    if scale == "relative":
        # Var(m₁ / m₀) ≈ (Var m₁ + (m₁ / m₀)² Var m₀) / m₀²
        with np.errstate(divide="ignore", invalid="ignore"):
            raw_ratio = treated_means / control_mean.where(control_mean != 0) - 1
            ratio_variance = treated_variances + (treated_means / control_mean) ** 2 * control_variance
            return xr.Dataset(
                {"raw": raw_ratio, "raw_se": np.sqrt(ratio_variance) / abs(control_mean.where(control_mean != 0))}
            )
    return xr.Dataset({"raw": treated_means - control_mean, "raw_se": np.sqrt(treated_variances + control_variance)})


def measure_control_from_moments(cell_statistics: xr.Dataset) -> tuple[float, float]:
    """Measure mean and SD of the control's outcome over its units, from moments within and between segments."""
    control_cells = cell_statistics.isel(arm=0)
    n, segment_means = control_cells["n"], control_cells["mean"].fillna(0.0)
    unit_total = float(n.sum())
    # SS = Σ_s (ss_s + n_s (mean_s − mean)²),   SD² = SS / (N − 1)
    overall_mean = float((n * segment_means).sum() / unit_total)
    total_squares = float((control_cells["ss"] + n * (segment_means - overall_mean) ** 2).where(n > 0, 0.0).sum())
    return overall_mean, float(np.sqrt(total_squares / max(unit_total - 1, 1)))
