"""Leave-one-segment-out: how well the other segments predict each one.

score of s = log p(data of s | data of all others) = log ∫ p(data of s | θ) p(θ | data of the others) dθ

The segment's own coefficients are integrated out exactly; only its hold on the few hyperparameters is removed by
importance weights, which is why they behave where those of plain PSIS-LOO by cell do not: there every cell has
a parameter of its own. Where the weights still have a long tail the segment is left out for real.

Structures beyond the exact engine are fitted again, each time without a tenth of the segments. The cells of those
are emptied, not removed: so levels, covariates and priors stay what they were.
"""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import special

from bayes_hte import schema
from bayes_hte.drawn import headlined
from bayes_hte.effects import NewSegment, cells_of, known_model, likelihood_parameters
from bayes_hte.errors import DataError, ModelError
from bayes_hte.exact import beyond, closed, direct, engine, parts
from bayes_hte.exact.estimates import Arm, Rotated, rotated
from bayes_hte.exact.smooth import smooth
from bayes_hte.exact.space import space_of
from bayes_hte.exact.target import Target
from bayes_hte.families import FAMILIES
from bayes_hte.layout import linear_predictor, long_form
from bayes_hte.model import Problem, problem
from bayes_hte.priors import random
from bayes_hte.spec import Model
from bayes_hte.structure import AMOUNT, CHANCE, coefficients, hyperparameters

MAX_POINTS = 4000
LONG_TAIL = 0.7
"""Pareto k above which importance weights are not trusted (Vehtari et al. 2024)."""
FOLDS = 10
"""Fits of a structure beyond the exact engine; each leaves out a tenth of the segments, so nearly all of them stay."""
HELD_OUT_DRAWS, COPIES = 1000, 200
"""Draws of the hyperparameters for a segment left out, and of its own coefficients given each."""

type Scores = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
type Refit = Callable[[xr.Dataset, Model], xr.DataTree]
"""(cells, model) -> the core of a fit."""


def loso(tree: xr.DataTree, refit: Refit | None = None) -> pd.DataFrame:
    """One row per segment: its log score and Monte-Carlo error; see `Fit.loso`.

    Parameters
    ----------
    tree : xarray.DataTree
        A fit's posterior.
    refit : callable, optional
        What fits again where the structure is beyond the exact engine.

    Raises
    ------
    DataError
        If there is one segment.
    ModelError
        If the structure is beyond the exact engine and cannot be fitted again.
    """
    cells = cells_of(tree)
    if cells.sizes[schema.SEGMENT] < 2:
        raise DataError("one segment: there are no others to predict it from")
    task = problem(cells, known_model(tree, "a leave-one-segment-out score"))
    reason, reliable = beyond(task), True
    if reason is None:
        elpd, mcse, pareto_k = _exact(task, tree["posterior"].to_dataset(), int(tree.attrs["seed"]))
    elif refit is None:
        raise ModelError(f"leave-one-segment-out scores need the exact engine: {reason}")
    else:
        (elpd, mcse, pareto_k), reliable = _by_folds(task, tree, refit)
    levels = {name: cells[name].values.astype(str) for name in schema.dimensions(cells)}
    found = pd.DataFrame({**levels, "elpd": elpd, "mcse": mcse, "pareto_k": pareto_k})
    found.attrs |= {"elpd": float(elpd.sum()), "se": float(np.sqrt(len(elpd)) * elpd.std(ddof=1))}
    found.attrs["folds_reliable"] = reliable
    return found


def _exact(task: Problem, posterior: xr.Dataset, seed: int) -> Scores:
    """By the exact engine, in the way that the structure allows."""
    if task.model.amount is not None:  # two posteriors that have nothing in common
        both = [
            _by_weights(part, posterior.drop_vars(["effect", "baseline"]).rename(_without(posterior, prefix)), seed)
            for prefix, part in zip((CHANCE, AMOUNT), parts.split(task), strict=True)
        ]
        (first, error, k), (second, other_error, other_k) = both
        return first + second - _orders(task.statistics), np.hypot(error, other_error), np.maximum(k, other_k)
    return _by_quadrature(task) if closed(task) else _by_weights(task, posterior, seed)


def _orders(statistics: xr.Dataset) -> NDArray[np.float64]:
    """Log of the number of orders in which a segment's positive outcomes can come: units are scored one by one."""
    n, positive = (statistics[name].transpose(schema.SEGMENT, schema.ARM).values for name in ("n", "positive"))
    found = special.gammaln(n + 1) - special.gammaln(positive + 1) - special.gammaln(n - positive + 1)
    return np.asarray(found.sum(1))


def _without(posterior: xr.Dataset, prefix: str) -> dict[str, str]:
    """Variables of one part by the names that they have in a family of one part."""
    return {name: name.removeprefix(prefix) for name in map(str, posterior.data_vars) if name.startswith(prefix)}


def _by_quadrature(task: Problem) -> Scores:
    """Published estimates: the ratio of two evidences, each exact to quadrature error."""
    size = task.statistics.sizes[schema.SEGMENT]
    elpd = np.zeros(size)
    covariance = task.statistics["covariance"].values if "covariance" in task.statistics else None
    for column, arm in enumerate(direct.arms(task)):
        whole = _log_evidence(arm)
        y = task.statistics["estimate"].transpose(schema.SEGMENT, schema.ARM).values[:, column]
        se = task.statistics["se"].transpose(schema.SEGMENT, schema.ARM).values[:, column]
        for left_out in range(size):
            kept = np.arange(size) != left_out
            part = None if covariance is None else covariance[np.ix_(kept, kept)]
            elpd[left_out] += whole - _log_evidence(_with(arm, rotated(y[kept], se[kept], part)))
    return elpd, np.zeros(size), np.full(size, -np.inf)


def _with(arm: Arm, data: Rotated) -> Arm:
    return Arm(data, arm.mean, arm.between)


def _log_evidence(arm: Arm) -> float:
    return arm.nodes(arm.limits()).log_evidence


def _by_weights(task: Problem, posterior: xr.Dataset, seed: int) -> Scores:
    """Draws of the hyperparameters, weighted by how little they owe to the segment."""
    target, points = _points(task, posterior)
    log_likelihood = _of_segments(target, points)
    size = log_likelihood.shape[1]
    elpd, mcse, tails = np.empty(size), np.empty(size), np.empty(size)
    for segment in range(size):
        elpd[segment], mcse[segment], tails[segment] = _left_out(log_likelihood[:, segment])
        if tails[segment] > LONG_TAIL:
            elpd[segment], mcse[segment] = _for_real(task, segment, seed=seed)
    return elpd, mcse, tails


def _points(task: Problem, posterior: xr.Dataset) -> tuple[Target, NDArray[np.float64]]:
    """Evenly spaced draws of the hyperparameters, whichever engine drew them."""
    space = space_of(task)
    stacked = posterior.stack(sample=("chain", "draw"), create_index=False)
    count = stacked.sizes["sample"]
    rows = np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(int)
    dims = {name: hyper.dims for name, hyper in hyperparameters(task.model).items()}
    natural = {name: stacked[name].transpose("sample", *dims[name]).values.reshape(count, size)[rows]
               for name, size in space.sizes.items()}  # fmt: skip
    points = space.free(natural) if space.parameters else np.empty((len(rows), 0))
    return engine.evaluator(task, points), points


def _of_segments(target: Target, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p(data of each segment | θ): (point, segment)."""
    found = target.log_marginals(points)
    curve = target.segments.curve
    if curve.nuisance is not None and curve.shared is not None:  # what depends on sigma or alpha alone
        shared = target.space.natural(points)[curve.shared]
        for segment in range(found.shape[1]):
            found[:, segment] += _within_cells(target, segment, shared)
    return found


def _within_cells(target: Target, segment: int, shared: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log density of a segment's units less that of what informs its mean: it depends on sigma or alpha alone.

    Of units, not of their sum of squares, so that a cell without variation has a density too.
    """
    curve, family = target.segments.curve, FAMILIES[target.model.family]
    rows = long_form(target.statistics.isel({schema.SEGMENT: [segment]}))
    arrays, own = curve.arrays(rows), shared[:, rows["arm_index"].values]
    eta = np.broadcast_to(curve.guess(arrays), own.shape)  # any would do
    values = {str(curve.shared): xr.DataArray(shared, dims=("draw", "variant"))}
    units = family.log_likelihood(rows, xr.DataArray(eta, dims=("draw", "cell")), values)
    informative = curve.density(arrays, eta, own)
    return np.asarray((units.transpose("draw", "cell").values - informative).sum(1))


def _left_out(log_likelihood: NDArray[np.float64]) -> tuple[float, float, float]:
    """Log of the mean likelihood under weights 1 / likelihood, its standard error, and the weights' tail."""
    weights, pareto_k = smooth(-log_likelihood)
    top = log_likelihood.max()
    likelihood = np.exp(log_likelihood - top)
    mean = float(weights @ likelihood)
    error = float(np.sqrt((weights**2) @ (likelihood - mean) ** 2)) / mean
    return float(np.log(mean)) + float(top), error, pareto_k


def _for_real(task: Problem, segment: int, *, seed: int) -> tuple[float, float]:
    """Fit the other segments, and average the likelihood of this one over their posterior."""
    others = np.arange(task.statistics.sizes[schema.SEGMENT]) != segment
    without = Problem(
        task.model,
        task.family,
        task.statistics.isel(segment=others),
        task.cells.isel(cell=task.cells["segment_index"].values != segment),
        {**task.coords, "segment": list(np.array(task.coords["segment"], dtype=object)[others])},
        replace(
            task.design,
            index={name: place[others] for name, place in task.design.index.items()},
            covariates=task.design.covariates[others],
        ),
    )
    _, sample = engine.points(without, wanted=2000, seed=seed)
    some = sample.points[sample.resampled(200, np.random.default_rng(seed))]
    log_likelihood = _of_segments(engine.evaluator(task, some), sample.points)[:, segment]
    top = log_likelihood.max()
    likelihood = np.exp(log_likelihood - top)
    mean = float(sample.weights @ likelihood)
    error = float(np.sqrt((sample.weights**2) @ (likelihood - mean) ** 2)) / mean
    return float(np.log(mean)) + float(top), error


def _by_folds(task: Problem, tree: xr.DataTree, refit: Refit) -> tuple[Scores, bool]:
    """Fit again without each tenth of the segments; no weights are needed, so there is no tail of theirs."""
    if "covariance" in task.statistics:
        raise ModelError("estimates with a covariance matrix can be left out one by one by the exact engine only")
    cells, size = cells_of(tree), task.statistics.sizes[schema.SEGMENT]
    rng = np.random.default_rng(int(tree.attrs["seed"]))
    elpd, mcse, reliable = np.empty(size), np.empty(size), True
    for fold in np.array_split(rng.permutation(size), min(FOLDS, size)):
        without = refit(emptied(cells, fold), task.model)
        reliable &= bool(json.loads(without.attrs["diagnosis"])["ok"])
        posterior = _thinned(without["posterior"].to_dataset())
        for segment in map(int, fold):
            elpd[segment], mcse[segment] = _predicted(task, posterior, cells, segment, rng)
    return (elpd, mcse, np.full(size, -np.inf)), reliable


def emptied(cells: xr.Dataset, segments: NDArray[np.intp]) -> xr.Dataset:
    """The same cell table without the data of some segments, which remain in it by name."""
    kept = xr.DataArray(~np.isin(np.arange(cells.sizes[schema.SEGMENT]), segments), dims=schema.SEGMENT)
    found = cells.copy()
    for name in map(str, cells.data_vars):
        if name == "covariates":
            continue
        absent = np.nan if name in ("mean", "log_mean", "se", "estimate") else 0
        values = cells[name].where(kept, absent).transpose(*cells[name].dims)
        found[name] = values.astype(cells[name].dtype).assign_attrs(cells[name].attrs)
    return found


def _thinned(posterior: xr.Dataset) -> xr.Dataset:
    step = max(1, posterior.sizes["chain"] * posterior.sizes["draw"] // HELD_OUT_DRAWS)
    return posterior.isel(draw=slice(None, None, step))


def _predicted(
    task: Problem, posterior: xr.Dataset, cells: xr.Dataset, segment: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Log density of a segment's data under the others' posterior, and its Monte-Carlo standard error."""
    count = posterior.sizes["draw"]
    own = posterior.isel(segment=[segment], draw=np.tile(np.arange(count), COPIES))
    own = own.assign_coords(draw=np.arange(COPIES * count))
    parameters = likelihood_parameters(headlined(task, own.assign(_new_coefficients(task, own, cells, segment, rng))))
    statistics = task.statistics.isel({schema.SEGMENT: [segment]})
    rows = long_form(statistics)
    found = task.family.log_likelihood(rows, linear_predictor(rows, parameters), parameters)
    log_likelihood = found.transpose("chain", "draw", "cell").values.sum(-1)
    top = float(log_likelihood.max())
    likelihood = np.exp(log_likelihood - top).reshape(-1, COPIES, count).mean(1)
    mean = float(likelihood.mean())
    return float(np.log(mean)) + top, _error(likelihood) / mean


def _new_coefficients(
    task: Problem, posterior: xr.Dataset, cells: xr.Dataset, segment: int, rng: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Effect and baseline of a segment without data, given every draw of what segments share."""
    where = {name: str(cells[name].values[segment]) for name in schema.dimensions(cells)}
    known = {name: float(cells["covariates"].sel(covariate=name).values[segment])
             for name in task.model.effect.covariates}  # fmt: skip
    found = NewSegment(task.model, posterior, cells.isel(segment=[segment]), rng, where, known).draws()
    for asked in coefficients(task.model):
        shape = posterior[asked.name].isel(segment=0, drop=True)
        if asked.pooling == "none":  # nothing is shared: what is known of it is its prior
            found[asked.name] = shape.copy(data=random(asked.pool.mean, shape.shape, rng))
        found[asked.name] = (
            found[asked.name].expand_dims(segment=posterior["segment"]).transpose(*posterior[asked.name].dims)
        )
    return found


def _error(likelihood: NDArray[np.float64]) -> float:
    """Monte-Carlo standard error of the mean over (chain, draw)."""
    import arviz_stats as az

    values = xr.DataArray(likelihood, dims=("chain", "draw"))
    return float(az.mcse(values.to_dataset(name="x"), method="mean")["x"])
