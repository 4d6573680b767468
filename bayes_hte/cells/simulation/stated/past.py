"""Take a design from the past: shares, baselines and spread from cells, from a plan's data, or from a fit.

A segment's baseline is the control's mean, with one more unit that has the mean of all controls: a segment in which
nothing was seen gets that, and a probability is never 0 or 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import xarray as xr

from bayes_hte._support.validation import check_path, describe_value
from bayes_hte.cells.combine.planned_shares import read_planned_shares
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.cells.reading.level_order import list_levels
from bayes_hte.cells.simulation.outcomes.law import FloatGrid
from bayes_hte.cells.simulation.stated.segments import ArmDesign, PopulationDesign, StatedValues, build_population
from bayes_hte.cells.summaries.segment_covariates import list_segment_levels
from bayes_hte.errors import ArgumentError
from bayes_hte.spec import read_model, read_plan
from bayes_hte.spec.cell_table import (
    ARM,
    SEGMENT,
    VALUE,
    check_cell_table,
    get_cell_sizes,
    identify_kind,
    list_dimensions,
)
from bayes_hte.spec.files import find_model_file
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model

TruthSource = Literal["mean", "draw"]
"""Which effects of a fit are true: the posterior means, or in every experiment a draw of the posterior."""

FAMILY_OF_KIND: Mapping[str, str] = MappingProxyType(
    {
        "counts": "binomial",
        "moments": "mean",
        "means": "mean",
        "estimates": "estimate",
        "rates": "poisson",
        "histogram": "negative_binomial",
        "two_part": "two_part",
        "survival": "piecewise_exponential",
    }
)
"""The family that cells of a kind are simulated as, where nobody names one."""
MAX_ALPHA = 1e6
"""Counts that vary no more than a Poisson count: so large an alpha is no extra variation."""


@dataclass(frozen=True, slots=True)
class PastDesign:
    """What the past says of a design; each may be stated otherwise.

    Attributes
    ----------
    segments, arms
        With shares.
    family : str
    baseline : array
        Mean outcome of the control, (segment,).
    unit_count : int
        Units of all cells.
    options : mapping
        Of the outcome, such as ``sd``.
    outcome_name : str
    eta_draws : array or None
        Linear predictors of a fit's posterior, (draw, segment, arm): a single one for its mean.
    """

    segments: PopulationDesign
    arms: ArmDesign
    family: str
    baseline: StatedValues
    unit_count: int
    outcome_name: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    eta_draws: FloatGrid | None = None


def read_past(like: Any, family: str | None, truth: object) -> PastDesign:
    """Read a design from a cell table, a fit, or a plan file whose data exist.

    Raises
    ------
    ArgumentError
        If `like` is none of these, or says too little of the outcome's units.
    """
    if truth not in ("mean", "draw"):
        raise ArgumentError(f'truth is {describe_value(truth)}; it must be "mean" or "draw", of a fit\'s posterior')
    if isinstance(like, xr.Dataset):
        return read_past_cells(check_cell_table(like), family)
    if isinstance(like, str | Path):
        plan_path = check_path(like, "the plan")
        plan = read_plan(plan_path)
        cells = from_plan(plan, plan_path.parent)
        model_family = read_model(find_model_file(plan.model, plan_path.parent)).family
        return read_past_cells(cells, family or model_family)
    if not isinstance(getattr(like, "tree", None), xr.DataTree):
        raise ArgumentError(
            f"like is {describe_value(like)}; give a cell table, such as hte.cells.from_rows makes of rows, a fit, or "
            "the path of a plan"
        )
    return _read_fit(like.tree, truth)


def read_past_cells(cells: xr.Dataset, family: str | None) -> PastDesign:
    """Read a design from a cell table."""
    kind = identify_kind(cells)
    if family is None:
        family = "binomial" if kind == "moments" and "events" in cells else FAMILY_OF_KIND[kind]
    dims = list_dimensions(cells)
    sizes = get_cell_sizes(cells)
    size_grid = np.ones((cells.sizes[SEGMENT], cells.sizes[ARM])) if sizes is None else sizes.values
    keys = list_segment_levels(cells)
    population = build_population(
        dims,
        dict(zip(keys, np.maximum(size_grid.sum(axis=1), 1e-12), strict=True)),
        {dim: tuple(list_levels(cells, dim)) for dim in dims},
    )
    # The population has an order of its own, which that of merged tables may not be.
    cells = cells.isel({SEGMENT: [keys.index(levels) for levels in population.levels_by_segment]})
    baseline, options = _measure_outcome(cells, family)
    return PastDesign(
        population,
        _read_past_arms(cells, size_grid),
        family,
        baseline,
        max(int(cells["n"].sum()), 1) if "n" in cells else 20_000,
        str(cells.attrs["outcome"]),
        _label_options(options, population.labels),
    )


PER_SEGMENT = frozenset({"sd", "exposure", "alpha", "chance", "log_sd", "se"})
"""Options of an outcome that segments have their own number of."""


def _label_options(options: Mapping[str, Any], labels: list[str]) -> dict[str, Any]:
    """Put numbers of segments in the form in which a caller would state them, by label."""
    return {
        name: dict(zip(labels, value, strict=True)) if name in PER_SEGMENT and np.ndim(value) else value
        for name, value in options.items()
    }


def _read_past_arms(cells: xr.Dataset, size_grid: np.ndarray) -> ArmDesign:
    """Read the arms, with the planned shares of the units, or those that they had."""
    names = tuple(str(arm) for arm in cells[ARM].values)
    if not cells.attrs["control"]:
        return ArmDesign(("control", *names), np.full(len(names) + 1, 1 / (len(names) + 1)))
    planned_shares = read_planned_shares(cells)
    arm_sizes = cells["n"].sum(SEGMENT).values if "n" in cells else size_grid.sum(axis=0)
    shares = np.array([planned_shares[name] for name in names]) if planned_shares else arm_sizes / arm_sizes.sum()
    return ArmDesign(names, shares)


def _measure_outcome(cells: xr.Dataset, family: str) -> tuple[StatedValues, dict[str, Any]]:
    """Measure baselines, (segment,), and the options of the outcome's law."""
    statistic_name, measure = OUTCOME_MEASURES.get(family, ("", _measure_means))
    # A rate has events, too, but over an exposure and not among n units.
    if statistic_name not in cells or (family == "binomial" and "exposure" in cells):
        raise ArgumentError(
            f"cells with {', '.join(map(str, cells.data_vars))} do not say how outcomes of family {family!r} are "
            "spread; name the family that they were made for"
        )
    return measure(cells)


def _measure_events(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    control = cells.isel({ARM: 0})
    return _add_mean_unit(control["events"], control["n"]), {}


def _measure_estimates(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    return np.zeros(cells.sizes[SEGMENT]), {"se": cells["se"].mean(ARM).values}


def _add_mean_unit(total: Any, size: Any, unit_size: float = 1.0) -> StatedValues:
    """Divide totals by sizes, after adding to each segment one unit with the mean of all."""
    totals, sizes = np.nan_to_num(np.asarray(total, dtype=float)), np.asarray(size, dtype=float)
    overall_mean = totals.sum() / max(sizes.sum(), 1e-300)
    # (total_s + m e) / (size_s + e),   m the mean of all, e the size of a unit
    return np.asarray((totals + overall_mean * unit_size) / (sizes + unit_size))


def _pool_sd(ss: Any, freedom: Any) -> StatedValues:
    """Pool SDs over arms, (segment,); segments that have none take that of all."""
    segment_ss = np.nan_to_num(np.asarray(ss, dtype=float)).sum(axis=1)
    segment_freedom = np.maximum(np.asarray(freedom, dtype=float), 0.0).sum(axis=1)
    overall = segment_ss.sum() / max(segment_freedom.sum(), 1)
    if overall <= 0:
        raise ArgumentError("the outcome of the cells does not vary, so nothing is known of its spread; state it")
    is_known = (segment_freedom > 0) & (segment_ss > 0)
    return np.asarray(np.sqrt(np.where(is_known, segment_ss / np.maximum(segment_freedom, 1), overall)))


def _measure_means(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    n = cells["n"] if "n" in cells else xr.ones_like(cells["mean"])
    means = cells["mean"].fillna(0.0)
    # SS = se² n (n − 1) where a mean comes with its standard error
    ss = cells["ss"] if "ss" in cells else (cells["se"] ** 2 * n * np.maximum(n - 1, 1)).fillna(0.0)
    control = n.isel({ARM: 0})
    baseline = _add_mean_unit(means.isel({ARM: 0}) * control, control)
    return baseline, {"sd": _pool_sd(ss, np.maximum(n - 1, 1) * (n > 0))}


def _measure_rates(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    exposure = cells["exposure"].sum(ARM).values
    units = cells["n"].sum(ARM).values if "n" in cells else np.ones(len(exposure))
    unit_exposure = np.where(exposure > 0, exposure, exposure.sum()) / np.maximum(units, 1)
    control = cells.isel({ARM: 0})
    mean_exposure = float(exposure.sum() / max(units.sum(), 1))
    return _add_mean_unit(control["events"], control["exposure"], mean_exposure), {"exposure": unit_exposure}


def _measure_answers(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    histogram = cells.isel({ARM: 0})["histogram"].values.astype(float)
    # Levels are numbered from 1, whatever their numbers in the data; half a unit keeps every share above 0.
    level_count = histogram.shape[1]
    answers = (histogram.sum(axis=0) + 0.5) / (histogram.sum() + 0.5 * level_count)
    mean = _add_mean_unit(histogram @ np.arange(1, level_count + 1), histogram.sum(axis=1))
    return mean, {"answers": answers.tolist()}


def _measure_counts(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    control = cells.isel({ARM: 0})
    histogram, values = control["histogram"].values.astype(float), control[VALUE].values.astype(float)
    n = histogram.sum(axis=1)
    mean = _add_mean_unit(histogram @ values, n)
    # Var = m + m² / alpha, over all segments: Σ units (y − m_s)² / N = Σ n_s (m_s + m_s² / alpha) / N
    squares = (histogram * (values - mean[:, None]) ** 2).sum() / max(n.sum(), 1)
    extra = squares - (n * mean).sum() / max(n.sum(), 1)
    square_mean = (n * mean**2).sum() / max(n.sum(), 1)
    return mean, {"alpha": min(square_mean / extra, MAX_ALPHA) if extra > 0 else MAX_ALPHA}


def _measure_two_parts(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    control = cells.isel({ARM: 0})
    mean = _add_mean_unit(control["mean"].fillna(0.0) * control["n"], control["n"])
    log_sd = _pool_sd(cells["log_ss"], np.maximum(cells["positive"] - 1, 0))
    return mean, {"chance": _add_mean_unit(control["positive"], control["n"]), "log_sd": log_sd}


def _measure_survival(cells: xr.Dataset) -> tuple[StatedValues, dict[str, Any]]:
    control, horizon = cells.isel({ARM: 0}), float(cells.attrs["horizon"])
    failures, at_risk = control["failures"].values.astype(float), control["at_risk"].values
    overall_hazards = (failures.sum(axis=0) + 0.5) / np.maximum(at_risk.sum(axis=0), 1e-300)
    relative_hazards = overall_hazards / overall_hazards[0]
    start, end = cells["start"].values, cells["end"].values
    time_to_horizon = np.clip(np.minimum(end, horizon) - start, 0.0, None)
    # hazard of the first interval = Σ_j d_j / Σ_j relative hazard_j · time at risk_j
    weighted_time = at_risk @ relative_hazards
    unit_time = weighted_time.sum() / max(float(control["n"].sum()), 1)
    first_hazard = _add_mean_unit(failures.sum(axis=1), weighted_time, unit_time)
    risk = -np.expm1(-first_hazard * (relative_hazards @ time_to_horizon))
    return risk, {
        "breaks": end[:-1].tolist(),
        "relative_hazards": relative_hazards.tolist(),
        "horizon": horizon,
        "follow_up": float(end[-1]),
    }


OUTCOME_MEASURES: Mapping[str, tuple[str, Callable[[xr.Dataset], tuple[StatedValues, dict[str, Any]]]]] = (
    MappingProxyType(
        {
            "binomial": ("events", _measure_events),
            "normal": ("mean", _measure_means),
            "mean": ("mean", _measure_means),
            "estimate": ("estimate", _measure_estimates),
            "poisson": ("exposure", _measure_rates),
            "negative_binomial": ("histogram", _measure_counts),
            "ordinal": ("histogram", _measure_answers),
            "two_part": ("positive", _measure_two_parts),
            "piecewise_exponential": ("failures", _measure_survival),
        }
    )
)
"""The statistic that shows that cells are of a family, and how its baselines and options are measured."""


def _read_fit(fit_tree: xr.DataTree, truth: object) -> PastDesign:
    """Read a design from a fit: sizes and spread of its cells, baselines and effects of its posterior."""
    if "cells" not in fit_tree.children:
        raise ArgumentError("the fit has no cells, which say how units are spread; state segments, n and effects")
    cells, posterior = get_fitted_cells(fit_tree), fit_tree["posterior"].to_dataset()
    past = read_past_cells(cells, get_fitted_model(fit_tree).family)
    labels = past.segments.labels
    effect_draws = posterior["effect"].sel({SEGMENT: labels}).stack(sample=("chain", "draw"))
    effect = np.asarray(effect_draws.transpose("sample", SEGMENT, ARM).values)
    control_eta = np.zeros((*effect.shape[:2], 1))
    if "baseline" in posterior:
        baseline_draws = posterior["baseline"].sel({SEGMENT: labels}).stack(sample=("chain", "draw"))
        control_eta = np.asarray(baseline_draws.transpose("sample", SEGMENT).values)[..., None]
    eta_draws = np.concatenate([control_eta, control_eta + effect], axis=-1)
    options = dict(past.options)
    if "cutpoints" in posterior:
        cutpoints = posterior["cutpoints"].mean(("chain", "draw")).values
        options["answers"] = np.diff(1 / (1 + np.exp(-cutpoints)), prepend=0.0, append=1.0).tolist()
    if "hazards" in posterior:
        options["relative_hazards"] = [1.0, *np.exp(posterior["hazards"].mean(("chain", "draw")).values)]
    return replace(past, options=options, eta_draws=eta_draws if truth == "draw" else eta_draws.mean(0, keepdims=True))
