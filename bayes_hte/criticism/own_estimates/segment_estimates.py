"""Estimate every segment's coefficients from its own data alone, on the link scale: what checks of a fit compare with.

Estimates are normal with known standard errors, which is all that the checks need: they are after plain faults, and
cost milliseconds. Cells without events, whose log ratio does not exist, are estimated with half an event more.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.inference.exact import parts
from bayes_hte.model.coefficients import compute_centre_parts, place_segments
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.model.parameters import Coefficient, list_coefficients
from bayes_hte.model.problem import Problem
from bayes_hte.spec.cell_table import ARM, SEGMENT


@dataclass(frozen=True, slots=True, eq=False)
class SegmentEstimates:
    """Estimates of one coefficient in the segments that have data for it.

    Attributes
    ----------
    coefficient : Coefficient
        Its name is that of the part's own model, without a prefix.
    part_prefix : str
        Prefix of its variables in the posterior of the whole model.
    part_title : str
        The part of a two-part outcome; "" for others.
    problem : Problem
        Of the part, or the whole problem.
    arm_index : int or None
        Position among the treated arms; None for a baseline.
    arm : str
        The arm's name; "" for a baseline.
    segment_index : ndarray
        Positions of the segments.
    estimates, standard_errors : ndarray
        (segment,), on the link scale.
    covariance : ndarray or None
        (segment, segment), where published estimates depend on each other.
    """

    coefficient: Coefficient
    part_prefix: str
    part_title: str
    problem: Problem
    arm_index: int | None
    arm: str
    segment_index: NDArray[np.intp]
    estimates: FloatArray
    standard_errors: FloatArray
    covariance: FloatArray | None = None

    @property
    def count(self) -> int:
        """Number of segments with an estimate."""
        return len(self.estimates)

    def select_draws(self, posterior: xr.Dataset, suffix: str = "") -> xr.DataArray | None:
        """Select a variable of this coefficient, of its own arm; None where the model has none."""
        variable_name = f"{self.part_prefix}{self.coefficient.name}{suffix}"
        if variable_name not in posterior:
            return None
        draws = posterior[variable_name]
        return (
            draws.isel({ARM: self.arm_index}, drop=True) if ARM in draws.dims and self.arm_index is not None else draws
        )

    def average_segments(self, posterior: xr.Dataset) -> FloatArray:
        """Average the draws of every segment's coefficient; (segment,), of the segments with an estimate."""
        draws = self.select_draws(posterior)
        if draws is None:
            raise AssertionError(f"the posterior holds no {self.part_prefix}{self.coefficient.name}")
        return np.asarray(draws.mean(("chain", "draw")).values)[self.segment_index]

    def average_explained_part(self, posterior: xr.Dataset) -> FloatArray:
        """Average what levels and covariates add to each segment; (segment,), 0 where the model has neither."""
        prefix, problem = self.part_prefix, self.problem
        variables = {str(name).removeprefix(prefix): draws for name, draws in posterior.data_vars.items()}
        centre_parts = compute_centre_parts(self.coefficient, variables, place_segments(problem.segment_design))
        explained_part = np.zeros(problem.cell_statistics.sizes[SEGMENT])
        for name, part_draws in centre_parts.items():
            if name != "mean":
                own_draws = part_draws.isel({ARM: self.arm_index}) if ARM in part_draws.dims else part_draws
                explained_part = explained_part + own_draws.mean(("chain", "draw")).values
        return np.asarray(explained_part[self.segment_index])


def estimate_segments(problem: Problem) -> list[SegmentEstimates]:
    """Estimate baselines and effects of all segments; effects arm by arm, part by part."""
    if problem.model.amount is None:
        return _estimate_part(problem, "", "")
    return [
        estimates
        for part, part_problem in zip(problem.family.parts, parts.split(problem), strict=True)
        for estimates in _estimate_part(part_problem, part.prefix, part.title)
    ]


def _estimate_part(problem: Problem, part_prefix: str, part_title: str) -> list[SegmentEstimates]:
    """Estimate the coefficients of an outcome of one part."""
    coefficients = {each.name: each for each in list_coefficients(problem.model)}
    cell_centres, cell_precisions = problem.family.checked_cell_likelihood.approximate_by_normal(
        problem.cell_statistics
    )
    segment_estimates = []
    baseline = coefficients.get("baseline")
    if baseline is not None:
        with np.errstate(divide="ignore"):
            baseline_se = cell_precisions[:, 0] ** -0.5
        segment_estimates.append(
            _keep_known(problem, baseline, (part_prefix, part_title), None, (cell_centres[:, 0], baseline_se))
        )
    for arm_index in range(len(problem.coords["arm"])):
        numbers = _estimate_effects(problem, arm_index, cell_centres, cell_precisions)
        segment_estimates.append(
            _keep_known(problem, coefficients["effect"], (part_prefix, part_title), arm_index, numbers)
        )
    return [each for each in segment_estimates if each.count]


def _estimate_effects(
    problem: Problem, arm_index: int, cell_centres: FloatArray, cell_precisions: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Estimate the effects of an arm and their standard errors, (segment,) each; infinite where nothing is known."""
    with np.errstate(divide="ignore"):
        if not problem.family.has_baseline:
            return cell_centres[:, arm_index], cell_precisions[:, arm_index] ** -0.5
        # Var(η₁ − η₀) = 1 / precision₁ + 1 / precision₀
        estimates = cell_centres[:, arm_index + 1] - cell_centres[:, 0]
        standard_errors = (1 / cell_precisions[:, arm_index + 1] + 1 / cell_precisions[:, 0]) ** 0.5
    # Where all cells share levels or intervals, a cell's own guess is too rough to be compared with another arm's.
    if not problem.family.checked_cell_likelihood.nuisance_per_arm:
        raw_effects = problem.family.estimate_raw_effects(problem.cell_statistics, "link").transpose(SEGMENT, ARM)
        raw, raw_se = (raw_effects[name].values[:, arm_index] for name in ("raw", "raw_se"))
        is_known = np.isfinite(raw) & np.isfinite(raw_se)
        return np.where(is_known, raw, estimates), np.where(is_known, raw_se, standard_errors)
    return estimates, standard_errors


def _keep_known(
    problem: Problem,
    coefficient: Coefficient,
    part_names: tuple[str, str],
    arm_index: int | None,
    numbers: tuple[FloatArray, FloatArray],
) -> SegmentEstimates:
    """Keep the segments whose estimate and standard error are numbers."""
    estimates, standard_errors = numbers
    is_known = np.isfinite(estimates) & np.isfinite(standard_errors) & (standard_errors > 0)
    covariance = problem.cell_statistics.get("covariance")
    return SegmentEstimates(
        coefficient,
        *part_names,
        problem,
        arm_index,
        "" if arm_index is None else problem.coords["arm"][arm_index],
        np.flatnonzero(is_known),
        estimates[is_known],
        standard_errors[is_known],
        None if covariance is None else covariance.values[np.ix_(is_known, is_known)],
    )
