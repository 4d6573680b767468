"""Every segment's effect as a function of the between-segment SD, and how plausible each value of it is.

At τ = 0 all segments have the common effect, far to the right each has its own estimate: the whole range from
complete to no pooling, with the posterior of τ saying which part of it matters (Rubin 1981).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import schema
from bayes_hte.effects import cells_of, known_model, on_scale
from bayes_hte.errors import ModelError
from bayes_hte.exact import beyond, closed, direct, engine
from bayes_hte.exact.estimates import Arm, effects_given
from bayes_hte.exact.integrate import Quantity, expectation, locate
from bayes_hte.exact.target import Work
from bayes_hte.families import FAMILIES, Family
from bayes_hte.model import Problem, problem
from bayes_hte.priors import log_density
from bayes_hte.schema import Scale
from bayes_hte.spec.model import Model

POINTS = 33
"""Values of τ: enough for smooth lines."""
WANTED = 250
"""Effective points of the other hyperparameters at each value of τ."""
AVERAGED = 200
"""Points over which effects are averaged; the same random numbers at each value of τ keep the lines smooth."""
Array = NDArray[np.float64]


def given_tau(tree: xr.DataTree, scale: Scale) -> pd.DataFrame:
    """Long form: one row per arm, segment and τ; see `Fit.given_tau`.

    Raises
    ------
    ModelError
        If effects are not partially pooled, or the fast engine does not apply.
    """
    cells, model = cells_of(tree), known_model(tree, "effects given tau")
    if model.pooling != "partial":
        raise ModelError(f'there is no between-segment SD under pooling = "{model.pooling}"')
    task = problem(cells, model)
    _check_one_tau(task, scale)
    reason = beyond(task)
    if reason is not None:
        raise ModelError(f"effects given tau need the exact engine: {reason}")
    frames = []
    for position, arm in enumerate(task.coords["arm"]):
        between = tree["posterior"].to_dataset()["effect_between"]
        taus = grid((between.isel(arm=position) if "arm" in between.dims else between).values)
        effect, log_evidence = (_estimates if closed(task) else _cells)(task, position, taus, scale)
        frames.append(_frame(cells, arm, taus, effect, _density(task, taus, log_evidence)))
    return pd.concat(frames, ignore_index=True)


def known_scale(tree: xr.DataTree, asked: Scale) -> Scale:
    """The scale asked for, or where effects given tau are not known on it, the link scale."""
    model = known_model(tree, "effects given tau")
    return "link" if _lacks_absolute(model, FAMILIES[model.family], asked) else asked


def _lacks_absolute(model: Model, family: Family, scale: Scale) -> bool:
    """Whether the scale needs parameters that all segments share, which are not averaged over here."""
    shared = model.amount is None and family.curve is not None and family.curve.shared is not None
    return shared and scale == "absolute" and family.link != "identity"


def _check_one_tau(task: Problem, scale: Scale) -> None:
    """Refuse where effects are no function of a single between-segment SD, or the scale needs what is not known."""
    model, family = task.model, task.family
    if model.effect.strata is not None or model.amount is not None:
        raise ModelError("there are several between-segment SDs: effects as a function of one are not defined")
    if _lacks_absolute(model, family, scale):
        raise ModelError(
            f'effects given tau of family "{model.family}" are known on the link and relative scales only; pass '
            'scale="link"'
        )


def grid(draws: Array) -> Array:
    """From nearly 0 to where the posterior ends, and as far again to see no pooling from afar."""
    upper = 1.6 * float(np.quantile(draws, 0.99))
    taus: Array = upper * (np.arange(POINTS) / (POINTS - 1)) ** 1.5
    taus[0] = 1e-3 * upper / POINTS
    return taus


def _density(task: Problem, taus: Array, log_evidence: Array) -> Array:
    """Posterior density of τ: what the data say of each value, times the prior."""
    between = task.model.effect.between
    if between is None:
        raise AssertionError("partial pooling without a prior for the between-segment SD passed validation")
    log_posterior = log_evidence + log_density(between, taus)
    height = np.exp(log_posterior - log_posterior.max())
    density: Array = height / np.trapezoid(height, taus)
    return density


def _estimates(task: Problem, position: int, taus: Array, scale: Scale) -> tuple[Array, Array]:
    """Published estimates: closed form at every τ; (τ, segment)."""
    arm = direct.arms(task)[position]
    effects, log_evidence = [], []
    for tau in taus:
        held = Arm(arm.data, arm.mean, float(tau))
        nodes = held.nodes(held.limits())
        centre, _ = effects_given(arm.data, nodes.tau, nodes.mean)
        mean = nodes.weights @ centre
        effects.append(mean if arm.data.axes is None else arm.data.axes @ mean)
        log_evidence.append(nodes.log_evidence)
    return np.array(effects), np.array(log_evidence)


def _cells(task: Problem, position: int, taus: Array, scale: Scale) -> tuple[Array, Array]:
    """Cells: the other hyperparameters are sampled at every τ; (τ, segment)."""

    def shown(baseline: Array, effect: Array) -> Array:
        draws = {"baseline": xr.DataArray(baseline), "effect": xr.DataArray(effect)}
        return np.asarray(on_scale(task.family, draws, scale, task.statistics).values)

    place = 0 if task.model.effect.shared_between else position
    effects, log_evidence = [], []
    for tau in taus:
        held: Mapping[tuple[str, int], float] = {("effect_between", place): float(tau)}
        target, sample = engine.points(task, wanted=WANTED, seed=1, held=held)
        some = sample.points[sample.resampled(AVERAGED, np.random.default_rng(1))]
        found = np.empty(target.segments.size)
        for group in target.groups:
            means = target.over(some, group.members, _means(group.order, shown))
            found[group.members] = means[:, :, position].mean(0)
        effects.append(found)
        log_evidence.append(sample.log_evidence)
    return np.array(effects), np.array(log_evidence)


def _means(order: int, shown: Quantity) -> Work:
    return lambda segments, maps: expectation(segments, maps, locate(segments, maps), order, shown)


def _frame(cells: xr.Dataset, arm: str, taus: Array, effect: Array, density: Array) -> pd.DataFrame:
    size = cells.sizes[schema.SEGMENT]
    levels = {name: np.tile(cells[name].values.astype(str), len(taus)) for name in schema.dimensions(cells)}
    return pd.DataFrame(
        {
            **levels,
            "arm": arm,
            "tau": np.repeat(taus, size),
            "effect": effect.ravel(),
            "density": np.repeat(density, size),
        }
    )
