"""How fast the exact engine is, side by side with what a user would pick instead, in one run.

    uv run --group bench python benchmarks/speed.py            everything: about twenty minutes, 6 GB
    uv run --group bench python benchmarks/speed.py one_way    one part

Medians of several runs; results go to benchmarks/results/speed.json, the figure to speed.svg. Ratios are what
counts: they hold on other machines, seconds do not.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
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
from bayes_hte.inference.exact import accuracy, draw, engine, sign
from bayes_hte.model.problem import build_problem
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
    return {"problems": len(fits), "failed": len(fits.failed), "seconds": perf_counter() - begun,
            "reliable": sum(fit.diagnosis.ok for fit in fits.values())}  # fmt: skip


STAGES = {
    "search for the peak": (engine, "find_peak"), "quadrature orders": (accuracy, "with_orders"),
    "weighted points": (engine, "explore"), "certificate": (engine, "refined"),
    "draws": (draw, "coefficients"), "signs": (sign, "positive"),
}  # fmt: skip


def stages() -> dict[str, Any]:
    """Where the time goes: milliseconds of each step, binomial, 50 and 5,000 segments."""
    found = {}
    for segments in (50, 5000):
        task = build_problem(cells_of(counts(segments)), hte.read_model("conversion"))
        spent: dict[str, list[float]] = {name: [] for name in STAGES}

        def watched(name: str, work: Callable[..., Any], spent: dict[str, list[float]]) -> Callable[..., Any]:
            def run(*given: Any, **named: Any) -> Any:
                begun = perf_counter()
                answer = work(*given, **named)
                spent[name].append(1e3 * (perf_counter() - begun))
                return answer

            return run

        with ExitStack() as stack:
            for name, (module, function) in STAGES.items():
                stack.enter_context(
                    mock.patch.object(module, function, watched(name, getattr(module, function), spent))
                )
            seconds, _ = timed(lambda task=task: exact.posterior(task, draws=4000, seed=1), 15 if segments == 50 else 3)
        each = {name: median(times) for name, times in spent.items()}
        found[str(segments)] = {**each, "everything else": 1e3 * seconds - sum(each.values()), "all": 1e3 * seconds}
    return found


def parts() -> dict[str, Any]:
    """What the engine's parts cost, in nanoseconds per number, and how many points it takes: 50 segments."""
    task = build_problem(cells_of(counts(50)), hte.read_model("conversion"))
    target, sample = engine.points(task, wanted=engine.EFFICIENCY * 4000, seed=1)
    points = sample.points[sample.resampled(4000, np.random.default_rng(1))]
    numbers, segments = np.random.default_rng(1).normal(size=(490, 50)), target.segments
    place = np.empty_like(numbers)
    jobs: dict[str, tuple[Callable[[], Any], int]] = {
        "exponential": (lambda: np.exp(numbers, out=place), numbers.size),
        "logarithm": (lambda: np.log(place, out=np.empty_like(place)), numbers.size),
        "likelihood of a cell": (
            lambda: segments.curve.compute_log_density(segments.arms[0], numbers, None),
            numbers.size,
        ),
        "predicted density, per segment": (lambda: target.log_quadratic(points), 50 * len(points)),
        "integrated density, per segment": (lambda: target.log_density(points), 50 * len(points)),
        "draw of a segment's coefficients": (lambda: draw.coefficients(target, points, seed=1), 50 * len(points)),
    }
    costs = {name: 1e9 * timed(work, 25)[0] / size for name, (work, size) in jobs.items()}
    return {"nanoseconds": costs, "points": sample.values.size, "integrated": int(sample.values.computed.sum())}


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
        ("`fit_many`: 1,000 problems of 20 segments", "≤ 60 s", f"{known['many']['seconds']:.0f} s"),
        ("`bayes-hte run` on a cell table; with `--no-report`", "≤ 3.5 s; 2 s",
         f"{known['command']['report_seconds']:.1f} s; {known['command']['no_report_seconds']:.1f} s"),
    ]  # fmt: skip
    lines = ["| work | must reach | measured |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    small, large = known["stages"]["50"], known["stages"]["5000"]
    lines += ["| step, binomial, 4,000 draws | 50 segments | 5,000 segments |", "|---|---|---|"]
    lines += [f"| {name} | {small[name]:.0f} ms | {large[name]:,.0f} ms |" for name in small]
    costs = known["parts"]
    lines += ["", "| part, 50 segments | ns |", "|---|---|"]
    lines += [f"| {name} | {cost:.1f} |" for name, cost in costs["nanoseconds"].items()]
    lines += ["", f"Of {costs['points']:,} weighted points {costs['integrated']:,} were integrated."]
    return "\n".join(lines)


def renewed(page: str, known: dict[str, Any]) -> str:
    """The page with its tables made anew."""
    before, _, rest = page.partition("<!-- tables -->")
    _, _, after = rest.partition("<!-- end of tables -->")
    return f"{before}<!-- tables -->\n\n{tables(known)}\n\n<!-- end of tables -->{after}"


PARTS: dict[str, Callable[[], Any]] = {
    "one_way": one_way, "stages": stages, "parts": parts, "schools": schools, "command": command, "many": many,
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
