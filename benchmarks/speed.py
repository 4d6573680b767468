"""How fast the exact engine is, side by side with what a user would pick instead, in one run.

    uv run --group bench python benchmarks/speed.py            everything: about twenty minutes, 6 GB
    uv run --group bench python benchmarks/speed.py one_way    one part

Medians of several runs; results go to benchmarks/results/speed.json, the figure to speed.svg. Ratios are what
counts: they hold on other machines, seconds do not.
"""

import argparse
import itertools
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import xarray as xr

import bayes_hte as hte
from bayes_hte.inference import exact
from bayes_hte.inference.exact.latent import requests
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.model.pymc.build import build_pymc_model

RESULTS = Path(__file__).parent / "results"
MANY_DRAWS = 40_000
"""Where what a fit costs whatever the number of its draws no longer counts."""
SIZES = (50, 200, 1000, 3000, 10_000, 30_000, 100_000)
SCHOOLS = pd.DataFrame({
    "school": list("ABCDEFGH"),  # Rubin 1981
    "y": [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0],
    "se": [15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0],
})  # fmt: skip


def counts(segments: int, *, units: tuple[float, float] = (50, 5000), seed: int = 0) -> pd.DataFrame:
    """Counts of a seeded experiment: unequal segments, a common effect of .2 and an SD of .3 (log-odds)."""
    rng = np.random.default_rng(seed)
    n = np.exp(rng.uniform(*np.log(units), segments)).astype(int)
    baseline, effect = rng.normal(-2.0, 0.5, segments), rng.normal(0.2, 0.3, segments)
    names = np.array([f"s{i:06d}" for i in range(segments)])
    arms = []
    for arm, eta in (("control", baseline), ("treated", baseline + effect)):
        arms.append(
            pd.DataFrame({"segment_name": names, "arm": arm, "n": n, "events": rng.binomial(n, 1 / (1 + np.exp(-eta)))})
        )
    return pd.concat(arms, ignore_index=True)


def cells_of(frame: pd.DataFrame) -> xr.Dataset:
    """The cell table of some counts."""
    return hte.cells.from_summary(
        frame, arm="arm", control="control", segments=["segment_name"], n="n", events="events"
    )


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per unit."""
    repeated = frame.loc[frame.index.repeat(frame["n"]), ["segment_name", "arm"]].reset_index(drop=True)
    order = np.concatenate([np.arange(n) for n in frame["n"]])
    repeated["y"] = (order < np.repeat(frame["events"].to_numpy(), frame["n"])).astype(int)
    return repeated


def timed(work: Callable[[], Any], runs: int) -> tuple[float, Any]:
    """Median wall time in seconds, and the last result."""
    times, found = [], None
    for _ in range(runs):
        begun = perf_counter()
        found = work()
        times.append(perf_counter() - begun)
    return median(times), found


def ess_of_tau(posterior: xr.Dataset) -> float:
    """Bulk effective sample size of the between-segment SD (ArviZ)."""
    import arviz_stats as az

    return float(az.ess(posterior[["effect_between"]], method="bulk")["effect_between"].min())


def one_way() -> dict[str, Any]:
    """Binomial, 50 segments: the engine and `fit` as a whole against PyMC with nutpie, compiled before."""
    import nutpie
    import pymc as pm

    cells, model = cells_of(counts(50)), hte.read_model("conversion")
    task = build_problem(cells, model)
    hte.fit(cells, model)
    engine, drawn = timed(lambda: exact.posterior(task, draws=4000, seed=1), 15)
    whole, fit = timed(lambda: hte.fit(cells, model, seed=1), 15)
    many_seconds, many_drawn = timed(lambda: exact.posterior(task, draws=MANY_DRAWS, seed=1), 7)
    built = build_pymc_model(task)
    begun = perf_counter()
    compiled = nutpie.compile_pymc_model(built)
    compiling = perf_counter() - begun
    options = {"draws": 1000, "tune": 1000, "chains": 4, "seed": 1, "progress_bar": False}
    nuts, tree = timed(lambda: nutpie.sample(compiled, **options), 5)
    with built:
        begun = perf_counter()
        pm.sample(random_seed=1, progressbar=False, quiet=True, compute_convergence_checks=False)
        cold = perf_counter() - begun
    ess_nuts = ess_of_tau(tree["posterior"].to_dataset())
    ess_exact = ess_of_tau(drawn.posterior)
    return {
        "engine_seconds": engine, "fit_seconds": whole, "nuts_warm_seconds": nuts, "nuts_compile_seconds": compiling,
        "pm_sample_seconds": cold, "ess_tau_exact": ess_exact, "ess_tau_nuts": ess_nuts,
        "pareto_k": fit.diagnosis.pareto_k,
        "wall_ratio_engine": nuts / engine, "wall_ratio_fit": nuts / whole,
        "ess_per_second_ratio_engine": (ess_exact / engine) / (ess_nuts / nuts),
        "ess_per_second_ratio_fit": (ess_exact / whole) / (ess_nuts / nuts),
        "many_draws": MANY_DRAWS, "many_draws_seconds": many_seconds,
        "many_draws_ess": ess_of_tau(many_drawn.posterior),
        "ess_per_second_ratio_many_draws": (ess_of_tau(many_drawn.posterior) / many_seconds) / (ess_nuts / nuts),
    }  # fmt: skip


def bambi() -> dict[str, Any]:
    """The same question asked of Bambi: on counts, and on 50,000 rows; ours includes reading and aggregation."""
    import bambi as bmb

    frame = counts(40, units=(60, 2500), seed=3)
    rows = rows_of(frame)
    hte.fit(cells_of(frame), "conversion")

    def ours_from_rows() -> hte.Fit:
        cells = hte.cells.from_rows(rows, outcome="y", arm="arm", control="control", segments=["segment_name"])
        return hte.fit(cells, "conversion")

    ours_from_rows()
    counts_seconds, _ = timed(lambda: hte.fit(cells_of(frame), "conversion"), 9)
    rows_seconds, _ = timed(ours_from_rows, 9)
    wide = frame.assign(treated=(frame["arm"] == "treated").astype(int))
    options = {"progressbar": False, "random_seed": 1, "inference_method": "nutpie"}
    begun = perf_counter()
    bmb.Model("p(events, n) ~ treated + (treated | segment_name)", wide, family="binomial").fit(**options)
    bambi_counts = perf_counter() - begun
    units = rows.assign(treated=(rows["arm"] == "treated").astype(int))
    begun = perf_counter()
    bmb.Model("y ~ treated + (treated | segment_name)", units, family="bernoulli").fit(**options)
    bambi_rows = perf_counter() - begun
    return {
        "rows": len(rows), "fit_counts_seconds": counts_seconds, "fit_rows_seconds": rows_seconds,
        "bambi_counts_seconds": bambi_counts, "bambi_rows_seconds": bambi_rows,
        "ratio_counts": bambi_counts / counts_seconds, "ratio_rows": bambi_rows / rows_seconds,
    }  # fmt: skip


def schools() -> dict[str, Any]:
    """Eight schools: the engine alone, and `fit` as a whole."""
    cells = hte.cells.from_estimates(SCHOOLS, segments=["school"], estimate="y", se="se")
    model = hte.Model.model_validate({
        "family": "estimate",
        "effect": {"mean": {"dist": "Normal", "sigma": 100.0}, "between": {"dist": "Uniform", "upper": 104.44}},
    })  # fmt: skip
    task = build_problem(cells, model)
    hte.fit(cells, model)
    engine, _ = timed(lambda: exact.posterior(task, draws=4000, seed=1), 41)
    whole, _ = timed(lambda: hte.fit(cells, model), 41)
    return {"engine_seconds": engine, "fit_seconds": whole}


def peak_gb() -> float:
    """Largest resident memory of this process; its own, unlike getrusage's, which starts with the parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def one_size(segments: int) -> dict[str, Any]:
    """One table of many segments, in a process of its own."""
    cells = cells_of(counts(segments, units=(50, 2000)))
    before = peak_gb()
    hte.fit(cells_of(counts(20)), "conversion", sampler="exact")
    seconds, fit = timed(lambda: hte.fit(cells, "conversion", sampler="exact"), 3 if segments <= 3000 else 1)
    return {
        "segments": segments, "fit_seconds": seconds, "draws": int(fit.tree["posterior"].sizes["draw"]) * 4,
        "effective_points": fit.diagnosis.ess_bulk_min, "before_gb": before, "peak_gb": peak_gb(),
        "copied_once_seconds": timed(lambda: cells.copy(deep=True), 9)[0],
    }  # fmt: skip


def sizes() -> list[dict[str, Any]]:
    """Cost against the number of segments."""
    found = []
    for segments in SIZES:
        done = subprocess.run(
            [sys.executable, __file__, "--size", str(segments)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
        print(found[-1])
    return found


def many() -> dict[str, Any]:
    """A nightly batch: 1,000 problems of 20 segments."""
    problems = {f"metric {i}": cells_of(counts(20, seed=i)) for i in range(1000)}
    begun = perf_counter()
    fits = hte.fit_many(problems, "conversion")
    seconds = perf_counter() - begun
    begun = perf_counter()
    reliable = sum(fit.diagnosis.ok for fit in fits.values())
    return {"problems": len(fits), "failed": len(fits.failed), "seconds": seconds, "reliable": reliable,
            "completion_seconds": perf_counter() - begun}  # fmt: skip


def stages() -> dict[str, Any]:
    """Where the time goes: milliseconds of each kind of evaluation, binomial, 50 and 1,000 segments."""
    found = {}
    names = {
        requests.SettleSites: "sites at a peak",
        requests.ApproximateDensity: "densities for searches, scans and maps",
        requests.WeighPoints: "weighted points with their draws",
    }
    answer_request = requests.answer_request
    for segments in (50, 1000):
        task = build_problem(cells_of(counts(segments)), hte.read_model("conversion"))
        runs: list[dict[str, float]] = []

        def answer_and_time(request: requests.Request, runs: list[dict[str, float]] = runs) -> Any:
            begun = perf_counter()
            answer = answer_request(request)
            runs[-1][names[type(request)]] += 1e3 * (perf_counter() - begun)
            return answer

        def run(task: Problem = task, runs: list[dict[str, float]] = runs) -> None:
            runs.append(dict.fromkeys(names.values(), 0.0))
            begun = perf_counter()
            exact.posterior(task, draws=4000, seed=1)
            runs[-1]["all"] = 1e3 * (perf_counter() - begun)

        with mock.patch.object(requests, "answer_request", answer_and_time):
            timed(run, 15 if segments == 50 else 3)
        each = {name: median(one[name] for one in runs) for name in runs[0]}
        whole = each.pop("all")
        found[str(segments)] = {**each, "everything else": whole - sum(each.values()), "all": whole}
    return found


CROSSED = {
    "18 segments × 2 arms, 3 dimensions, 400,000 units": ((3, 3, 2), 2, None, 400_000, 0.2),
    "Hillstrom-like: 10 segments × 3 arms, 3 dimensions, 64,000 units": ((5, 3, 4), 3, 10, 64_000, 0.3),
    "192 segments × 2 arms, 4 dimensions, 400,000 units": ((4, 4, 4, 3), 2, None, 400_000, 0.7),
    "the same, 6,000 units": ((4, 4, 4, 3), 2, None, 6_000, 1.0),
    "400 sparse segments × 2 arms, 5 dimensions (n 2 to 2,000)": ((5, 5, 5, 5, 5), 2, 400, None, 1.5),
    "1,000 segments × 3 arms, 5 dimensions of 10 levels": ((10,) * 5, 3, 1000, 2_000_000, 10.0),
    "2,000 segments × 2 arms, 5 dimensions of 10 levels": ((10,) * 5, 2, 2000, 2_000_000, 6.0),
}
"""Name -> levels of the dimensions, arms, segments kept, units in all, seconds that must not be exceeded."""


def crossed_cells(levels: tuple[int, ...], arms: int, kept: int | None, units: int | None) -> xr.Dataset:
    """Counts of a seeded experiment whose effects differ by the levels of every dimension."""
    rng = np.random.default_rng(0)
    places = np.array(list(itertools.product(*map(range, levels))))
    if kept is not None:
        places = places[rng.permutation(len(places))[:kept]]
    if units is None:
        sizes = np.exp(rng.uniform(np.log(2), np.log(2000), len(places))).astype(int)
    else:
        sizes = np.maximum(rng.dirichlet(np.full(len(places), 2.0)) * units / arms, 1).astype(int)
    names = [f"d{number}" for number in range(len(levels))]
    labels = pd.DataFrame({name: [f"{name}_{level}" for level in places[:, i]] for i, name in enumerate(names)})

    def draw(sd: float) -> np.ndarray:
        return sum(rng.normal(0, sd, count)[places[:, i]] for i, count in enumerate(levels)) + rng.normal(
            0, 0.1, len(places)
        )

    baseline = -2 + draw(0.4)
    tables = []
    for arm in range(arms):
        eta = baseline + (0.1 * arm + draw(0.2) if arm else 0.0)
        tables.append(labels.assign(arm=f"a{arm}", n=sizes, events=rng.binomial(sizes, 1 / (1 + np.exp(-eta)))))
    return hte.cells.from_summary(pd.concat(tables), arm="arm", control="a0", segments=names, n="n", events="events")


def crossed() -> list[dict[str, Any]]:
    """Crossed dimensions, effects and baselines by every one: seconds of `fit`, and its certificate."""
    model = hte.read_model("conversion")
    model = hte.Model.model_validate(model.model_dump(exclude_unset=True) | {
        name: {**getattr(model, name).model_dump(exclude_unset=True), "by": ["*"],
               "by_between": {"dist": "HalfNormal", "sigma": sd}}
        for name, sd in (("effect", 0.5), ("baseline", 1.0))
    })  # fmt: skip
    found = []
    for name, (levels, arms, kept, units, most) in CROSSED.items():
        cells = crossed_cells(levels, arms, kept, units)
        runs = 5 if len(cells["segment"]) <= 400 else 1
        hte.fit(cells, model, sampler="exact", draws=2400)
        seconds, fit = timed(lambda cells=cells: hte.fit(cells, model, sampler="exact", draws=2400), runs)
        statistics = fit.tree["sample_stats"]
        found.append({
            "work": name, "must_reach": most, "seconds": seconds, "peak_gb": peak_gb(),
            "effective_points": float(statistics["effective_points"]), "pareto_k": float(statistics["pareto_k"]),
        })  # fmt: skip
        print(found[-1], flush=True)
    return found


def command() -> dict[str, Any]:
    """`bayes-hte run` on a cell table of 15 segments, as a person waits for it: a new process each time."""
    plan = """
title = "t"
question = "does it work?"
model = "conversion"
[data]
form = "summary"
path = "cells.csv"
outcome = "events"
arm = "arm"
control = "control"
segments = ["segment_name"]
n = "n"
events = "events"
"""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        counts(15).to_csv(Path(folder) / "cells.csv", index=False)
        (Path(folder) / "plan.toml").write_text(plan, encoding="utf-8")
        words = [str(Path(sys.executable).with_name("bayes-hte")), "run", "plan.toml", "--quiet", "--out", "out"]
        for name, more in (("report_seconds", []), ("no_report_seconds", ["--no-report"])):

            def once(more: list[str] = more) -> None:
                shutil.rmtree(Path(folder) / "out", ignore_errors=True)
                subprocess.run([*words, *more], cwd=folder, check=True, capture_output=True)

            once()
            found[name], _ = timed(once, 9)
    return found


def draw_sizes(found: list[dict[str, Any]], path: Path) -> None:
    """Seconds against segments, with a line of slope one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    x, y = [each["segments"] for each in found], [each["fit_seconds"] for each in found]
    axes.loglog(x, y, "o-", color="#17508f", label="bayes_hte.fit, exact engine")
    # a line of slope 1 through the second size: costs that do not grow with the segments count in the first
    axes.loglog(x, [y[1] * size / x[1] for size in x], ":", color="#59636e", label="proportional to segments")
    axes.set_xlabel("segments (two arms)")
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def tables(known: dict[str, Any]) -> str:
    """What was measured, next to what must be reached, as Markdown."""
    one, bambi_, sizes_ = known["one_way"], known["bambi"], {each["segments"]: each for each in known["sizes"]}
    rows = [
        ("binomial, 50 segments: `fit` against PyMC + nutpie, compiled before (4 × 1,000 draws)", "≥ 20 ×",
         f"{one['wall_ratio_fit']:.0f} × ({one['fit_seconds']:.2f} against {one['nuts_warm_seconds']:.2f} s)"),
        ("… effective draws of tau", "≥ 2,000", f"{one['ess_tau_exact']:,.0f} (NUTS {one['ess_tau_nuts']:,.0f})"),
        ("… effective draws of tau per second, default draws", "≥ 100 ×",
         f"{one['ess_per_second_ratio_engine']:.0f} ×"),
        (f"… the same, {one['many_draws']:,} draws", "≥ 100 ×", f"{one['ess_per_second_ratio_many_draws']:.0f} ×"),
        ("… against `pm.sample`, compilation included", "",
         f"{one['pm_sample_seconds'] / one['fit_seconds']:.0f} × ({one['pm_sample_seconds']:.1f} s)"),
        ("Bambi on the same counts, 40 segments", "≥ 100 ×",
         f"{bambi_['ratio_counts']:.0f} × ({bambi_['bambi_counts_seconds']:.1f} s)"),
        (f"Bambi on the {bambi_['rows']:,} rows; ours from the rows, aggregation included", "≥ 2,000 ×",
         f"{bambi_['ratio_rows']:,.0f} × ({bambi_['bambi_rows_seconds']:.0f} s)"),
        ("`estimate`, 8 schools: engine; `fit`", "≤ 10 ms",
         f"{1e3 * known['schools']['engine_seconds']:.1f} ms; {1e3 * known['schools']['fit_seconds']:.1f} ms"),
        ("10,000 segments", "≤ 10 s, 2 GB",
         f"{sizes_[10_000]['fit_seconds']:.1f} s, {sizes_[10_000]['peak_gb']:.1f} GB"),
        ("100,000 segments", "≤ 60 s, 6 GB",
         f"{sizes_[100_000]['fit_seconds']:.0f} s, {sizes_[100_000]['peak_gb']:.1f} GB"),
        ("`fit_many`: 1,000 problems of 20 segments; completing every fit", "≤ 6 s",
         f"{known['many']['seconds']:.0f} s; {known['many']['completion_seconds']:.0f} s more"),
        ("`bayes-hte run` on a cell table; with `--no-report`", "≤ 3.5 s; 2 s",
         f"{known['command']['report_seconds']:.1f} s; {known['command']['no_report_seconds']:.1f} s"),
    ]  # fmt: skip
    lines = ["| work | must reach | measured |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    lines += ["| crossed dimensions, effects and baselines by every one | must reach | `fit` | effective points | k |"]
    lines += ["|---|---|---|---|---|"]
    lines += [f"| {each['work']} | ≤ {each['must_reach']:g} s | {each['seconds']:.2f} s | "
              f"{each['effective_points']:,.0f} | {each['pareto_k']:.2f} |" for each in known["crossed"]]  # fmt: skip
    small, large = known["stages"]["50"], known["stages"]["1000"]
    lines += ["", "| step, binomial, 4,000 draws | 50 segments | 1,000 segments |", "|---|---|---|"]
    lines += [f"| {name} | {small[name]:.0f} ms | {large[name]:,.0f} ms |" for name in small]
    return "\n".join(lines)


def renewed(page: str, known: dict[str, Any]) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition("<!-- tables -->")
    _, _, after = rest.partition("<!-- end of tables -->")
    return f"{before}<!-- tables -->\n\n{tables(known)}\n\n<!-- end of tables -->{after}"


PARTS: dict[str, Callable[[], Any]] = {
    "one_way": one_way, "stages": stages, "crossed": crossed, "schools": schools, "command": command, "many": many,
    "sizes": sizes, "bambi": bambi,
}  # fmt: skip


def main() -> None:
    """Run the parts that were asked for, and keep what is known of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--size", type=int, help="one table of so many segments; prints JSON")
    asked = parser.parse_args()
    if asked.size:
        print(json.dumps(one_size(asked.size)))
        return
    path = RESULTS / "speed.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name in asked.parts or PARTS:
        known[name] = PARTS[name]()
        print(name, json.dumps(known[name], indent=1))
        packages = ("bayes_hte", "numpy", "pymc", "nutpie", "xarray")
        known["machine"] = {
            "python": platform.python_version(), "machine": platform.machine(), "cores": exact.target.cores(),
            "versions": {each: version(each) for each in packages},
        }  # fmt: skip
        path.write_text(json.dumps(known, indent=1) + "\n")
    if all(name in known for name in PARTS):
        draw_sizes(known["sizes"], RESULTS / "speed.svg")
        page = Path(__file__).with_name("README.md")
        page.write_text(renewed(page.read_text(encoding="utf-8"), known), encoding="utf-8")


if __name__ == "__main__":
    main()
