"""Draw the truth of simulated experiments: the linear predictor of every cell, and the effects that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bayes_hte._support.phrases import quote_names
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.cells.simulation.outcomes.law import FloatGrid, OutcomeLaw
from bayes_hte.cells.simulation.stated.numbers import check_sd
from bayes_hte.cells.simulation.stated.segments import ArmDesign, PopulationDesign, StatedValues
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import ARM, SEGMENT, EffectScale


@dataclass(frozen=True, slots=True)
class EffectSpread:
    """How effects vary around what was stated: every level of one dimension, or every segment, has a part of its own.

    Attributes
    ----------
    level_index : array of int
        The level, or the segment itself, (segment,).
    between_sd : array
        SD of the parts, (treated arm,).
    """

    level_index: NDArray[np.intp]
    between_sd: StatedValues


@dataclass(frozen=True, slots=True)
class TruthDesign:
    """What is stated of the truth, before anything is drawn.

    Attributes
    ----------
    baseline_eta : array
        Linear predictor of the control, (draw, segment): a single draw where one baseline was stated.
    baseline_between : float
        SD of the control's linear predictor between segments, around that.
    effect : array
        Effects on `scale`, (draw, segment, treated arm), with as many draws or a single one.
    spreads : tuple of EffectSpread
        How effects vary around these, on `scale`.
    scale : str
    """

    baseline_eta: StatedValues
    baseline_between: float
    effect: StatedValues
    spreads: tuple[EffectSpread, ...]
    scale: EffectScale


def read_spreads(between: object, design: PopulationDesign, arms: ArmDesign) -> tuple[EffectSpread, ...]:
    """Read SDs of effects: one number for segments, or a number by arm, or by dimension and ``"segment"``.

    Raises
    ------
    ArgumentError
        If an SD is no finite number of 0 or more, or a name is not known.
    """
    # Every segment is a level of its own where no dimension is named.
    own_index = np.arange(len(design.shares))
    if not isinstance(between, Mapping):
        return (EffectSpread(own_index, np.full(len(arms.treated), check_sd(between, "between"))),)
    names = {format_level(name): value for name, value in between.items()}
    if names and set(names) == set(arms.treated):
        return (
            EffectSpread(own_index, np.array([check_sd(names[arm], f"between of {arm!r}") for arm in arms.treated])),
        )
    known_names = (*design.dims, SEGMENT)
    if unknown_names := [name for name in names if name not in known_names]:
        raise ArgumentError(
            f"between names {quote_names(unknown_names)}; give an SD for the dimensions {quote_names(design.dims)}, "
            f"for {SEGMENT!r}, or for each of the arms {quote_names(arms.treated)}"
        )
    return tuple(
        EffectSpread(
            design.index_levels(name) if name in design.dims else own_index,
            np.full(len(arms.treated), check_sd(value, f"between of {name!r}")),
        )
        for name, value in names.items()
    )


def find_baseline_eta(baseline: StatedValues, law: OutcomeLaw, design: PopulationDesign) -> StatedValues:
    """Find the control's linear predictor in every segment, (segment,).

    Raises
    ------
    ArgumentError
        If a baseline is impossible for the outcome.
    """
    is_impossible = ~law.is_possible(baseline)
    if is_impossible.any():
        worst = int(np.argmax(is_impossible))
        raise ArgumentError(
            f"the baseline of segment {design.labels[worst]!r} is {baseline[worst]:.4g}, but {law.range_phrase}; "
            "state the control's mean outcome"
        )
    return law.find_link(baseline)


def draw_eta(
    truth: TruthDesign, law: OutcomeLaw, names: tuple[PopulationDesign, ArmDesign], rng: np.random.Generator, size: int
) -> FloatGrid:
    """Draw the linear predictor of every cell of `size` experiments, (experiment, segment, arm), the control first.

    Raises
    ------
    ArgumentError
        If an effect leads to a mean that the outcome cannot have.
    """
    # The draw of a fit that is true of each experiment: baselines and effects of one draw belong together.
    draw_index = rng.integers(max(len(truth.baseline_eta), len(truth.effect)), size=size)
    control_eta = truth.baseline_eta[draw_index % len(truth.baseline_eta)]
    effect = truth.effect[draw_index % len(truth.effect)]
    treated_count = effect.shape[-1]
    # eta₀ = link(baseline) + baseline_between · z,   z ~ Normal(0, 1) for each experiment and segment
    if truth.baseline_between > 0:
        control_eta = control_eta + truth.baseline_between * rng.standard_normal(control_eta.shape)
    # effect = stated + Σ over spreads of between · z[level of the segment],   z new for each experiment and arm
    for spread in truth.spreads:
        if spread.between_sd.any():
            level_count = int(spread.level_index.max()) + 1
            level_parts = spread.between_sd * rng.standard_normal((size, level_count, treated_count))
            effect = effect + level_parts[:, spread.level_index]
    control_eta = control_eta[..., None]
    if truth.scale == "link" or (truth.scale == "absolute" and law.link == "identity"):
        treated_eta = control_eta + effect
    else:
        treated_eta = _find_treated_eta(control_eta, effect, truth.scale, law, names)
    return np.concatenate([control_eta, treated_eta], axis=-1)


def _find_treated_eta(
    control_eta: FloatGrid,
    effect: FloatGrid,
    scale: EffectScale,
    law: OutcomeLaw,
    names: tuple[PopulationDesign, ArmDesign],
) -> FloatGrid:
    """Find the linear predictor of treated arms, (experiment, segment, treated arm), from effects on their means."""
    if scale == "relative" and law.link == "log":
        # e^eta' / e^eta − 1 = effect; of survival these are hazards
        _refuse_impossible(
            effect > -1, effect, np.exp(control_eta) * (1 + effect), "a relative effect is above −100 %", names
        )
        return control_eta + np.log1p(effect)
    # mean₁ = mean₀ + effect, or mean₀ (1 + effect);   eta₁ = link(mean₁)
    control_mean = law.find_mean(control_eta)
    if scale == "relative" and not control_mean.all():
        raise ArgumentError("a relative effect of a baseline of 0 is none; state the baseline, or effects as absolute")
    treated_mean = control_mean + effect if scale == "absolute" else control_mean * (1 + effect)
    _refuse_impossible(law.is_possible(treated_mean), effect, treated_mean, law.range_phrase, names)
    return law.find_link(treated_mean)


def _refuse_impossible(
    is_possible: NDArray[np.bool_],
    effect: FloatGrid,
    outcome: FloatGrid,
    range_phrase: str,
    names: tuple[PopulationDesign, ArmDesign],
) -> None:
    if is_possible.all():
        return
    # The first of them stands for all: its numbers show what is too large.
    segments, arms = names
    place = tuple(int(axis[0]) for axis in np.nonzero(~is_possible))
    raise ArgumentError(
        f"the effect of {effect[place]:.4g} in segment {segments.labels[place[1]]!r}, arm {arms.treated[place[2]]!r} "
        f"leads to {outcome[place]:.4g}, but {range_phrase}; state a smaller effect or between, or both on the link "
        "scale, on which nothing is impossible"
    )


def compute_true_effects(eta: FloatGrid, law: OutcomeLaw) -> dict[str, FloatGrid]:
    """Compute control and treated means, and effects on every scale, (experiment, segment, treated arm)."""
    mean = law.find_mean(eta)
    control_mean, treated_mean = mean[..., :1], mean[..., 1:]
    link_effect = eta[..., 1:] - eta[..., :1]
    with np.errstate(divide="ignore", invalid="ignore"):  # a control's mean of 0 has no relative effects
        relative_effect = np.expm1(link_effect) if law.link == "log" else treated_mean / control_mean - 1
    return {
        "baseline": np.broadcast_to(control_mean, treated_mean.shape),
        "mean": treated_mean,
        "absolute": treated_mean - control_mean,
        "relative": np.where(np.isfinite(relative_effect), relative_effect, np.nan),
        "link": link_effect,
    }


def tabulate_truth(true_effects: Mapping[str, FloatGrid], segments: PopulationDesign, arms: ArmDesign) -> pd.DataFrame:
    """Tabulate the truth, one row per experiment, segment and treated arm."""
    shape = next(iter(true_effects.values())).shape
    experiment_index, segment_index, arm_index = (index.ravel() for index in np.indices(shape))
    # Row r of the table is the r-th number in memory: its place on each axis picks the labels.
    levels = np.array(segments.levels_by_segment, dtype=object)
    return pd.DataFrame(
        {
            "experiment": experiment_index,
            **{dim: levels[segment_index, place] for place, dim in enumerate(segments.dims)},
            ARM: np.array(arms.treated, dtype=object)[arm_index],
            "share": segments.shares[segment_index],
            **{name: values.ravel() for name, values in true_effects.items()},
        }
    )


def tabulate_average(
    true_effects: Mapping[str, FloatGrid], eta: FloatGrid, law: OutcomeLaw, segments: PopulationDesign, arms: ArmDesign
) -> pd.DataFrame:
    """Tabulate the ATE on every scale, one row per experiment and treated arm.

    With shares s of the population the absolute and link effects are Σ s effect, and the relative one the change of
    the total, Σ s m · effect / Σ s m, where m is the control's mean (of survival, its hazard).
    """
    shares = segments.shares[:, None]
    control_level = np.exp(eta[..., :1]) if law.link == "log" else law.find_mean(eta[..., :1])
    control_totals = shares * control_level
    averages = {scale: (shares * true_effects[scale]).sum(axis=1) for scale in ("absolute", "link")}
    with np.errstate(divide="ignore", invalid="ignore"):
        averages["relative"] = (control_totals * true_effects["relative"]).sum(axis=1) / control_totals.sum(axis=1)
    experiment_index, arm_index = (index.ravel() for index in np.indices(averages["link"].shape))
    return pd.DataFrame(
        {
            "experiment": experiment_index,
            ARM: np.array(arms.treated, dtype=object)[arm_index],
            **{scale: averages[scale].ravel() for scale in ("absolute", "relative", "link")},
        }
    )
