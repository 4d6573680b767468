"""Leave-one-segment-out: how well the other segments predict each one.

score of s = log p(data of s | data of all others) = log ∫ p(data of s | θ) p(θ | data of the others) dθ

The segment's own coefficients are integrated out exactly; only its hold on the few hyperparameters is removed by
importance weights, which is why they behave where those of plain PSIS-LOO by cell do not: there every cell has
a parameter of its own. Where the weights still have a long tail the segment is left out for real.
"""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from bayes_hte import schema
from bayes_hte.effects import cells_of, model_of
from bayes_hte.errors import DataError
from bayes_hte.exact import direct, engine
from bayes_hte.exact.estimates import Arm, Rotated, rotated
from bayes_hte.exact.smooth import smooth
from bayes_hte.exact.space import space_of
from bayes_hte.exact.target import Target
from bayes_hte.model import Problem, problem

MAX_POINTS = 4000
LONG_TAIL = 0.7
"""Pareto k above which importance weights are not trusted (Vehtari et al. 2024)."""


def loso(tree: xr.DataTree) -> pd.DataFrame:
    """One row per segment: its log score and Monte-Carlo error; see `Fit.loso`.

    Raises
    ------
    DataError
        If there is one segment.
    """
    cells = cells_of(tree)
    task = problem(cells, model_of(tree))
    if cells.sizes[schema.SEGMENT] < 2:
        raise DataError("one segment: there are no others to predict it from")
    closed = not task.family.has_baseline and task.model.pooling != "none"
    elpd, mcse, pareto_k = _by_quadrature(task) if closed else _by_weights(task, tree)
    levels = {name: cells[name].values.astype(str) for name in schema.dimensions(cells)}
    found = pd.DataFrame({**levels, "elpd": elpd, "mcse": mcse, "pareto_k": pareto_k})
    found.attrs["elpd"] = float(elpd.sum())
    found.attrs["se"] = float(np.sqrt(len(elpd)) * elpd.std(ddof=1))
    return found


type Scores = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


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


def _by_weights(task: Problem, tree: xr.DataTree) -> Scores:
    """Draws of the hyperparameters, weighted by how little they owe to the segment."""
    target, points = _points(task, tree)
    log_likelihood = _of_segments(target, points)
    size = log_likelihood.shape[1]
    elpd, mcse, tails = np.empty(size), np.empty(size), np.empty(size)
    for segment in range(size):
        elpd[segment], mcse[segment], tails[segment] = _left_out(log_likelihood[:, segment])
        if tails[segment] > LONG_TAIL:
            elpd[segment], mcse[segment] = _for_real(task, segment, seed=int(tree.attrs["seed"]))
    return elpd, mcse, tails


def _points(task: Problem, tree: xr.DataTree) -> tuple[Target, NDArray[np.float64]]:
    """Evenly spaced draws of the hyperparameters, whichever engine drew them."""
    space = space_of(task)
    stacked = tree["posterior"].to_dataset().stack(sample=("chain", "draw"), create_index=False)
    count = stacked.sizes["sample"]
    rows = np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(int)
    natural = {name: stacked[name].transpose("sample", ...).values.reshape(count, size)[rows]
               for name, size in space.sizes.items()}  # fmt: skip
    points = space.free(natural) if space.parameters else np.empty((len(rows), 0))
    return engine.evaluator(task, points), points


def _of_segments(target: Target, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p(data of each segment | θ): (point, segment)."""
    found = target.log_marginals(points)
    nuisance = target.segments.curve.nuisance
    if nuisance is not None:  # sums of squares within cells depend on sigma alone
        sigma = target.space.natural(points)["sigma"]
        for segment in range(found.shape[1]):
            found[:, segment] += nuisance(target.statistics.isel(segment=[segment]), sigma)
    return found


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
    )
    _, sample = engine.points(without, wanted=2000, seed=seed)
    some = sample.points[sample.resampled(200, np.random.default_rng(seed))]
    log_likelihood = _of_segments(engine.evaluator(task, some), sample.points)[:, segment]
    top = log_likelihood.max()
    likelihood = np.exp(log_likelihood - top)
    mean = float(sample.weights @ likelihood)
    error = float(np.sqrt((sample.weights**2) @ (likelihood - mean) ** 2)) / mean
    return float(np.log(mean)) + float(top), error
