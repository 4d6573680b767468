"""What every family must say, by the same names in the same order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.errors import ModelError
from bayes_hte.layout import Parameters
from bayes_hte.priors import Given
from bayes_hte.schema import Scale

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


Array = NDArray[np.float64]
CellData = Mapping[str, Array]
"""What a family's `Curve` needs of one arm's cells, by name; the last axis of each array is the segment."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The log density of one cell as a function of its linear predictor: all that the fast engine asks.

    Plain NumPy, vectorised over whatever comes before the last axis. Cells without data give 0.

    Attributes
    ----------
    arrays : callable
        Statistics, dims (segment, arm), or long form, dim cell -> arrays by name, constants included; the axes of
        the cells come last.
    density : callable
        (arrays, eta, nuisance) -> log density; nuisance is that of the arm, or None.
    derivatives : callable
        (arrays, eta, nuisance) -> (first derivative, minus the second or its expectation) in eta.
    guess : callable
        arrays -> a value of eta near which the data are informative; 0 for cells without data.
    quadratic : bool
        Whether the log density is quadratic in eta, so that its integrals have a closed form.
    shared : str or None
        Name of the nuisance parameter that the density needs.
    each_arm : bool
        Whether it has one value per arm; else its values come first: (value, …).
    nuisance : callable or None
        (statistics, values (point, value)) -> log density of what depends on it alone.
    rough : callable or None
        statistics -> values of the nuisance parameter to start from.
    """

    arrays: Callable[[xr.Dataset], dict[str, Array]]
    density: Callable[[CellData, Array, Array | None], Array]
    derivatives: Callable[[CellData, Array, Array | None], tuple[Array, Array]]
    guess: Callable[[CellData], Array]
    quadratic: bool
    shared: str | None = None
    each_arm: bool = True
    nuisance: Callable[[xr.Dataset, Array], Array] | None = None
    rough: Callable[[xr.Dataset], Array] | None = None

    def values(self, natural: Mapping[str, Array], arm: int) -> Array | None:
        """What one arm's density needs of the nuisance parameter, from points: (point, 1), or (value, point, 1)."""
        if self.shared is None:
            return None
        found = natural[self.shared]
        return found[:, arm, None] if self.each_arm else np.ascontiguousarray(found.T)[:, :, None]

    def normal(self, statistics: xr.Dataset) -> tuple[Array, Array]:
        """Every cell's likelihood as that of a normal eta: where, and its precision; (segment, arm), 0 without data."""
        statistics = statistics.transpose("segment", "arm", ...)
        arrays = self.arrays(statistics)
        rough = {} if self.shared is None or self.rough is None else {self.shared: self.rough(statistics)[None]}
        at, precision = [], []
        for arm in range(statistics.sizes["arm"]):
            data = {name: np.ascontiguousarray(values[..., arm]) for name, values in arrays.items()}
            at.append(self.guess(data))
            precision.append(self.derivatives(data, at[-1][None], self.values(rough, arm))[1][0])
        return np.nan_to_num(np.stack(at, axis=1)), np.maximum(np.nan_to_num(np.stack(precision, axis=1)), 0.0)

    def log_likelihood(self, cells: xr.Dataset, eta: xr.DataArray, parameters: Parameters) -> xr.DataArray:
        """The same for draws: long form, linear predictor with dims (…, cell) -> log density of each cell."""
        leading = [dim for dim in eta.dims if dim != "cell"]
        ordered = eta.transpose(*leading, "cell")
        density: xr.DataArray = ordered.copy(data=self.density(self.arrays(cells), ordered.values, None))
        return density.transpose(*eta.dims)


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of outcome.

    Attributes
    ----------
    name : str
        As in a model file.
    link : str
        ``logit``, ``log`` or ``identity``.
    ratio : str or None
        What exp(effect on the link scale) is called; None for the identity link.
    percent : bool
        Whether absolute effects are differences of probabilities.
    has_baseline : bool
        Whether the control's mean is part of the model.
    statistics : callable
        cells -> the sufficient statistics, dims (segment, arm, …); raises ModelError if the cells lack them.
    likelihood : callable
        (long form, eta, nuisance variables, given) -> None; adds the observed variables to the PyMC model. `given`
        puts data into it.
    curve : Curve or None
        The log density of one cell, for the fast engine; None where a family is made of two others.
    log_likelihood : callable
        (long form, eta, parameters) -> log density of each cell, dims (…, cell).
    predictive : callable
        (long form, eta, parameters, rng) -> replicated data, by the name of the statistic.
    predictive_names : tuple of str
        These names.
    mean : callable
        (eta, parameters, statistics) -> mean outcome; eta has the dims of baseline or effect.
    raw : callable
        (statistics, scale) -> Dataset raw, raw_se with dims (segment, arm): each segment on its own.
    effect_variance : callable
        (statistics, parameters) -> sampling variance of a segment's effect on the link scale, were
        it estimated alone; dims (…, segment, arm); infinite where an arm was not seen.
    control_location : callable
        statistics -> (mean, SD) of the control's outcome over units; what ``control_sd`` refers to.
    """

    name: str
    link: Literal["logit", "log", "identity"]
    ratio: str | None
    percent: bool
    has_baseline: bool
    statistics: Callable[[xr.Dataset], xr.Dataset]
    likelihood: Callable[[xr.Dataset, Any, "dict[str, TensorVariable]", Given], None]
    curve: Curve | None
    log_likelihood: Callable[[xr.Dataset, xr.DataArray, Parameters], xr.DataArray]
    predictive: Callable[[xr.Dataset, xr.DataArray, Parameters, np.random.Generator], dict[str, xr.DataArray]]
    predictive_names: tuple[str, ...]
    mean: Callable[[xr.DataArray, Parameters, xr.Dataset], xr.DataArray]
    raw: Callable[[xr.Dataset, Scale], xr.Dataset]
    effect_variance: Callable[[xr.Dataset, Parameters], xr.DataArray]
    control_location: Callable[[xr.Dataset], tuple[float, float]]

    @property
    def the_curve(self) -> Curve:
        """The curve of a family that has one."""
        if self.curve is None:
            raise AssertionError(f'family "{self.name}" is made of two parts, each with a curve of its own')
        return self.curve


def identity(eta: xr.DataArray, parameters: Parameters, statistics: xr.Dataset) -> xr.DataArray:
    """The mean under the identity link."""
    return eta


def bounded_exp(eta: Array) -> Array:
    """e^eta, finite wherever eta is: an arm that was not seen has an exposure of 0, and 0 × ∞ is no number."""
    return np.asarray(np.exp(np.minimum(eta, 80.0 if eta.dtype == np.float32 else 700.0)))


def exponential(eta: xr.DataArray, parameters: Parameters, statistics: xr.Dataset) -> xr.DataArray:
    """The mean under the log link."""
    return eta.copy(data=np.exp(eta.values))


def no_spread(cells: xr.Dataset) -> tuple[float, float]:
    """Of outcomes whose effects are ratios: their priors need no unit."""
    raise ModelError('units = "control_sd" needs an identity link; write priors on the link scale (units = "link")')


def on_log_scale(mean: xr.DataArray, variance: xr.DataArray) -> xr.Dataset:
    """Log ratio of means with the delta method's standard error; NaN where a mean is 0."""
    there = mean.where(mean > 0)
    return against_control(there.copy(data=np.log(there.values)), variance / there**2, "link")


def need(cells: xr.Dataset, names: list[str], *, family: str, why: str) -> xr.Dataset:
    """Pick the statistics a family needs, or say what the cells hold instead."""
    missing = [name for name in names if name not in cells]
    if missing:
        found = sorted(map(str, cells.data_vars))
        raise ModelError(f'family "{family}" needs {", ".join(names)} of every cell, the cells hold {found}: {why}')
    return cells[names].assign_attrs(cells.attrs)


def against_control(mean: xr.DataArray, variance: xr.DataArray, scale: Scale) -> xr.Dataset:
    """Difference in means or ratio less one, with its standard error; dims (segment, arm) without the control.

    The ratio's error is the delta method's: relative variance of the treated mean plus that of the control's.
    """
    control, control_variance = mean.isel(arm=0, drop=True), variance.isel(arm=0, drop=True)
    treated, treated_variance = mean.isel(arm=slice(1, None)), variance.isel(arm=slice(1, None))
    if scale == "relative":
        with np.errstate(divide="ignore", invalid="ignore"):
            raw = treated / control.where(control != 0) - 1
            spread = treated_variance + (treated / control) ** 2 * control_variance
            return xr.Dataset({"raw": raw, "raw_se": np.sqrt(spread) / abs(control.where(control != 0))})
    return xr.Dataset({"raw": treated - control, "raw_se": np.sqrt(treated_variance + control_variance)})


def spread_over_units(cells: xr.Dataset) -> tuple[float, float]:
    """Mean and SD of the control's outcome over its units, from moments: within and between segments."""
    control = cells.isel(arm=0)
    n, means = control["n"], control["mean"].fillna(0.0)
    total = float(n.sum())
    mean = float((n * means).sum() / total)
    ss = float((control["ss"] + n * (means - mean) ** 2).where(n > 0, 0.0).sum())
    return mean, float(np.sqrt(ss / max(total - 1, 1)))
