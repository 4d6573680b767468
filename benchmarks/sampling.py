"""Does NUTS get through its own diagnosis? One-way binomial model, five ways to write it, simulated data.

uv run python benchmarks/sampling.py                    # everything, three quarters of an hour on two cores
uv run python benchmarks/sampling.py partial --data 10  # one way, ten data sets per setting

Every way is the same model, term by term; only the coordinates that NUTS moves in differ:

non_centred   offset ~ Normal(0, 1), effect = mean + between offset
centred       effect ~ Normal(mean, between)
partial       in between, segment by segment: weight w = between² / (between² + se²), estimated from the raw data
zero_sum      offsets that add up to zero, and their average moved into the mean
informed      offsets from where each segment's own data and the current mean and between would put it: centred where
              data are strong, non-centred where they are weak, and for the between of every step
"""

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from scipy.special import expit

import bayes_hte as hte
from bayes_hte.criticism import diagnostics
from bayes_hte.inference.nuts import compile_cache

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "sampling.json"
README = FOLDER / "README.md"
BEGIN, END = "<!-- sampling -->", "<!-- end of sampling -->"

SEGMENTS = (3, 8, 40, 400)
UNITS = {"weak": (30, 200), "strong": (5_000, 50_000)}
TAUS = (None, 0.05, 0.3)
"""Between-segment SDs in turn; None draws one from the prior."""
FIRST, SECOND = (0.95, 1000), (0.995, 2500)
"""target_accept and tuning steps, as in `bayes_hte.analysis.fit`."""
DRAWS, CHAINS = 1000, 4
MODEL = hte.read_model("conversion")
PRIORS = {"baseline": (2.5, 1.0), "effect": (1.0, 0.5)}
"""SD of the mean, SD of the half-normal between: as in models/conversion.toml."""
WEIGHTS = {"non_centred": np.zeros_like, "centred": np.ones_like, "partial": np.asarray}
WAYS = ("informed", "non_centred", "centred", "partial", "zero_sum")


@dataclass(frozen=True)
class Data:
    """Counts of every cell, (segment, arm), and the truth behind them."""

    n: np.ndarray
    events: np.ndarray
    tau: float


def simulate(segments: int, units: tuple[int, int], tau: float | None, seed: int) -> Data:
    """Control rates around 10 %, effects around a common one."""
    rng = np.random.default_rng([seed, segments, units[0]])
    tau = abs(rng.normal(0, 0.5)) if tau is None else tau
    n = np.exp(rng.uniform(*np.log(units), (segments, 2))).astype(int)
    baseline = rng.normal(-2.2, 0.5, segments)
    effect = rng.normal(rng.normal(0, 0.2), tau, segments)
    return Data(n, rng.binomial(n, expit(np.stack([baseline, baseline + effect], axis=1))), tau)


def curve(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Every cell's likelihood as that of a log-odds and its precision: half an event on either side."""
    p = (data.events + 0.5) / (data.n + 1)
    return np.log(p / (1 - p)), data.n * p * (1 - p)


def weights(data: Data) -> dict[str, np.ndarray]:
    """between² / (between² + se²) of every segment's baseline and effect, by the raw data alone."""
    at, precision = curve(data)
    raw = {
        "baseline": (at[:, 0], 1 / precision[:, 0]),
        "effect": (at[:, 1] - at[:, 0], (1 / precision).sum(1)),
    }
    return {name: (tau2 := between_variance(y, v)) / (tau2 + v) for name, (y, v) in raw.items()}


def between_variance(estimate: np.ndarray, variance: np.ndarray) -> float:
    """DerSimonian & Laird (1986): the variance between true values that raw estimates suggest; not below 0."""
    w = 1 / variance
    spread = float((w * (estimate - (w * estimate).sum() / w.sum()) ** 2).sum()) - (len(w) - 1)
    return max(0.0, spread / float(w.sum() - (w**2).sum() / w.sum()))


def model(data: Data, way: str) -> pm.Model:
    """The model of `models/conversion.toml`, with its default priors."""
    segments = len(data.n)
    coords = {"segment": np.arange(segments), "arm": ["treated"], "variant": ["control", "treated"]}
    weight, (at, precision) = weights(data), curve(data)
    with pm.Model(coords=coords) as built:
        if way == "informed":
            precision, at = pm.Data("precision__data", precision), pm.Data("at__data", at)
            baseline = informed("baseline", precision[:, 0], at[:, 0])
            effect = informed("effect", precision[:, 1], at[:, 1] - baseline)
        elif way == "zero_sum":
            baseline, effect = (zero_sum(name, segments) for name in PRIORS)
        else:
            baseline, effect = (partial(name, WEIGHTS[way](weight[name])) for name in PRIORS)
        eta = pt.stack([baseline, baseline + effect], axis=1)
        pm.Binomial(
            "events",
            n=pm.Data("n__data", data.n),
            logit_p=eta,
            observed=pm.Data("events__data", data.events),
            dims=("segment", "variant"),
        )
    return built


def partial(name: str, weight: np.ndarray) -> "pt.TensorVariable":
    """Weight 0: non-centred; 1: centred."""
    scale, between_scale = PRIORS[name]
    weight = pm.Data(f"{name}_weight__data", weight)
    mean = pm.Normal(f"{name}_mean", 0, scale)
    between = pm.HalfNormal(f"{name}_between", between_scale)
    offset = pm.Normal(f"{name}_offset", weight * mean, between**weight, dims="segment")
    return pm.Deterministic(name, mean + between ** (1 - weight) * (offset - weight * mean), dims="segment")


def zero_sum(name: str, segments: int) -> "pt.TensorVariable":
    """The segments' own average is sampled; the mean of the population of segments follows from it."""
    scale, between_scale = PRIORS[name]
    between = pm.HalfNormal(f"{name}_between", between_scale)
    chance = between / np.sqrt(segments)
    centre = pm.Normal(f"{name}_centre_offset", 0, pt.sqrt(scale**2 + chance**2))
    noise = pm.Normal(f"{name}_mean_offset")
    share = scale**2 / (scale**2 + chance**2)
    pm.Deterministic(f"{name}_mean", centre * share + chance * pt.sqrt(share) * noise)
    offset = pm.ZeroSumNormal(f"{name}_offset", 1.0, dims="segment")
    return pm.Deterministic(name, centre + between * offset, dims="segment")


def informed(name: str, precision: "pt.TensorVariable", at: "pt.TensorVariable") -> "pt.TensorVariable":
    """Mean first, given the between; then the segments, given both: each where data at `at` would leave it."""
    scale, between_scale = PRIORS[name]
    between = pm.HalfNormal(f"{name}_between", between_scale)
    known = precision / (1 + precision * between**2)
    mean = matched(f"{name}_mean", 0.0, scale, known.sum(), (known * at).sum())
    return matched(name, mean, between, precision, precision * at, dims="segment")


def matched(
    name: str,
    mean: "pt.TensorVariable | float",
    scale: "pt.TensorVariable | float",
    precision: "pt.TensorVariable",
    pull: "pt.TensorVariable",
    *,
    dims: str | None = None,
) -> "pt.TensorVariable":
    """Normal(mean, scale), in coordinates in which data of this precision at pull / precision leave Normal(0, 1)."""
    strength = 1 + precision * scale**2
    spread = scale / pt.sqrt(strength)
    # Chains start where the data are, not where the prior is.
    start = np.zeros([pm.modelcontext(None).dim_lengths[dim].eval() for dim in [dims] if dim])
    offset = pm.Normal(
        f"{name}_offset", spread * (precision * mean - pull), pt.sqrt(strength), dims=dims, initval=start
    )
    return pm.Deterministic(name, (mean + scale**2 * pull) / strength + spread * offset, dims=dims)


@dataclass(frozen=True)
class Run:
    """One data set, one attempt or two."""

    seed: int
    tau: float
    passed_first: bool
    passed: bool
    divergences: int
    ess: float
    rhat: float
    worst: str
    seconds: float
    gradients: int


def attempt(data: Data, way: str, effort: tuple[float, int], seed: int) -> tuple[diagnostics.Diagnosis, float, int]:
    """Sample and diagnose as `hte.fit` does; seconds of sampling, compilation left out."""
    import nutpie

    machine = compile_cache.compile_or_reuse(model(data, way))
    start = time.perf_counter()
    tree = nutpie.sample(
        machine,
        draws=DRAWS,
        tune=effort[1],
        chains=CHAINS,
        cores=2,
        target_accept=effort[0],
        seed=seed,
        progress_bar=False,
        save_warmup=False,
    )
    seconds = time.perf_counter() - start
    stats = tree["sample_stats"].to_dataset()
    return (
        diagnostics.diagnose_draws(as_fit(tree["posterior"].to_dataset(), stats, data)),
        seconds,
        int(stats["n_steps"].sum()),
    )


def as_fit(posterior: xr.Dataset, stats: xr.Dataset, data: Data) -> xr.DataTree:
    """What `diagnose_draws` reads."""
    labels = [f"s{i}" for i in range(len(data.n))]
    table = pd.DataFrame(
        {
            "segment_": np.repeat(labels, 2),
            "arm": np.tile(["control", "treated"], len(labels)),
            "n": data.n.ravel(),
            "events": data.events.ravel(),
        }
    )
    cells = hte.cells.from_summary(table, arm="arm", control="control", segments=["segment_"], n="n", events="events")
    draws = posterior.assign_coords(segment=labels)
    shared = {name: draws[name].expand_dims(arm=["treated"], axis=-1) for name in ("effect_mean", "effect_between")}
    draws = draws.assign(shared | {"effect": draws["effect"].expand_dims(arm=["treated"], axis=-1)})
    draws = draws.reindex(segment=[str(label) for label in cells["segment"].values])
    tree = xr.DataTree.from_dict({"posterior": draws, "sample_stats": stats, "cells": cells})
    tree.attrs["model"] = MODEL.model_dump_json(exclude_none=True)
    return tree


def run(data: Data, way: str, seed: int) -> Run:
    """Where an attempt does not pass, the first way makes a second, as `hte.fit` does; numbers are the first's."""
    found, seconds, gradients = attempt(data, way, FIRST, seed)
    passed = found.ok or (way == WAYS[0] and attempt(data, way, SECOND, seed)[0].ok)
    return Run(
        seed=seed,
        tau=round(data.tau, 4),
        passed_first=found.ok,
        passed=passed,
        divergences=found.divergences,
        ess=round(min(found.ess_bulk_min, found.ess_tail_min), 1),
        rhat=round(found.rhat_max, 4),
        worst=found.worst.split("[")[0],
        seconds=round(seconds, 3),
        gradients=gradients,
    )


def settings(ways: list[str], sizes: list[int], data_sets: int | None) -> Iterator[tuple[str, int, str, int]]:
    """What is run, small ones first."""
    for segments in sizes:
        for strength in UNITS:
            for way in ways:
                many = way == WAYS[0]
                full = (25 if many else 5) if segments == 400 else (100 if many else 20)
                yield way, segments, strength, min(full, data_sets or full)


def summary(way: str, runs: list[Run]) -> dict[str, object]:
    """One row of the table, with everything that failed; `passed` counts the second attempt."""
    frame = pd.DataFrame([asdict(each) for each in runs])
    return {
        "data_sets": len(frame),
        "passed_first": int(frame["passed_first"].sum()),
        "passed": int(frame["passed"].sum()) if way == WAYS[0] else None,
        "with_divergences": int((frame["divergences"] > 0).sum()),
        "divergences": int(frame["divergences"].sum()),
        "ess_median": float(frame["ess"].median()),
        "ess_min": float(frame["ess"].min()),
        "rhat_max": float(frame["rhat"].max()),
        "seconds_median": float(frame["seconds"].median()),
        "gradients_median": float(frame["gradients"].median()),
        "failed_first": [asdict(each) for each in runs if not each.passed_first],
    }


def store(key: str, runs: list[Run]) -> None:
    """Add one setting to the file, at once: a study that is stopped leaves what it has found."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"settings": {}}
    packages = ("bayes_hte", "pymc", "nutpie", "numba", "numpy", "arviz")
    known |= {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "sampling": {"draws": DRAWS, "chains": CHAINS, "cores": 2, "first": FIRST, "second": SECOND},
    }
    known["settings"][key] = summary(key.split(maxsplit=1)[0], runs)
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def study(ways: list[str], sizes: list[int], data_sets: int | None) -> None:
    """Everything that is asked for, setting by setting."""
    for way, segments, strength, count in settings(ways, sizes, data_sets):
        runs = []
        for seed in range(count):
            runs.append(run(simulate(segments, UNITS[strength], TAUS[seed % len(TAUS)], seed), way, seed))
            store(f"{way} {segments} {strength}", runs)
        short = {name: value for name, value in summary(way, runs).items() if name != "failed_first"}
        print(way, segments, strength, json.dumps(short), flush=True)


def table(known: dict[str, dict[str, dict[str, float]]]) -> str:
    """The study in Markdown: one row per setting and way."""
    lines = [
        "| segments | data | written as | data sets | passed at once | with divergences "
        "| fewest effective draws, median and worst | gradients, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for segments, strength, way in product(SEGMENTS, UNITS, WAYS):
        row = known["settings"].get(f"{way} {segments} {strength}")
        if row is not None:
            passed = row["passed_first"] / row["data_sets"]
            lines.append(
                f"| {segments} | {strength} | {way} | {row['data_sets']} | {passed:.0%} "
                f"| {row['with_divergences']} | {row['ess_median']:,.0f}, {row['ess_min']:,.0f} "
                f"| {row['gradients_median']:,.0f} |"
            )
    return "\n".join(lines)


def renew() -> None:
    """Put the table into the README."""
    text = README.read_text()
    before, rest = text.split(BEGIN, maxsplit=1)
    _, after = rest.split(END, maxsplit=1)
    README.write_text(f"{before}{BEGIN}\n\n{table(json.loads(RESULTS.read_text()))}\n\n{END}{after}")


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("ways", nargs="*", default=list(WAYS), help=", ".join(WAYS))
    asked.add_argument("--segments", nargs="*", type=int, default=list(SEGMENTS), help="numbers of segments")
    asked.add_argument("--data", type=int, help="data sets per setting; 0 only renews the table")
    given = asked.parse_args()
    if given.data != 0:
        study(given.ways, given.segments, given.data)
    renew()
