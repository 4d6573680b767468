"""Simulation-based calibration of the engines: parameters from the prior, data from them, and back.

    python benchmarks/calibration.py [--stale] [--design binomial "two parts" …] [--replications 20] [--output FOLDER]

If the engine is right, the rank of a parameter among draws from its posterior is uniform, whatever the parameter and
the data (Talts et al. 2018); so is that of the likelihood of the data, which alone notices an engine that leaves
data out (Modrák et al. 2023). Central intervals then hold the truth as often as they say, and so do probabilities
of signs. Everything is written to results/, and the tables of calibration.md are renewed.

A data set that the exact engine would refuse is kept with the draws it was refused for; one that no engine takes
(no event in any cell) has no ranks and is counted. Leaving data sets out because of what they hold, not because of
the parameters behind them, does not bias the ranks of the others.

Every design is stored with a hash of what its result depends on; `--stale` runs those whose hash has changed.
"""

import argparse
import hashlib
import inspect
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
import xarray as xr
from calibration_crossed import crossed_designs
from calibration_designs import DESIGNS as ONE_WAY_DESIGNS
from calibration_designs import Array, Counts, Design, Record, kind
from numpy.typing import NDArray
from scipy import special, stats
from threadpoolctl import threadpool_limits

from bayes_hte import Model, read_model
from bayes_hte.errors import DataError
from bayes_hte.estimands.effects import convert_to_scale, select_likelihood_parameters
from bayes_hte.estimands.weights import average_over_segments, compute_population_shares
from bayes_hte.inference import exact
from bayes_hte.inference.certificate import Certificate
from bayes_hte.inference.draws import CHAIN_COUNT, Draws, add_mean_outcome
from bayes_hte.model.families.cell_likelihood import ArmCellData
from bayes_hte.model.long_form import ParameterDraws, build_long_form, compute_linear_predictor
from bayes_hte.model.parameters import name_term_variable
from bayes_hte.model.prior_draws import draw_from_prior
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import cell_table, list_shipped_models
from bayes_hte.spec.distributions import rescale_distribution
from bayes_hte.spec.fit_tree import list_versions

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "calibration.json"
FIGURE = HERE / "results" / "calibration.svg"
PAGE = HERE / "calibration.md"
PACKAGE = HERE.parent / "bayes_hte"
COMMAND = "python benchmarks/calibration.py --stale"

DESIGNS: Mapping[str, Design] = {**ONE_WAY_DESIGNS, **crossed_designs()}

RANKS = 100
"""Ranks 0 to 99: the truth among 99 draws, so that bins of 5 ranks are equally likely."""
BINS = 20
LEVELS = (0.5, 0.8, 0.95)
CALL = 0.95
"""Probability of a sign above which one calls it."""
ALPHA = 0.01
"""Chance that an engine that is right fails any test of uniformity, all of them taken together (Holm)."""
MAX_Z = 4.0
"""Standard errors: 6.3e-5 per comparison, 0.5 % for the 75 of fifteen designs."""

Engine = Callable[..., Draws]
Outcome = Literal["certified", "refused", "unsupported", "broken"]


# -------------------------------------------------------------------------------------------------- simulation


@dataclass(frozen=True, slots=True)
class Experiment:
    """Parameters from the prior, with the dims of a posterior, and a cell table given them."""

    truth: xr.Dataset
    cells: xr.Dataset


@lru_cache
def _empty(name: str) -> Problem:
    """The problem of a design, without its outcomes."""
    return build_problem(DESIGNS[name].cells, DESIGNS[name].model)


def prior(task: Problem, rng: np.random.Generator) -> xr.Dataset:
    """One draw of everything from the prior; dims as in a posterior."""
    drawn = draw_from_prior(task, draw_count=1, rng=rng)
    return add_mean_outcome(task, xr.Dataset(drawn))


def simulate(name: str, rng: np.random.Generator) -> Experiment:
    """One experiment of a design."""
    truth = prior(_empty(name), rng)
    cells = DESIGNS[name].outcomes(DESIGNS[name].cells, truth.isel(chain=0, draw=0), rng)
    return Experiment(truth, cell_table.check_cell_table(cells))


# ----------------------------------------------------------------------------- engines, eight of them wrong


def exactly(task: Problem, *, draws: int, seed: int) -> Draws:
    """What is calibrated."""
    return exact.posterior(task, draws=draws, seed=seed)


def by_nuts(task: Problem, *, draws: int, seed: int) -> Draws:
    """NUTS with machine code that all data sets of a design share, for what the exact engine does not solve."""
    import nutpie

    from bayes_hte.inference.nuts.compile_cache import compile_or_reuse
    from bayes_hte.model.pymc.build import build_pymc_model

    tree = nutpie.sample(
        compile_or_reuse(build_pymc_model(task, reusable=True)), draws=-(-draws // CHAIN_COUNT), tune=TUNE,
        chains=CHAIN_COUNT, cores=1, seed=seed, target_accept=TARGET_ACCEPT, progress_bar=False,
    )  # fmt: skip
    return Draws(tree["posterior"].to_dataset(), tree["sample_stats"].to_dataset())


TUNE, TARGET_ACCEPT = 500, 0.95


def _believing(task: Problem, **changed: Any) -> Problem:
    """The problem of somebody who believes something else of the effects."""
    effect = task.model.effect.model_copy(update=changed)
    return replace(task, model=task.model.model_copy(update={"effect": effect}))


def halved_prior(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: takes effects to vary half as much between segments as they do."""
    between = task.model.effect.between
    if between is None:
        raise AssertionError("effects are not partially pooled")
    return exactly(_believing(task, between=rescale_distribution(between, 0.5)), draws=draws, seed=seed)


def misplaced(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: gives every segment the covariates of its neighbour."""
    design = replace(
        task.segment_design, standardised_covariates=np.roll(task.segment_design.standardised_covariates, 1, axis=0)
    )
    return exactly(replace(task, segment_design=design), draws=draws, seed=seed)


def halved_levels(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: takes effects to vary half as much between the levels of a dimension as they do."""
    by_between = task.model.effect.by_between
    if by_between is None:
        raise AssertionError("levels have no prior of their own")
    return exactly(_believing(task, by_between=rescale_distribution(by_between, 0.5)), draws=draws, seed=seed)


def swapped_levels(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: gives every segment its neighbour's level of the last dimension."""
    last = task.model.effect.by[-1]
    index = dict(task.segment_design.level_index) | {last: np.roll(task.segment_design.level_index[last], 1)}
    return exactly(
        replace(task, segment_design=replace(task.segment_design, level_index=index)), draws=draws, seed=seed
    )


def overconfident_levels(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: SDs of the effects of levels are 15 % too small."""
    drawn = exactly(task, draws=draws, seed=seed)
    narrow = {}
    for name in (name_term_variable("effect", term) for term in task.model.effect.by):
        level = drawn.posterior[name]
        centre = level.mean(("chain", "draw"))
        narrow[name] = (centre + 0.85 * (level - centre)).transpose(*level.dims)
    return replace(drawn, posterior=drawn.posterior.assign(narrow))


def overconfident(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: SDs of effects are 15 % too small."""
    drawn = exactly(task, draws=draws, seed=seed)
    effect = drawn.posterior["effect"]
    centre = effect.mean(("chain", "draw"))
    narrow = (centre + 0.85 * (effect - centre)).transpose(*effect.dims)
    return replace(drawn, posterior=drawn.posterior.assign(effect=narrow), sign_probabilities=None)


def deaf(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: never looks at the last arm of counts. A coherent posterior, but not given all data."""
    statistics = task.cell_statistics.copy(deep=True)
    for name in ("n", "events"):
        statistics[name].loc[{"arm": statistics["arm"].values[-1]}] = 0
    return exactly(
        replace(task, cell_statistics=statistics, long_cells=build_long_form(statistics)), draws=draws, seed=seed
    )


def smooth_counts(task: Problem, *, draws: int, seed: int) -> Draws:
    """Wrong: takes counts per unit to vary less than alpha says, as if it were twice as large."""
    curve = task.family.checked_cell_likelihood

    def density(data: ArmCellData, eta: Array, alpha: Array | None) -> Array:
        return curve.compute_log_density(data, eta, None if alpha is None else 2 * alpha)

    def derivatives(data: ArmCellData, eta: Array, alpha: Array | None) -> tuple[Array, Array]:
        return curve.compute_derivatives(data, eta, None if alpha is None else 2 * alpha)

    family = replace(
        task.family, cell_likelihood=replace(curve, compute_log_density=density, compute_derivatives=derivatives)
    )
    return exactly(replace(task, family=family), draws=draws, seed=seed)


ENGINES: Mapping[str, Engine] = {
    each.__name__: each
    for each in (
        exactly, by_nuts, halved_prior, overconfident, deaf, misplaced, smooth_counts, halved_levels, swapped_levels,
        overconfident_levels,
    )
}  # fmt: skip
WRONG = (
    ("halved_prior", "binomial"),
    ("halved_prior", "estimate"),
    ("halved_prior", "ordinal"),
    ("overconfident", "binomial"),
    ("overconfident", "estimate"),
    ("deaf", "binomial"),
    ("misplaced", "covariate"),
    ("smooth_counts", "negative binomial"),
    ("halved_levels", "crossed"),
    ("swapped_levels", "crossed"),
    ("halved_levels", "nested"),
    ("overconfident_levels", "nested"),
)
"""What must be caught, from a few replications."""
FEW = {"overconfident": 400, "overconfident_levels": 800}
"""How many: 200, except where what is wrong is small."""


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
    seconds : float
        Of processor time, simulation included.
    """

    number: int
    outcome: Outcome
    why: str = ""
    ranks: Mapping[str, int] | None = None
    inside: NDArray[np.bool_] | None = None
    p_positive: Array | None = None
    positive: NDArray[np.bool_] | None = None
    seconds: float = 0.0


def replicate(
    name: str, number: int, *, engine: str | None = None, seed: int = 1, draws: int | None = None
) -> Replication:
    """Simulate one experiment of a design, analyse it, and compare with the truth."""
    start = time.process_time()
    rng = np.random.default_rng([seed, crc32(name.encode()), number])
    experiment, design = simulate(name, rng), DESIGNS[name]
    try:
        task = build_problem(experiment.cells, design.model)
    except DataError as reason:
        return Replication(number, "unsupported", str(reason))
    try:
        solve = ENGINES[engine or design.engine]
        drawn = solve(task, draws=draws or design.draws, seed=int(rng.integers(2**31)))
        found = _compared(task, drawn, experiment, design.watched, rng)
    except Exception as reason:  # counted and reported, whatever it is
        return Replication(number, "broken", f"{type(reason).__name__}: {reason}")
    refused, seconds = doubts(drawn), time.process_time() - start
    outcome: Outcome = "refused" if refused else "certified"
    return replace(found, number=number, outcome=outcome, why=" ".join(refused), seconds=seconds)


def doubts(drawn: Draws) -> tuple[str, ...]:
    """What the engine itself says against its draws."""
    if "diverging" in drawn.sample_stats:
        count = int(drawn.sample_stats["diverging"].sum())
        return (f"{count} divergent transitions.",) if count else ()
    certificate = Certificate.from_sample_stats(drawn.sample_stats)
    return () if certificate is None else certificate.list_warnings()


def _compared(
    task: Problem, drawn: Draws, experiment: Experiment, watched: Sequence[str], rng: np.random.Generator
) -> Replication:
    """Ranks, intervals and signs."""
    truth = experiment.truth
    among = quantities(task, experiment.cells, with_truth(drawn.posterior, truth), watched)
    ranks = {name: rank_of_last(values, rng) for name, values in among.items()}
    effect = truth["effect"].transpose("chain", "draw", "segment", "arm").values.ravel()
    draws = drawn.posterior["effect"].transpose("chain", "draw", "segment", "arm").values.reshape(-1, len(effect))
    tails = [(1 - level) / 2 for level in LEVELS]
    low, high = np.quantile(draws, tails, axis=0), np.quantile(draws, [1 - tail for tail in tails], axis=0)
    p_positive = (draws > 0).mean(0)
    if drawn.sign_probabilities is not None:
        p_positive = drawn.sign_probabilities["p_positive"].transpose("segment", "arm").values.ravel()
    return Replication(-1, "certified", "", ranks, (low <= effect) & (effect <= high), p_positive, effect > 0)


def with_truth(posterior: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """Evenly spaced draws, because copies of a weighted point lie side by side; in place of the last one the truth."""
    per_chain = RANKS // CHAIN_COUNT
    step = posterior.sizes["draw"] // per_chain
    ranked = posterior[[name for name in posterior.data_vars if name in truth]]
    kept = ranked.isel(draw=slice(step // 2, per_chain * step, step)).copy(deep=True)
    for name, values in kept.data_vars.items():
        one = truth[name].isel(chain=0, draw=0)
        values[{"chain": -1, "draw": -1}] = one.transpose(*(dim for dim in values.dims if dim in one.dims)).values
    return kept


def quantities(task: Problem, cells: xr.Dataset, draws: xr.Dataset, watched: Sequence[str]) -> dict[str, Array]:
    """Everything that is ranked, by name: parameters, ATE on the outcome's scale, log-likelihood of the data."""
    drawn: ParameterDraws = select_likelihood_parameters(draws)
    eta = compute_linear_predictor(task.long_cells, drawn)
    every = draws.assign(
        ATE=average_over_segments(
            convert_to_scale(task.family, drawn, "absolute", cells), compute_population_shares(cells)
        ),
        log_likelihood=task.family.compute_log_likelihood(task.long_cells, eta, drawn).sum("cell"),
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
    name: str,
    count: int,
    *,
    engine: str | None = None,
    seed: int = 1,
    draws: int | None = None,
    workers: int = 1,
) -> Iterator[Replication]:
    """Replications 0, 1, …, in that order."""
    work = partial(replicate, name, engine=engine, seed=seed, draws=draws)
    if workers == 1:
        yield from map(work, range(count))
        return
    with ProcessPoolExecutor(workers, initializer=_use_one_core) as pool:
        yield from pool.map(work, range(count), chunksize=5)


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


def _inside(total: int, least: float) -> tuple[Counts, Counts]:
    """Fewest and most ranks below each edge whose pointwise p-value is greater than `least`."""
    deep = _depths(total) > least
    return deep.argmax(1), total - deep[:, ::-1].argmax(1)


def leaving(total: int, least: float) -> float:
    """Probability that uniform ranks have a depth of at most `least`, without simulation.

    The numbers of ranks in the bins are independent Poisson numbers, given their sum: the path of the ECDF is
    followed bin by bin, and what leaves the band is dropped.
    """
    law, mean = stats.poisson(total / RANKS), total / RANKS
    kernel = law.pmf(np.arange(int(mean + 20 * mean**0.5 + 40)))  # what is beyond has no weight in double precision
    within, first = np.ones(1), 0
    for low, high in zip(*_inside(total, least), strict=True):
        spread = np.convolve(within, kernel)
        start = max(low, first)
        within, first = spread[start - first : high + 1 - first], start
    last = total - first - np.arange(len(within))
    return max(1 - float(within @ law.pmf(last) / stats.poisson.pmf(total, total)), 0.0)


def ecdf_p(counts: Counts) -> float:
    """P-value of the largest departure of the ECDF from the diagonal."""
    return leaving(int(counts.sum()), float(depth(counts)))


@lru_cache
def band(total: int, alpha: float) -> tuple[Array, Array]:
    """ECDF minus diagonal stays between these at all edges at once with probability 1 − alpha or more."""
    depths: Array = np.unique(_depths(total))
    few, many = 0, len(depths) - 1
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if leaving(total, float(depths[middle])) <= alpha else (few, middle)
    edges = np.arange(1, RANKS) / RANKS
    low, high = (each / total - edges for each in _inside(total, depths[few]))
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


# -------------------------------------------------------------------------------------------------- staleness

SHARED = (
    "inference/draws.py", "model/coefficients.py", "model/parameters.py", "model/prior_draws.py", "model/priors.py",
    "model/families/cell_likelihood.py", "model/families/family.py",
)  # fmt: skip
ONLY_FOR = {
    "estimate": ("inference/exact/direct.py", "inference/exact/estimates.py"),
    "two_part": ("inference/exact/parts.py",),
}
"""Modules of the exact engine that other families do not reach."""
PARTS = {"two_part": ("binomial", "normal")}


def sources(design: Design) -> list[str]:
    """The files of the package that the results of a design depend on."""
    family = design.model.family
    named = [*SHARED, *(f"model/families/{each}.py" for each in (family, *PARTS.get(family, ())))]
    if design.engine == "by_nuts":
        return sorted([*named, "model/pymc/build.py", "model/pymc/pooling.py", "inference/nuts/compile_cache.py"])
    others = {file for other, files in ONLY_FOR.items() if other != family for file in files}
    engine = {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "inference" / "exact").rglob("*.py")}
    return sorted([*named, *(engine - others)])


def shipped_like(design: Design) -> list[str]:
    """Shipped models of a design's family and structure."""
    return [name for name in list_shipped_models() if kind(read_model(name)) == kind(design.model)]


def fingerprint(name: str) -> str:
    """SHA-256 of all that a design's results depend on: sources, whatever their line ends, and the design itself."""
    design, digest = DESIGNS[name], hashlib.sha256()
    for file in sources(design):
        digest.update(f"{file}\n{(PACKAGE / file).read_text(encoding='utf-8')}\n".encode())
    for shipped in shipped_like(design):
        digest.update(_beliefs(read_model(shipped)).encode())
    own = [
        _beliefs(design.model),
        cell_table.hash_cell_table(design.cells),
        *design.watched,
        inspect.getsource(design.outcomes),
    ]
    digest.update("\n".join(own).encode())
    return digest.hexdigest()


def _beliefs(model: Model) -> str:
    """A model without what is written for people."""
    return model.model_dump_json(exclude={"title", "notes"}, exclude_none=True)


def stale(stored: Mapping[str, Record]) -> list[str]:
    """Designs whose stored results are not those of the present sources."""
    return [name for name in DESIGNS if stored.get(name, {}).get("sha256") != fingerprint(name)]


def describe_stale(names: list[str]) -> str:
    """Say on the page which results are of earlier sources; "" where none is."""
    if not names:
        return ""
    listed = "all designs" if len(names) == len(DESIGNS) else ", ".join(names)
    return f"Of sources before the last changes, to be run again with `{COMMAND}`: {listed}."


# ------------------------------------------------------------------------------------------ what people see


def tables(results: Record) -> str:
    """The results as Markdown: ranks, effects, and engines that are wrong."""
    ranks = ["| design | | replications | refused | unsupported | broken | quantities | smallest p | Holm | run |",
             "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    effects = ["| design | 50 % | 80 % | 95 % | Brier score | promised | wrong signs | promised |",
               "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, record in results["designs"].items():
        tests = record["p"].values()
        failed = " | ".join(str(record["outcomes"].get(kind, 0)) for kind in ("refused", "unsupported", "broken"))
        smallest = min(min(each["chi_square"], each["ecdf"]) for each in tests), min(each["holm"] for each in tests)
        ranks.append(f"| {name} | {DESIGNS[name].what} | {record['replications']:,} | {failed} | {len(tests)} "
                     f"| {smallest[0]:.4f} | {smallest[1]:.2f} | {record['date']} |")  # fmt: skip
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

    records, columns = results["designs"], 4
    rows = -(-(len(records) + 1) // columns)
    figure = Figure(figsize=(12, 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, record) in zip(panels, records.items(), strict=False):
        _draw_ranks(axes, name, record)
    axes = panels[len(records)]
    axes.plot([0, 1], [0, 1], color="#b6bec7", linewidth=1)
    for record in records.values():
        bins = [each for each in record["sign"]["reliability"] if each["count"]]
        expected, observed = ([each[key] for each in bins] for key in ("expected", "observed"))
        axes.plot(expected, observed, color="#17508f", linewidth=0.6, alpha=0.6)
    axes.set_title("Signs, all designs", fontsize=9)
    axes.set(xlabel="P(effect > 0)", ylabel="share positive")
    for axes in panels[len(records) + 1 :]:
        axes.set_axis_off()
    for axes in panels:
        axes.tick_params(labelsize=7)
        axes.locator_params(nbins=4)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_ranks(axes: Any, name: str, record: Record) -> None:
    """Every twentieth of the ranks: the picture of all would be a megabyte."""
    step, edges = RANKS // BINS, np.arange(RANKS + 1) / RANKS
    counts = np.array(list(record["ranks"].values()))
    total = int(counts[0].sum())
    low, high = (np.pad(each, 1) for each in band(total, 0.05 / len(counts)))
    axes.fill_between(edges[::step], low[::step], high[::step], color="#e3e9f0", linewidth=0)
    ecdf = np.pad(counts.cumsum(1) / total, ((0, 0), (1, 0))) - edges
    axes.plot(edges[::step], ecdf.T[::step], color="#17508f", linewidth=0.7, alpha=0.7)
    axes.set_title(f"{name}: {len(counts)} quantities", fontsize=9)
    axes.set(xlabel=f"normalised rank, {total:,}", ylabel="ECDF − diagonal", xlim=(0, 1))


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


def calibrated(name: str, asked: argparse.Namespace) -> Record:
    """The record of one design."""
    design, start = DESIGNS[name], time.perf_counter()
    count, draws = asked.replications or design.replications, asked.draws or design.draws
    before = fingerprint(name)
    settings = {"seed": asked.seed, "draws": draws, "workers": asked.workers}
    found = shown(replications(name, count, **settings), count, name)
    seconds = time.perf_counter() - start
    if fingerprint(name) != before:
        before = "sources changed during the run"
        print(f"{name}: {before}, so it stays stale")
    how = {
        "family": design.model.family,
        "kind": list(kind(design.model)),
        "engine": design.engine,
        "sha256": before,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "versions": list(list_versions()),
        "seed": asked.seed,
        "draws": draws,
        "seconds": round(seconds),
        "seconds_per_replication": round(float(np.mean([each.seconds for each in found])), 3),
    }
    return how | summarised(found)


def caught(engine: str, name: str, asked: argparse.Namespace) -> Record:
    """What is wrong with the results of an engine that is wrong on purpose."""
    enough = FEW.get(engine, 200)
    count = min(asked.replications or enough, enough)
    settings = {"seed": asked.seed, "draws": asked.draws or DESIGNS[name].draws, "workers": asked.workers}
    found = shown(replications(name, count, engine=engine, **settings), count, engine)
    record = judged({name: summarised(found)})[name]
    return {"engine": engine, "design": name, "replications": count, "faults": faults(record)}


def run(asked: argparse.Namespace, kept: Record) -> Iterator[Record]:
    """Calibrate what was asked for; other designs' records are kept as they are. All results after every design."""
    records = {name: each for name, each in kept["designs"].items() if name in DESIGNS}
    wrong = {(each["engine"], each["design"]): each for each in kept["wrong"]}
    yield _results(records, wrong)
    for name in stale(records) if asked.stale else asked.design:
        records[name] = calibrated(name, asked)
        print(f"{name}: {records[name]['seconds']} s, {records[name]['outcomes']}", flush=True)
        for engine, design in WRONG:
            if design == name:
                wrong[engine, name] = caught(engine, name, asked)
                print(f"{engine}, {name}: {len(wrong[engine, name]['faults'])} faults", flush=True)
        yield _results(records, wrong)


def _results(records: Mapping[str, Record], wrong: Mapping[tuple[str, str], Record]) -> Record:
    return {
        "made_by": COMMAND,
        "designs": judged({name: records[name] for name in DESIGNS if name in records}),
        "wrong": [wrong[each] for each in WRONG if each in wrong],
    }


def asked_for() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--design", nargs="+", choices=list(DESIGNS), default=list(DESIGNS), help="default: all")
    parser.add_argument("--stale", action="store_true", help="only designs whose sources changed since they were run")
    parser.add_argument("--replications", type=int, help="per design; by default as many as the design says")
    parser.add_argument("--draws", type=int, help="of each posterior; by default as many as the design says")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--output", type=Path, help="a folder for results of a trial, instead of the stored ones")
    return parser.parse_args()


def main() -> None:
    """Run, write, and print the tables."""
    from bayes_hte.plot import save

    asked, start = asked_for(), time.perf_counter()
    stored, figure, page = (
        file if asked.output is None else asked.output / file.name for file in (RESULTS, FIGURE, PAGE)
    )
    stored.parent.mkdir(parents=True, exist_ok=True)
    kept: Record = {"designs": {}, "wrong": []}
    if stored.exists():
        kept = json.loads(stored.read_text(encoding="utf-8"))
    for results in run(asked, kept):
        stored.write_text(as_json(results), encoding="utf-8", newline="\n")
    page.write_text(renewed(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8", newline="\n")
    save(drawn_figure(results), figure)
    print(tables(results))
    for name, record in results["designs"].items():
        for each in [*faults(record), *record["reasons"][:20]]:
            print(f"{name}: {each}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
