"""The contract of a family: what every outcome's file defines, by the same names in the same order.

s is a segment, a an arm, i a unit; eta the linear predictor of a cell, on the link scale.

cell_statistics   sufficient statistics, dims (segment, arm, …); the control is the first arm
long_cells        the cells that hold data, dim cell (`bayes_hte.model.long_form.build_long_form`)
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from bayes_hte.errors import ModelError
from bayes_hte.model.families.cell_likelihood import CellLikelihood, FloatArray
from bayes_hte.model.long_form import ParameterDraws
from bayes_hte.model.priors import ValueHolder
from bayes_hte.spec.cell_table import CellKind, EffectScale
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.family_rules import FAMILY_RULES
from bayes_hte.spec.model import Model

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


LinkName = Literal["identity", "log", "logit"]


def label_no_dims(cells: xr.Dataset) -> dict[str, list[str]]:
    """Return no labels, for a family without a dim of its own."""
    return {}


def keep_cells(cells: xr.Dataset) -> xr.Dataset:
    """Return the cells as they are."""
    return cells


def list_no_misfits(cell_statistics: xr.Dataset, parameter_draws: ParameterDraws) -> list[str]:
    """Return no sentences, for a family without a check of its own assumptions."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class NuisanceParameter:
    """A parameter of the likelihood that all segments share, and how its prior is told to people.

    Attributes
    ----------
    name : str
        The key in the table [nuisance] of a model file.
    dims : tuple of str
        ``("variant",)`` for one value per arm, the control included, or a dim of the family's own.
    index_letter : str
        Index of its values in formulas.
    is_ordered : bool
        Whether its values ascend.
    describe_prior : callable
        (prior, phrase_amount) -> a sentence on what the prior implies; `phrase_amount` writes a number on the link
        scale with its unit.
    label_dims : callable
        cells -> labels of the dims of the family's own.
    """

    name: str
    dims: tuple[str, ...]
    index_letter: str
    is_ordered: bool = False
    describe_prior: Callable[[Distribution, Callable[[float], str]], str]
    label_dims: Callable[[xr.Dataset], dict[str, list[str]]] = label_no_dims


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomePart:
    """One of the parts that an outcome is made of, each with a linear predictor of its own.

    Attributes
    ----------
    prefix : str
        Begins the names of the part's coefficients.
    title, link_scale_name : str
        The part, and the scale of its effects, in tables.
    prior_phrase, effect_phrase : str
        What priors are of, and what effects are on, in sentences, with a space before.
    link : str
    ratio_name : str or None
        Name of exp(effect), for sentences.
    """

    prefix: str
    title: str
    link_scale_name: str
    prior_phrase: str
    effect_phrase: str
    link: LinkName
    ratio_name: str | None


@dataclass(frozen=True, slots=True)
class StandIn:
    """Cells and a link for which a family gives draws of one's own their raw estimates and inverse link.

    Attributes
    ----------
    cell_kind : str
        Kind of the cell table.
    link : str
        Scale that the effects were drawn on.
    adapt_cells : callable
        cells -> cells with the statistics that the family needs.
    """

    cell_kind: CellKind
    link: LinkName
    adapt_cells: Callable[[xr.Dataset], xr.Dataset] = keep_cells


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of outcome: its statistics, its likelihood, what is reported of it, and what people are told.

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
    formula_lines : tuple of str
        The likelihood as lines of mathematics.
    outcome_sentence : str
        What is assumed of outcomes, and what effects are.
    baseline_noun : str
        What a baseline is of the control, once through the inverse link.
    baseline_sentence : str or None
        The sentence on baselines where their mean has no prior.
    pymc_lines : tuple of str
        The likelihood as PyMC source, given eta and the arrays of the cell table.
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
    simulated_totals : mapping
        What the sum over cells is of a statistic among them, for those whose sum means something to a reader.
    compute_mean : callable
        (eta, parameter_draws, cell_statistics) -> mean outcome; eta has the dims of baseline or effect.
    estimate_raw_effects : callable
        (cell_statistics, scale) -> Dataset raw, raw_se with dims (segment, arm): each segment on its own.
    compute_effect_variance : callable
        (cell_statistics, parameter_draws) -> sampling variance of a segment's effect on the link scale, were
        it estimated alone; dims (…, segment, arm); infinite where an arm was not seen.
    measure_control_outcome : callable
        cell_statistics -> (mean, SD) of the control's outcome over units; what ``control_sd`` refers to.
    compute_control_mean : callable or None
        cell_statistics -> mean outcome of all the control's units; None where a planned effect on another scale
        than the link's has no meaning.
    convert_mean_to_link : callable
        mean outcome -> its link; differences of these are effects.
    nuisance : NuisanceParameter or None
        The parameter of the likelihood besides eta.
    parts : tuple of OutcomePart
        The parts of an outcome that has several linear predictors.
    split_parts : callable or None
        (model, cell_statistics) -> a model of another family and its statistics for every part; their likelihoods
        and priors have nothing in common.
    combine_parts : callable or None
        parameter_draws of all parts -> effect and baseline of the mean outcome.
    compute_between_variance : callable or None
        posterior of all parts -> variance of effects on the mean outcome between segments.
    compute_risk_by_time : callable or None
        (eta, parameter_draws, cell_statistics, until_time) -> probability of the event by a time.
    compute_restricted_mean : callable or None
        (eta, parameter_draws, cell_statistics, until_time) -> mean time without the event up to a time.
    list_misfits : callable
        (cell_statistics, parameter_draws) -> sentences on what the data say against the family's own assumptions,
        with the way out; each marks the result as not reliable.
    stand_ins : tuple of StandIn
        The family's own kind of cells first.
    """

    name: str
    link: LinkName
    ratio_name: str | None
    mean_is_probability: bool
    formula_lines: tuple[str, ...]
    outcome_sentence: str
    baseline_noun: str = "mean"
    baseline_sentence: str | None = None
    pymc_lines: tuple[str, ...]
    select_statistics: Callable[[xr.Dataset], xr.Dataset]
    add_likelihood: Callable[[xr.Dataset, Any, "dict[str, TensorVariable]", ValueHolder], None]
    cell_likelihood: CellLikelihood | None
    compute_log_likelihood: Callable[[xr.Dataset, xr.DataArray, ParameterDraws], xr.DataArray]
    simulate_data: Callable[[xr.Dataset, xr.DataArray, ParameterDraws, np.random.Generator], dict[str, xr.DataArray]]
    simulated_names: tuple[str, ...]
    simulated_totals: Mapping[str, str] = field(default_factory=dict)
    compute_mean: Callable[[xr.DataArray, ParameterDraws, xr.Dataset], xr.DataArray]
    estimate_raw_effects: Callable[[xr.Dataset, EffectScale], xr.Dataset]
    compute_effect_variance: Callable[[xr.Dataset, ParameterDraws], xr.DataArray]
    measure_control_outcome: Callable[[xr.Dataset], tuple[float, float]]
    compute_control_mean: Callable[[xr.Dataset], float] | None
    convert_mean_to_link: Callable[[float], float]
    nuisance: NuisanceParameter | None = None
    parts: tuple[OutcomePart, ...] = ()
    split_parts: Callable[[Model, xr.Dataset], tuple[tuple[Model, xr.Dataset], ...]] | None = None
    combine_parts: Callable[[ParameterDraws], dict[str, xr.DataArray]] | None = None
    compute_between_variance: Callable[[xr.Dataset], xr.DataArray] | None = None
    compute_risk_by_time: Callable[[xr.DataArray, ParameterDraws, xr.Dataset, float], xr.DataArray] | None = None
    compute_restricted_mean: Callable[[xr.DataArray, ParameterDraws, xr.Dataset, float], xr.DataArray] | None = None
    list_misfits: Callable[[xr.Dataset, ParameterDraws], list[str]] = list_no_misfits
    stand_ins: tuple[StandIn, ...] = ()

    @property
    def has_baseline(self) -> bool:
        """Whether the control's mean is part of the model."""
        return FAMILY_RULES[self.name].has_baseline

    @property
    def listed_parts(self) -> tuple[OutcomePart, ...]:
        """The parts, or the whole outcome as the only one."""
        whole_outcome = OutcomePart(
            prefix="",
            title="",
            link_scale_name="",
            prior_phrase="",
            effect_phrase="",
            link=self.link,
            ratio_name=self.ratio_name,
        )
        return self.parts or (whole_outcome,)

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


def convert_mean_by_identity(mean_outcome: float) -> float:
    """Return the mean outcome itself, as the identity link does."""
    return mean_outcome


def convert_mean_by_log(mean_outcome: float) -> float:
    """Convert a mean outcome to its logarithm."""
    return math.log(mean_outcome)


def convert_mean_by_logit(mean_outcome: float) -> float:
    """Convert a probability to its log-odds."""
    return math.log(mean_outcome / (1 - mean_outcome))


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
