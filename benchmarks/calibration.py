"""Simulation-based calibration of the fast engine: parameters from the prior, data from them, and back.

    python benchmarks/calibration.py [--replications 2000] [--family binomial …] [--seed 1]

If the engine is right, the rank of a parameter among draws from its posterior is uniform, whatever the parameter and
the data (Talts et al. 2018); so is that of the likelihood of the data, which alone notices an engine that leaves
data out (Modrák et al. 2023). Central intervals then hold the truth as often as they say, and so do probabilities
of signs. Everything is written to results/, and the tables of calibration.md are renewed.

A data set that the exact engine would refuse is kept with the draws it was refused for; one that no engine takes
(no event in any cell) has no ranks and is counted. Leaving data sets out because of what they hold, not because of
the parameters behind them, does not bias the ranks of the others.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import special, stats
from threadpoolctl import threadpool_limits

from bayes_hte import Model, diagnose, exact, schema
from bayes_hte.drawn import CHAINS, Drawn
from bayes_hte.effects import average, likelihood_parameters, on_scale, shares
from bayes_hte.errors import DataError
from bayes_hte.layout import Parameters, linear_predictor, long_form, variant_values
from bayes_hte.model import Problem, problem
from bayes_hte.pooling import prior_draws
from bayes_hte.priors import random
from bayes_hte.spec.distributions import rescaled
from bayes_hte.spec.model import FamilyName

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "calibration.json"
FIGURE = HERE / "results" / "calibration.svg"
PAGE = HERE / "calibration.md"
ENGINE = HERE.parent / "bayes_hte"

RANKS = 100
"""Ranks 0 to 99: the truth among 99 draws, so that bins of 5 ranks are equally likely."""
BINS = 20
LEVELS = (0.5, 0.8, 0.95)
CALL = 0.95
"""Probability of a sign above which one calls it."""
ALPHA = 0.01
"""Chance that an engine that is right fails any test of uniformity, all of them taken together (Holm)."""
MAX_Z = 4.0
"""Standard errors: 6.3e-5 per comparison, 0.2 % for the 25 of five designs."""
SIMULATIONS = 20_000
"""Null distribution of the ECDF's depth: its smallest p-value is far below ALPHA / (number of tests)."""

Array = NDArray[np.float64]
Counts = NDArray[np.int64]
Record = dict[str, Any]
Engine = Callable[..., Drawn]
Outcome = Literal["certified", "refused", "unsupported", "broken"]


# ------------------------------------------------------------------------------------------------------ designs


@dataclass(frozen=True, slots=True)
class Design:
    """One experiment to simulate again and again.

    Attributes
    ----------
    what : str
        For people.
    model : Model
    cells : xarray.Dataset
        Sizes or standard errors; outcomes are placeholders.
    watched : tuple of str
        Segments whose effects and baselines are ranked.
    """

    what: str
    model: Model
    cells: xr.Dataset
    watched: tuple[str, ...]


SIZES = np.array([[2, 3], [5, 4], [12, 15], [30, 25], [60, 80], [150, 150], [400, 380], [1200, 1300]])
"""From almost nothing to more than a thousand units."""
SMALL = np.array([[1, 1], [2, 3], [4, 1], [8, 9], [15, 12], [30, 40], [100, 90], [300, 310]])
THREE_ARMS = np.array(
    [[3, 2, 2], [8, 6, 7], [20, 18, 0], [40, 45, 38], [90, 80, 100], [200, 210, 190], [500, 480, 520], [900, 950, 940]]
)
"""One arm never reached the third segment."""


def normal(sigma: float, mu: float = 0.0) -> Record:
    return {"dist": "Normal", "mu": mu, "sigma": sigma}


def half_normal(sigma: float) -> Record:
    return {"dist": "HalfNormal", "sigma": sigma}


def beliefs(family: FamilyName, **tables: Any) -> Model:
    """Priors under which data are of the kind that experiments have."""
    effect = {"mean": normal(0.5), "between": half_normal(0.4)}
    return Model.model_validate({"family": family, "effect": effect, **tables})


def table(data: Mapping[str, Any], arms: Sequence[str], control: str = "control") -> xr.Dataset:
    """A checked cell table with segments s1, s2, …"""
    labels = [f"s{place + 1}" for place in range(len(next(iter(data.values()))))]
    coords = {"segment": labels, "arm": list(arms), "size": ("segment", labels)}
    attrs = {"outcome": "y", "control": control, "dimensions": schema.encode(["size"]), "notes": "[]"}
    named = {name: (("segment", "arm"), np.asarray(values)) for name, values in data.items()}
    return schema.check(xr.Dataset(named, coords=coords, attrs=attrs))


def designs() -> dict[str, Design]:
    """At least one per family; tiny segments in all of them."""
    pooled = {"mean": normal(0.7, -2.0), "between": half_normal(0.5)}
    metric = {"mean": normal(1.0), "between": half_normal(0.5)}
    two, three = ("control", "treated"), ("control", "first", "second")
    some = ("s1", "s4", "s8")
    se = 2.0 / np.sqrt(SIZES)
    unseen = np.where(np.arange(8)[:, None] * [1, 1] == [2, -1], np.nan, 1.0)  # nobody was a control in s3
    return {
        "binomial": Design(
            "2 arms, 2 to 1,300 units per cell",
            beliefs("binomial", baseline=pooled),
            table({"n": SIZES, "events": np.minimum(SIZES, 1)}, two),
            some,
        ),
        "binomial, free baselines": Design(
            "3 arms, baselines not pooled, one empty cell",
            beliefs("binomial", baseline={"pooling": "none", "mean": normal(1.0, -2.0)}),
            table({"n": THREE_ARMS, "events": np.minimum(THREE_ARMS, 1)}, three),
            ("s1", "s3", "s8"),
        ),
        "normal": Design(
            "2 arms, 1 to 310 units per cell, an SD per arm",
            beliefs("normal", baseline=metric, nuisance={"sigma": half_normal(2.0)}),
            table({"n": SMALL, "mean": np.zeros(SMALL.shape), "ss": np.maximum(SMALL - 1.0, 0.0)}, two),
            some,
        ),
        "mean": Design(
            "2 arms, standard errors from 0.06 to 1.4, one empty cell",
            beliefs("mean", baseline=metric),
            table({"mean": 0.0 * unseen, "se": se * unseen}, two),
            ("s1", "s3", "s8"),
        ),
        "estimate": Design(
            "8 estimates, standard errors from 0.08 to 2",
            beliefs("estimate"),
            table({"estimate": np.zeros((8, 1)), "se": 2.0 * se[:, :1] / np.sqrt(2)}, ("treated",), control=""),
            some,
        ),
    }


DESIGNS: Mapping[str, Design] = designs()


# -------------------------------------------------------------------------------------------------- simulation


def prior(task: Problem, rng: np.random.Generator) -> xr.Dataset:
    """One draw of everything from the prior; dims as in a posterior."""
    coords, said = task.coords, task.model
    size = {"segment": coords["segment"]}
    both = size | {"arm": coords["arm"]}
    drawn = prior_draws("effect", said.effect, said.pooling, coords=both, draws=1, rng=rng)
    if said.baseline is not None:
        drawn |= prior_draws("baseline", said.baseline, said.baseline.pooling, coords=size, draws=1, rng=rng)
    if said.nuisance is not None:
        values = random(said.nuisance.sigma, (1, 1, len(coords["variant"])), rng)
        drawn["sigma"] = xr.DataArray(values, {"variant": coords["variant"]}, ("chain", "draw", "variant"))
    return xr.Dataset(drawn)


def sums_of_squares(cells: xr.Dataset, sigma: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    """sigma² times chi-square with n − 1 degrees of freedom; exactly 0 for a single unit."""
    scale = variant_values(cells, sigma) ** 2
    return scale * (2 * rng.gamma((cells["n"].values - 1) / 2))


@dataclass(frozen=True, slots=True)
class Experiment:
    """Parameters from the prior, with the dims of a posterior, and a cell table given them."""

    truth: xr.Dataset
    cells: xr.Dataset


@lru_cache
def _empty(name: str) -> Problem:
    """The problem of a design, without its outcomes."""
    return problem(DESIGNS[name].cells, DESIGNS[name].model)


def simulate(name: str, rng: np.random.Generator) -> Experiment:
    """One experiment of a design."""
    task, design = _empty(name), DESIGNS[name]
    truth = prior(task, rng)
    drawn = likelihood_parameters(truth)
    data = task.family.predictive(task.cells, linear_predictor(task.cells, drawn), drawn, rng)
    if "ss" in task.cells:
        data["ss"] = sums_of_squares(task.cells, drawn["sigma"], rng)
    cells, there = design.cells.copy(deep=True), schema.present(design.cells).values
    for statistic, values in data.items():
        cells[statistic].values[there] = values.values.ravel()
    return Experiment(truth, cells)


# ----------------------------------------------------------------------------- engines, three of them wrong


def exactly(task: Problem, *, draws: int, seed: int) -> Drawn:
    """What is calibrated."""
    return exact.posterior(task, draws=draws, seed=seed)


def halved_prior(task: Problem, *, draws: int, seed: int) -> Drawn:
    """Wrong: takes effects to vary half as much between segments as they do."""
    effect = task.model.effect
    if effect.between is None:
        raise AssertionError("effects are not partially pooled")
    narrow = effect.model_copy(update={"between": rescaled(effect.between, 0.5)})
    return exactly(replace(task, model=task.model.model_copy(update={"effect": narrow})), draws=draws, seed=seed)


def overconfident(task: Problem, *, draws: int, seed: int) -> Drawn:
    """Wrong: SDs of effects are 15 % too small."""
    drawn = exactly(task, draws=draws, seed=seed)
    effect = drawn.posterior["effect"]
    centre = effect.mean(("chain", "draw"))
    narrow = (centre + 0.85 * (effect - centre)).transpose(*effect.dims)
    signs = xr.Dataset({"p_positive": (narrow > 0).mean(("chain", "draw"))})
    return replace(drawn, posterior=drawn.posterior.assign(effect=narrow), sign=signs)


def deaf(task: Problem, *, draws: int, seed: int) -> Drawn:
    """Wrong: never looks at the last arm of counts. A coherent posterior, but not given all data."""
    statistics = task.statistics.copy(deep=True)
    for name in ("n", "events"):
        statistics[name].loc[{"arm": statistics["arm"].values[-1]}] = 0
    return exactly(replace(task, statistics=statistics, cells=long_form(statistics)), draws=draws, seed=seed)


ENGINES: Mapping[str, Engine] = {each.__name__: each for each in (exactly, halved_prior, overconfident, deaf)}
WRONG = (
    ("halved_prior", "binomial"),
    ("halved_prior", "estimate"),
    ("overconfident", "binomial"),
    ("overconfident", "estimate"),
    ("deaf", "binomial"),
)
"""What must be caught, from a fifth of the replications."""


# ----------------------------------------------------------------------------------------------- replications


@dataclass(frozen=True, slots=True)
class Replication:
    """What one simulated experiment says about the engine.

    Attributes
    ----------
    number : int
        With the seed it gives the same data again.
    outcome : str
        ``certified``; ``refused`` by the certificate, ranks are those of the refused draws; ``unsupported`` data,
        without ranks; or ``broken``, an exception where there should be none.
    why : str
        Of every outcome but the first.
    ranks : dict
        Of the truth among 99 draws, by quantity.
    inside : ndarray
        (level, effect): whether the central interval of that level holds the effect.
    p_positive, positive : ndarray
        (effect,): probability of a positive effect, and whether it was.
    """

    number: int
    outcome: Outcome
    why: str = ""
    ranks: Mapping[str, int] | None = None
    inside: NDArray[np.bool_] | None = None
    p_positive: Array | None = None
    positive: NDArray[np.bool_] | None = None


def replicate(name: str, number: int, *, engine: str = "exactly", seed: int = 1, draws: int = 4000) -> Replication:
    """Simulate one experiment of a design, analyse it, and compare with the truth."""
    rng = np.random.default_rng([seed, crc32(name.encode()), number])
    experiment, design = simulate(name, rng), DESIGNS[name]
    try:
        task = problem(experiment.cells, design.model)
    except DataError as reason:
        return Replication(number, "unsupported", str(reason))
    try:
        drawn = ENGINES[engine](task, draws=draws, seed=int(rng.integers(2**31)))
        found = _compared(task, drawn, experiment, design.watched, rng)
    except Exception as reason:  # counted and reported, whatever it is
        return Replication(number, "broken", f"{type(reason).__name__}: {reason}")
    groups = {"posterior": drawn.posterior, "sample_stats": drawn.sample_stats}
    refused = diagnose.certificate_problems(xr.DataTree.from_dict(groups))
    return replace(found, number=number, outcome="refused" if refused else "certified", why=" ".join(refused))


def _compared(
    task: Problem, drawn: Drawn, experiment: Experiment, watched: Sequence[str], rng: np.random.Generator
) -> Replication:
    """Ranks, intervals and signs."""
    truth = experiment.truth
    if drawn.sign is None:
        raise AssertionError("the engine knows no probabilities of signs")
    among = quantities(task, experiment.cells, with_truth(drawn.posterior, truth), watched)
    ranks = {name: rank_of_last(values, rng) for name, values in among.items()}
    effect = truth["effect"].transpose("chain", "draw", "segment", "arm").values.ravel()
    draws = drawn.posterior["effect"].transpose("chain", "draw", "segment", "arm").values.reshape(-1, len(effect))
    tails = [(1 - level) / 2 for level in LEVELS]
    low, high = np.quantile(draws, tails, axis=0), np.quantile(draws, [1 - tail for tail in tails], axis=0)
    p_positive = drawn.sign["p_positive"].transpose("segment", "arm").values.ravel()
    return Replication(-1, "certified", "", ranks, (low <= effect) & (effect <= high), p_positive, effect > 0)


def with_truth(posterior: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Evenly spaced draws, because copies of a weighted point lie side by side; in place of the last one the truth."""
    per_chain = RANKS // CHAINS
    step = posterior.sizes["draw"] // per_chain
    kept = posterior.isel(draw=slice(step // 2, per_chain * step, step)).copy(deep=True)
    for name, values in kept.data_vars.items():
        values[{"chain": -1, "draw": -1}] = truth[name].isel(chain=0, draw=0)
    return kept


def quantities(task: Problem, cells: xr.Dataset, draws: xr.Dataset, watched: Sequence[str]) -> dict[str, Array]:
    """Everything that is ranked, by name: parameters, ATE on the outcome's scale, log-likelihood of the data."""
    drawn: Parameters = likelihood_parameters(draws)
    eta = linear_predictor(task.cells, drawn)
    every = draws.assign(
        ATE=average(on_scale(task.family, drawn, "absolute"), shares(cells)),
        log_likelihood=task.family.log_likelihood(task.cells, eta, drawn).sum("cell"),
    )
    found = {}
    for name, values in every.data_vars.items():
        ordered = values.transpose("chain", "draw", "segment", "arm", ..., missing_dims="ignore")
        dims = list(map(str, ordered.dims[2:]))
        columns = ordered.values.reshape(ordered.shape[0] * ordered.shape[1], -1).T
        for place, column in zip(product(*(ordered[dim].values for dim in dims)), columns, strict=True):
            if "segment" not in dims or place[0] in watched:
                found[f"{name}[{', '.join(map(str, place))}]" if place else str(name)] = column
    return found


def rank_of_last(values: Array, rng: np.random.Generator) -> int:
    """How many of the others lie below the last; ties are broken at random."""
    if not (np.isfinite(values).all() and len(values) == RANKS):
        raise ValueError("draws are missing or not finite")
    return int((values[:-1] < values[-1]).sum() + rng.integers((values[:-1] == values[-1]).sum() + 1))


def replications(
    name: str, count: int, *, engine: str = "exactly", seed: int = 1, draws: int = 4000, workers: int = 1
) -> Iterator[Replication]:
    """Replications 0, 1, …, in that order."""
    work = partial(replicate, name, engine=engine, seed=seed, draws=draws)
    if workers == 1:
        yield from map(work, range(count))
        return
    with ProcessPoolExecutor(workers, initializer=_use_one_core) as pool:
        yield from pool.map(work, range(count), chunksize=10)


# ------------------------------------------------------------------------------------------------- uniformity


def chi_square(counts: Counts) -> float:
    """P-value of Pearson's test with 20 bins of equally many ranks."""
    return float(stats.chisquare(counts.reshape(BINS, -1).sum(1)).pvalue)


@lru_cache
def _depths(total: int) -> Array:
    """Two-sided binomial p-value of k of `total` ranks below each edge: (edge, k)."""
    k, edges = np.arange(total + 1), np.arange(1, RANKS)[:, None] / RANKS
    below = special.bdtr(k, total, edges)
    return np.asarray(2 * np.minimum(below, 1 - np.pad(below, ((0, 0), (1, 0)))[:, :-1]))


def depth(counts: Counts) -> Array:
    """The most extreme point of the ECDF: smallest p-value over the edges (Säilynoja et al. 2022); (…,)."""
    below = counts.cumsum(-1)[..., :-1]
    return np.asarray(_depths(int(counts.sum(-1).flat[0]))[np.arange(RANKS - 1), below].min(-1))


@lru_cache
def null_depths(total: int) -> Array:
    """Depths of uniform ranks, sorted: what makes the bands simultaneous."""
    simulated = np.random.default_rng(total).multinomial(total, np.full(RANKS, 1 / RANKS), size=SIMULATIONS)
    return np.sort(depth(simulated))


def ecdf_p(counts: Counts) -> float:
    """P-value of the largest departure of the ECDF from the diagonal."""
    null = null_depths(int(counts.sum()))
    return float((1 + np.searchsorted(null, depth(counts), side="right")) / (1 + len(null)))


def band(total: int, alpha: float) -> tuple[Array, Array]:
    """ECDF minus diagonal stays between these at all edges at once with probability 1 − alpha."""
    pointwise, edges = float(np.quantile(null_depths(total), alpha)), np.arange(1, RANKS) / RANKS
    low, high = (stats.binom.ppf(q, total, edges) / total - edges for q in (pointwise / 2, 1 - pointwise / 2))
    return low, high


def holm(p: Array) -> Array:
    """Holm's adjusted p-values, in the given order."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


# -------------------------------------------------------------------------------------------------- summaries


def gap(observed: Array, expected: Array, variance: Array, kept: NDArray[np.bool_]) -> Record:
    """Averages of what was observed and of what was expected, where `kept`; all (replication, effect).

    Effects of one replication share hyperparameters, so the standard error is the one between replications; but
    at least that of independent effects with the expected `variance`, because rare events may happen not to occur.
    """
    difference, weight = np.where(kept, observed - expected, 0.0).sum(1), kept.sum(1)
    total = int(weight.sum())
    if not total:
        return {"count": 0, "observed": None, "expected": None, "standard_error": None, "z": 0.0}
    mean = float(difference.sum() / total)
    between = float(((difference - mean * weight) ** 2).sum())
    error = max(between, float(variance[kept].sum())) ** 0.5 / total
    return {
        "count": total,
        "observed": float(observed[kept].mean()),
        "expected": float(expected[kept].mean()),
        "standard_error": error,
        "z": mean / error,
    }


def summarised(found: Sequence[Replication]) -> Record:
    """Everything that is kept of the replications of one design."""
    ranked = [each for each in found if each.ranks is not None]
    names = list(ranked[0].ranks or {})
    p, positive = (np.array([getattr(each, name) for each in ranked]) for name in ("p_positive", "positive"))
    inside = np.array([each.inside for each in ranked])
    doubt, wrong, binary = np.minimum(p, 1 - p), 1.0 * ((p > 0.5) != positive), p * (1 - p)
    flat, everywhere = np.ones(p.shape), np.ones(p.shape, dtype=bool)
    edges = np.linspace(0, 1, 11).round(1)
    place = np.clip(np.digitize(p, edges) - 1, 0, 9)
    return {
        "replications": len(found),
        "outcomes": dict(Counter(each.outcome for each in found)),
        "reasons": [f"{each.number}: {each.why}" for each in found if each.outcome != "certified"],
        "ranks": {
            name: np.bincount([(each.ranks or {})[name] for each in ranked], minlength=RANKS).tolist() for name in names
        },
        "coverage": [
            {"level": level} | gap(1.0 * inside[:, at], flat * level, flat * level * (1 - level), everywhere)
            for at, level in enumerate(LEVELS)
        ],
        "sign": {
            "brier": gap((p - positive) ** 2, binary, binary * (1 - 2 * p) ** 2, everywhere),
            "wrong_among_calls": gap(wrong, doubt, binary, doubt < 1 - CALL),
            "reliability": [
                {"from": edges[at], "to": edges[at + 1]} | gap(1.0 * positive, p, binary, place == at)
                for at in range(10)
            ],
        },
    }


def judged(records: Mapping[str, Record]) -> dict[str, Record]:
    """The records with the p-values of all their ranks, Holm-adjusted over all records together."""
    keys = [(name, quantity) for name, record in records.items() for quantity in record["ranks"]]
    counts = [np.array(records[name]["ranks"][quantity]) for name, quantity in keys]
    raw = np.array([[chi_square(each), ecdf_p(each)] for each in counts])
    adjusted = holm(raw.ravel()).reshape(raw.shape)
    p: dict[str, Record] = {name: {} for name in records}
    for (name, quantity), each, corrected in zip(keys, raw, adjusted, strict=True):
        p[name][quantity] = {"chi_square": each[0], "ecdf": each[1], "holm": corrected.min()}
    return {name: record | {"p": p[name]} for name, record in records.items()}


def faults(record: Record) -> list[str]:
    """What in a judged record an engine that is right would not do; sentences, the least uniform ranks first."""
    p = sorted((each["holm"], name) for name, each in record["p"].items() if not each["holm"] > ALPHA)
    found = [f"{name} is not uniform, p = {max(each, 1e-99):.0e}" for each, name in p]
    gaps = {f"{each['level']:.0%} intervals": each for each in record["coverage"]}
    gaps |= {"Brier score": record["sign"]["brier"], "wrong signs among calls": record["sign"]["wrong_among_calls"]}
    found += [
        f"{name}: {each['observed']:.4f} instead of {each['expected']:.4f}, {each['z']:+.1f} standard errors"
        for name, each in gaps.items()
        if not abs(each["z"]) <= MAX_Z
    ]
    broken = record["outcomes"].get("broken", 0)
    return found + ([f"{broken} replications broke down"] if broken else [])


def _use_one_core() -> None:
    exact.target.use_one_core()
    threadpool_limits(1)


def engine_sha256() -> str:
    """Of the source files that the results depend on most, whatever their line ends."""
    digest = hashlib.sha256()
    for path in sorted([*(ENGINE / "exact").glob("*.py"), *(ENGINE / "families").glob("*.py")]):
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        digest.update(f"{path.relative_to(ENGINE).as_posix()}\n{text}\n".encode())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------ what people see


def tables(results: Record) -> str:
    """The results as Markdown: ranks, effects, and engines that are wrong."""
    ranks = ["| design | | replications | refused | unsupported | broken | quantities | smallest p | Holm |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    effects = ["| design | 50 % | 80 % | 95 % | Brier score | promised | wrong signs | promised |",
               "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, record in results["designs"].items():
        tests = record["p"].values()
        failed = " | ".join(str(record["outcomes"].get(kind, 0)) for kind in ("refused", "unsupported", "broken"))
        smallest = min(min(each["chi_square"], each["ecdf"]) for each in tests), min(each["holm"] for each in tests)
        ranks.append(f"| {name} | {DESIGNS[name].what} | {record['replications']:,} | {failed} | {len(tests)} "
                     f"| {smallest[0]:.3f} | {smallest[1]:.2f} |")  # fmt: skip
        covered = " | ".join(_percent(each, 1) for each in record["coverage"])
        brier, wrong = record["sign"]["brier"], record["sign"]["wrong_among_calls"]
        effects.append(f"| {name} | {covered} | {brier['observed']:.4f} ± {brier['standard_error']:.4f} "
                       f"| {brier['expected']:.4f} | {_percent(wrong, 2)} "
                       f"| {100 * wrong['expected']:.2f} % |")  # fmt: skip
    caught = ["| wrong on purpose | design | replications | caught by |", "|---|---|---|---|"]
    for each in results["wrong"]:
        said = "; ".join(each["faults"][:2]) + (" …" if len(each["faults"]) > 2 else "")
        caught.append(f"| `{each['engine']}` | {each['design']} | {each['replications']} | {said or 'NOTHING'} |")
    return "\n\n".join("\n".join(lines) for lines in (ranks, effects, caught))


def _percent(each: Record, digits: int) -> str:
    return f"{100 * each['observed']:.{digits}f} ± {100 * each['standard_error']:.{digits}f} %"


def drawn_figure(results: Record) -> Any:
    """A panel per design: ECDF of the ranks minus the diagonal, all quantities; and the reliability of signs."""
    from matplotlib.figure import Figure

    records = results["designs"]
    figure = Figure(figsize=(10.5, 6.2), layout="constrained")
    panels = figure.subplots(-(-(len(records) + 1) // 3), 3, squeeze=False).ravel()
    edges = np.arange(RANKS + 1) / RANKS
    for axes, (name, record) in zip(panels, records.items(), strict=False):
        counts = np.array(list(record["ranks"].values()))
        total = int(counts[0].sum())
        low, high = (np.pad(each, 1) for each in band(total, 0.05 / len(counts)))
        axes.fill_between(edges[::2], low[::2], high[::2], color="#e3e9f0", linewidth=0)
        ecdf = np.pad(counts.cumsum(1) / total, ((0, 0), (1, 0))) - edges
        axes.plot(edges[::2], ecdf.T[::2], color="#17508f", linewidth=0.7, alpha=0.7)
        axes.set_title(f"{name}: {len(counts)} quantities, {total:,} ranks", fontsize=9)
        axes.set(xlabel="normalised rank", ylabel="ECDF − diagonal", xlim=(0, 1))
    axes = panels[len(records)]
    axes.plot([0, 1], [0, 1], color="#b6bec7", linewidth=1)
    for name, record in records.items():
        bins = [each for each in record["sign"]["reliability"] if each["count"]]
        axes.plot([b["expected"] for b in bins], [b["observed"] for b in bins], ".-", linewidth=0.8, label=name)
    axes.set_title("Signs: how often the effect was positive", fontsize=9)
    axes.set(xlabel="P(effect > 0)", ylabel="share positive")
    axes.legend(fontsize=7, frameon=False)
    for axes in panels[len(records) + 1 :]:
        axes.set_axis_off()
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def as_json(results: Record) -> str:
    """JSON with every list of numbers on one line."""
    text = json.dumps(results, indent=1, ensure_ascii=False)
    return re.sub(r"\[[\d\s,]+\]", lambda found: " ".join(found[0].split()), text) + "\n"


def renewed(page: str, results: Record) -> str:
    """The page with its tables replaced."""
    marked = re.compile(r"(<!-- tables -->).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda found: f"{found[1]}\n\n{tables(results)}\n\n{found[2]}", page)


# ---------------------------------------------------------------------------------------------------- command


def shown(found: Iterator[Replication], count: int, what: str) -> list[Replication]:
    """All replications, with a progress bar for a person at a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return list(track(found, what, total=count, console=console, disable=not sys.stderr.isatty()))


def run(asked: argparse.Namespace) -> Record:
    """Calibrate what was asked for; other designs' records are kept as they are."""
    kept: Record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"designs": {}, "wrong": []}
    settings = {"seed": asked.seed, "draws": asked.draws, "workers": asked.workers}
    source = engine_sha256()
    records, wrong = dict(kept["designs"]), list(kept["wrong"])
    for name, design in DESIGNS.items():
        if design.model.family not in asked.family:
            continue
        start = time.perf_counter()
        found = shown(replications(name, asked.replications, **settings), asked.replications, name)
        seconds = round(time.perf_counter() - start)
        how = {"family": design.model.family, "engine_sha256": source, "seed": asked.seed, "draws": asked.draws}
        records[name] = how | {"seconds": seconds} | summarised(found)
        print(f"{name}: {seconds} s, {records[name]['outcomes']}", flush=True)
    for engine, name in WRONG:
        if DESIGNS[name].model.family not in asked.family:
            continue
        count = max(asked.replications // 5, 100)
        found = shown(replications(name, count, engine=engine, **settings), count, engine)
        caught = faults(judged({name: summarised(found)})[name])
        wrong = [each for each in wrong if (each["engine"], each["design"]) != (engine, name)]
        wrong.append({"engine": engine, "design": name, "replications": count, "faults": caught})
        print(f"{engine}, {name}: {len(caught)} faults", flush=True)
    if engine_sha256() != source:
        raise SystemExit("the engine's source changed during the run: run it again")
    order = {name: place for place, name in enumerate(DESIGNS)}
    return {
        "made_by": "python benchmarks/calibration.py",
        "designs": judged({name: records[name] for name in sorted(records, key=order.__getitem__)}),
        "wrong": sorted(wrong, key=lambda each: WRONG.index((each["engine"], each["design"]))),
    }


def main() -> None:
    """Run, write, and print the tables."""
    from bayes_hte.plot import save

    families = sorted({design.model.family for design in DESIGNS.values()})
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replications", type=int, default=2000, help="per design")
    parser.add_argument("--family", nargs="+", choices=families, default=families, help="default: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, default=4000, help="of each posterior")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    start = time.perf_counter()
    results = run(parser.parse_args())
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(as_json(results), encoding="utf-8", newline="\n")
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8", newline="\n")
    save(drawn_figure(results), FIGURE)
    print(tables(results))
    for name, record in results["designs"].items():
        for each in [*faults(record), *record["reasons"]]:
            print(f"{name}: {each}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
