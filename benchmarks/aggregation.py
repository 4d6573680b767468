"""How fast rows become cells, side by side with plain SQL, pandas' own groupby and tea-tasting, in one run.

    uv run --group test python benchmarks/aggregation.py               100 million rows: three minutes, 1 GB of disk
    uv run --group test python benchmarks/aggregation.py --rows 1e7    fewer
    uv run --group test python benchmarks/aggregation.py --many        20 metrics by 10 breakdowns of 10 million rows

The Parquet file is made by SQL from row numbers alone, so that a seed gives the same rows everywhere. Whole processes
are timed where one is what a user starts; their largest resident memory is the kernel's. Medians of several runs, the
two sides in turn; results go to benchmarks/results/aggregation.json, of --many to from_rows_many.json. Ratios are what
counts.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import duckdb
import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results"
PLAN = """
title = "Made up"
model = "metric"
[data]
outcome = "spent"
arm = "arm"
control = "control"
segments = ["device", "country"]
"""
SQL = """
select device, country, arm, count(spent), avg(spent), var_samp(spent) from read_parquet('{path}')
group by device, country, arm
"""
"""What the plan asks for, as a person would write it: nothing is checked."""
PLAIN = "import duckdb, sys; print(len(duckdb.connect().sql(sys.argv[1]).fetchall()))"
CHECKED = """
select device, country, arm, count(*), count(spent), avg(spent), var_samp(spent), min(spent), max(spent),
count(case when spent = 0 then 1 end), count(case when spent = 1 then 1 end),
count(case when isinf(spent) then 1 end)
from read_parquet('{path}') group by device, country, arm
"""
"""The same with what is needed to refuse what is missing or infinite, and to see whether outcomes are yes or no."""


BREAKDOWNS = [
    *(["device"], ["country"], ["plan"], ["customer"], ["channel"], ["age"]),
    *(["device", "customer"], ["plan", "customer"], ["device", "plan"], ["channel", "customer"]),
]
LEVEL_COUNTS = {"device": 4, "country": 50, "plan": 3, "customer": 2, "channel": 6, "age": 5}
PRIME = 4_294_967_291  # the largest below 2**32


def uniform_sql(multiplier: int, seed: int) -> str:
    """SQL of a number in [0, 1) that follows from the row number i: multiplication modulo a prime, twice."""
    mixed = f"((i + {seed}) * {multiplier} % {PRIME})"  # twice, else neighbours would be alike
    return f"(({mixed} * 1103515245 + {multiplier}) % {PRIME} / {PRIME}.0)"


def generate_many(path: Path, rows: int) -> None:
    """Write an experiment with six dimensions and twenty outcomes: 8 yes or no, 6 counts, 6 amounts."""
    # Powers of one multiplier: columns whose multipliers had a small quotient would go together.
    uniforms = [uniform_sql(pow(2_654_435_761, power, PRIME), power) for power in range(2, 2 + 6 + 1 + 2 * 20)]
    columns = [
        f"'{dim}' || floor({levels} * {uniform} * {uniform})::int as {dim}"
        for (dim, levels), uniform in zip(LEVEL_COUNTS.items(), uniforms, strict=False)
    ]
    columns.append(f"case when {uniforms[6]} < 0.5 then 'control' else 'treated' end as arm")
    for i in range(20):
        one, other = uniforms[7 + 2 * i : 9 + 2 * i]
        if i < 8:
            columns.append(f"{one} < {0.05 + 0.02 * i} as bought{i}")
        elif i < 14:
            columns.append(f"floor(-{i - 6} * ln(1 - {one}))::int as visits{i - 8}")
        else:
            columns.append(f"case when {one} < 0.5 then -20 * ln(1 - {other}) else 0.0 end as spent{i - 14}")
    query = f"select {', '.join(columns)} from range({rows}) as numbers(i)"  # noqa: S608, this script's own
    with duckdb.connect() as connection:
        connection.sql(f"copy ({query}) to '{path}' (format parquet, row_group_size 1000000)")


def choose_metrics() -> dict[str, dict[str, Any]]:
    """Twenty metrics, in two sets: one of each outcome, and many of few outcomes, as platforms have them."""
    from bayes_hte.cells import Mean, Rate, Ratio, TwoPart

    outcomes = [*(f"bought{i}" for i in range(8)), *(f"visits{i}" for i in range(6)), *(f"spent{i}" for i in range(6))]
    plain = ["bought0", "bought1", "bought2", "bought3", "visits0", "visits1", "visits2", "spent0", "spent1", "spent2"]
    return {
        "twenty outcomes": {name: name for name in outcomes},
        "ten outcomes": {name: name for name in plain}
        | {f"{name} capped": Mean(name, cap=20) for name in ("visits0", "visits1", "spent0", "spent1")}
        | {f"{name} per visit": Ratio(name, per="visits0") for name in ("visits1", "spent0")}
        | {f"{name} adjusted": Mean(name, cuped=["spent2"]) for name in ("bought0", "spent0")}
        | {"spent0 in two parts": TwoPart("spent0"), "visits2 per visit": Rate("visits2", exposure="visits0")},
    }


def many(rows: int, runs: int) -> dict[str, Any]:
    """Measure 20 metrics by 10 breakdowns against one metric by one breakdown, in turn: wall and CPU seconds."""
    import bayes_hte as hte

    asked = {"arm": "arm", "control": "control"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.parquet"
        generate_many(path, rows)
        one = {"outcome": "spent0", "segments": ["device"], **asked}
        sides: dict[str, Callable[[], Any]] = {"one metric, one breakdown": lambda: hte.cells.from_rows(path, **one)}
        for name, metrics in choose_metrics().items():
            sides[name] = lambda metrics=metrics: hte.cells.from_rows_many(
                path, metrics=metrics, breakdowns=BREAKDOWNS, **asked
            )
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(runs + 1):
            for name, side in sides.items():
                begun, cpu_begun = perf_counter(), process_time()
                side()
                taken[name].append((perf_counter() - begun, process_time() - cpu_begun))
        size = path.stat().st_size
    found: dict[str, Any] = {"rows": rows, "bytes": size}
    for name, each in taken.items():
        found[name] = {
            "seconds": median(seconds for seconds, _ in each[1:]),
            "cpu_seconds": median(seconds for _, seconds in each[1:]),
        }
    return found | {"peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def generate(path: Path, rows: int, *, seed: int = 1) -> None:
    """Write an experiment: 4 devices, 50 countries, two arms, a skewed outcome that is 0 for half.

    Every column is arithmetic on the number of the row (multiplication modulo a prime), so it needs no generator.
    """
    device, country, arm, buys, size = (uniform_sql(multiplier, seed) for multiplier in (
        2_654_435_761, 1_597_334_677, 3_812_015_801, 2_246_822_519, 3_266_489_917))  # fmt: skip
    query = f"""
    select
        ['mobile', 'desktop', 'tablet', 'tv'][1 + floor(4 * {device} * {device})::int] as device,
        'C' || lpad(floor(50 * {country} * {country})::int::varchar, 2, '0') as country,
        case when {arm} < 0.5 then 'control' else 'treated' end as arm,
        case when {buys} < 0.5 then -20 * ln(1 - {size}) else 0.0 end as spent
    from range({rows}) as numbers(i)
    """  # noqa: S608, numbers and expressions of this script only
    with duckdb.connect() as connection:
        # The path is this script's own, the numbers are whole: nothing here comes from outside.
        connection.sql(f"copy ({query}) to '{path}' (format parquet, row_group_size 1000000)")


def process(command: list[str]) -> tuple[float, float]:
    """Seconds of a whole process, and its largest resident memory in MB."""
    script = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    )
    begun = perf_counter()
    found = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
    return perf_counter() - begun, int(found.stdout) / 1024


def in_turn(sides: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """Median seconds of each side, the sides in turn; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs + 1):
        for name, side in sides.items():
            begun = perf_counter()
            side()
            seconds[name].append(perf_counter() - begun)
    return {name: median(found[1:]) for name, found in seconds.items()}


def parquet(rows: int, runs: int) -> dict[str, Any]:
    """The command line against plain SQL on a Parquet file, and against a tenth of its rows for the memory."""
    found: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.toml"
        plan.write_text(PLAN)
        for size, name in ((rows // 10, "tenth"), (rows, "all")):
            path = Path(folder) / f"{name}.parquet"
            generate(path, size)
            command = str(Path(sys.executable).parent / "bayes-hte")
            ours = [command, "aggregate", str(plan), "--data", str(path), "--out", str(Path(folder) / "cells.csv")]
            plain, checked = ([sys.executable, "-c", PLAIN, query.format(path=path)] for query in (SQL, CHECKED))
            taken: dict[str, list[tuple[float, float]]] = {"ours": [], "sql": [], "sql_checked": []}
            for _ in range(runs + 1):
                for side, each in (("ours", ours), ("sql", plain), ("sql_checked", checked)):
                    taken[side].append(process(each))
            found[name] = {
                side: {"seconds": median(s for s, _ in each[1:]), "megabytes": max(m for _, m in each)}
                for side, each in taken.items()
            }
            found[name]["bytes"] = path.stat().st_size
    return found


def experiment(rows: int, segments: int, *, seed: int = 2) -> pd.DataFrame:
    """Rows in memory, in many segments of which some are empty."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "store": rng.integers(0, segments, rows),
            "arm": np.array(["control", "treated"])[rng.integers(0, 2, rows)],
            "spent": rng.exponential(20.0, rows),
            "before": rng.exponential(20.0, rows),
            "visits": rng.poisson(3.0, rows) + 1.0,
        }
    )


def in_memory(rows: int, segments: int, runs: int) -> dict[str, float]:
    """A data frame against pandas' groupby and tea-tasting's aggregation of the same statistics."""
    import polars as pl
    from tea_tasting import aggr

    import bayes_hte as hte

    frame = experiment(rows, segments)
    eager = pl.from_pandas(frame)
    asked = {"outcome": "spent", "arm": "arm", "control": "control", "segments": ["store"]}
    groups = frame.groupby(["store", "arm"])["spent"]
    return in_turn(
        {
            "ours": lambda: hte.cells.from_rows(frame, **asked),
            "ours, Polars": lambda: hte.cells.from_rows(eager, **asked),
            "ours, CUPED ratio": lambda: hte.cells.from_rows(frame, **asked, denominator="visits", cuped="before"),
            "pandas": lambda: frame.groupby(["store", "arm"])["spent"].agg(["count", "mean", "var"]),
            "pandas, groups made before": lambda: groups.agg(["count", "mean", "var"]),
            "tea-tasting": lambda: tea(aggr, frame),
        },
        runs,
    )


def tea(aggr: Any, frame: pd.DataFrame) -> Any:
    """Tea-tasting groups by one column: segment and arm together, as its users have to."""
    joined = frame.assign(cell=frame["store"].astype(str) + "|" + frame["arm"])
    return aggr.read_aggregates(
        joined, group_col="cell", has_count=True, mean_cols=("spent",), var_cols=("spent",), cov_cols=()
    )


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(float(text)))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--many", action="store_true", help="only many metrics by many breakdowns")
    asked = parser.parse_args()
    machine = {"python": platform.python_version(), "cores": len(__import__("os").sched_getaffinity(0))}
    if asked.many:
        keep("from_rows_many", {"machine": machine, **many(asked.rows or 10_000_000, asked.runs)})
        return
    found = {
        "machine": machine,
        "versions": {name: version(name) for name in ("duckdb", "pandas", "polars", "tea-tasting")},
        "parquet": parquet(asked.rows or 100_000_000, asked.runs),
        "segments_100": in_memory(1_000_000, 100, asked.runs),
        "segments_100000": in_memory(1_000_000, 100_000, asked.runs),
        "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    keep("aggregation", found)


def keep(name: str, found: dict[str, Any]) -> None:
    """Print results, and write them to a file."""
    text = json.dumps(found, indent=2)
    print(text)
    (RESULTS / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
