"""Every number and text that the package gives, stored before a change and compared after it.

    python tests/reference/snapshot.py store FILE.json
    python tests/reference/snapshot.py compare BEFORE.json AFTER.json

`store` takes some minutes. Examples and models are those beside the package that Python imports: PYTHONPATH says which.
`compare` exits with 1 if anything differs that may not. Texts must be equal, and numbers agree to `TOLERANCE`. NUTS
draws the same as long as it sees the same PyMC model; else numbers must agree within Monte-Carlo error, and texts but
for their digits.
"""

import hashlib
import html
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import bayes_hte as hte

type Record = dict[str, Any]
type Differences = Iterator[tuple[str, str, str]]  # where, what, and why it may be: empty if it may not

ROOT = next(folder for folder in Path(hte.__file__).parents if (folder / "examples").is_dir())
TOLERANCE = 1e-12
ERRORS = 6.0  # Monte-Carlo errors that two runs of NUTS may differ by
ALLOWED_NEW_COLUMNS = frozenset({"reliable"})
SAMPLE = ("chain", "draw")
DIMENSIONS = ["device", "plan"]
CELL = [*DIMENSIONS, "arm"]
COMMON: Record = {"arm": "arm", "control": "control", "segments": DIMENSIONS}
READINGS: dict[str, Record] = {  # every option of from_rows
    "mean": {"outcome": "score"}, "missing": {"outcome": "gaps", "drop_missing": True, "cuped": "before"},
    "yes or no": {"outcome": "bought", "unit": "person", "balance": ["age", "before"]},
    "cap": {"outcome": "spent", "cap": 20.0}, "cap on both sides": {"outcome": "score", "cap": (-1.0, 3.0)},
    "cap at a quantile": {"outcome": "spent", "cap_quantile": 0.95, "cuped": "before"},
    "cuped": {"outcome": "score", "cuped": ["before", "age"]}, "weights": {"outcome": "score", "weights": "weight"},
    "denominator": {"outcome": "events", "denominator": "views"}, "cluster": {"outcome": "score", "cluster": "village"},
    "all": {"outcome": "events", "denominator": "views", "weights": "weight", "cluster": "village", "cuped": "age"},
    "counts": {"outcome": "visits", "metric": "histogram"}, "levels": {"outcome": "stars", "metric": "histogram"},
    "two parts": {"outcome": "spent", "metric": "two_part"}, "exposure": {"outcome": "events", "exposure": "hours"},
    "bins": {"outcome": "bought", "segments": ["age", "plan"], "bins": {"age": [30, 40, 50]}},
    "bins of equal size": {"outcome": "bought", "segments": ["age"], "bins": {"age": 4}},
    "weeks": {"outcome": "bought", "segments": ["date", "device"], "bins": {"date": "week"}},
    "rare levels": {"outcome": "bought", "segments": ["region", "device"], "rare": {"region": 50}},
}  # fmt: skip
MODELS = {  # the shipped model of every family, and the reading that it takes
    "conversion": "yes or no", "continuous": "mean", "metric": "cuped", "published-estimates": "estimates",
    "rates": "exposure", "counts": "counts", "revenue": "two parts", "ordered-scale": "levels", "survival": "times",
}  # fmt: skip
SCORED = {*(f"{model}, partial pooling" for model in ("conversion", "metric", "published-estimates")), "heavy tails"}


def draw_units(seed: int, *, arms: int = 2, count: int = 900) -> pd.DataFrame:
    """Simulate an experiment, one row per unit, with outcomes for every family."""
    rng = np.random.default_rng(seed)
    device, plan = rng.choice(3, count, p=[0.5, 0.3, 0.2]), rng.choice(3, count, p=[0.4, 0.35, 0.25])
    arm, before = rng.integers(0, arms, count), rng.normal(size=count)
    lift = np.where(arm > 0, 0.25 + 0.2 * device - 0.15 * arm, 0.0)
    bought = rng.random(count) < 1 / (1 + np.exp(0.8 - 0.3 * plan - lift))
    hours, days = rng.uniform(0.5, 3.0, count), rng.exponential(15, count) * np.exp(-lift)
    level, score = rng.logistic(size=count) + lift, 1 + lift + 0.6 * before + rng.normal(size=count)
    names = np.array(["control", "email", "sms", "push", "call", "letter"])[arm]
    return pd.DataFrame({
        "device": np.array(["phone", "tablet", "tv"])[device], "plan": np.array(["free", "team", "firm"])[plan],
        "arm": names, "person": np.arange(count) // 2, "before": before,
        "age": np.round(40 + 12 * rng.normal(size=count) + 3 * device - 2 * plan, 1),
        "bought": bought.astype(int), "score": score, "gaps": np.where(rng.random(count) > 0.03, score, np.nan),
        "spent": np.where(bought, np.round(np.exp(2 + lift / 2 + rng.normal(0, 0.8, count)), 2), 0.0),
        "visits": rng.negative_binomial(1.5, 1.5 / (1.5 + np.exp(0.4 + lift))), "views": 1 + rng.poisson(4, count),
        "hours": hours, "events": rng.poisson(hours * np.exp(-0.5 + lift)), "weight": rng.integers(1, 4, count),
        "stars": np.searchsorted([-1.0, 0.0, 1.2], level) + 1, "days": np.minimum(days, 30) + 0.01, "left": days < 30,
        "village": [f"{name} {place}" for name, place in zip(names, rng.integers(0, 25, count), strict=True)],
        "region": rng.choice(["north", "south", "east", "isle"], count, p=[0.5, 0.3, 0.18, 0.02]),
        "date": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 60, count), unit="D"),
    })  # fmt: skip


def read_cells(units: pd.DataFrame, reading: str) -> xr.Dataset:
    """Reduce units to cells; published estimates are the means of treated cells."""
    if reading == "times":
        return hte.cells.from_times(units, time="days", event="left", **COMMON)
    if reading in READINGS:
        return hte.cells.from_rows(units, **(COMMON | READINGS[reading]))
    table = units[units["arm"] != "control"].groupby(CELL, as_index=False)["score"].agg(y="mean", se="sem")
    given: Record = {"se": "se", "arm": "arm"}
    if reading == "covariance":
        given = {"covariance": np.diag(0.8 * table["se"] ** 2) + 0.2 * np.outer(table["se"], table["se"])}
    return hte.cells.from_estimates(table, segments=DIMENSIONS, estimate="y", **given)


@dataclass(frozen=True, slots=True)
class Case:
    """One cell table, a shipped model with changes, and the engine."""

    model: str
    arms: int = 2
    pooling: str = "partial"
    effect: Record = field(default_factory=dict)
    baseline: Record = field(default_factory=dict)
    reading: str = ""
    nuts: bool = False
    higher_is_better: bool = True

    def fit_model(self, seed: int) -> hte.Fit:
        """Simulate units, reduce them to cells, change the shipped model and fit it."""
        content = hte.read_model(self.model).model_dump(exclude_none=True) | {"pooling": self.pooling}
        content["effect"] |= self.effect
        content |= {"baseline": {"mean": content["baseline"]["mean"], **self.baseline}} if self.baseline else {}
        for part in (content, content.get("amount", content)) if self.pooling != "partial" else ():
            part["effect"].pop("between", None)
        units = draw_units(seed, arms=self.arms)
        cells = read_cells(units, self.reading or MODELS[self.model])
        if "covariates" in self.effect:
            cells = hte.cells.with_covariates(cells, units.groupby(DIMENSIONS, as_index=False)["age"].mean(), ["age"])
        given: Record = {"sampler": "nuts", "draws": 2000} if self.nuts else {"sampler": "exact"}
        given |= {"seed": seed + 1, "progress": False, "higher_is_better": self.higher_is_better}
        return hte.fit(cells, hte.Model.model_validate(content), **given)


def list_cases() -> dict[str, Case]:
    """Name the cases: all families with all poolings, then structures, then NUTS."""
    pairs = enumerate(product(MODELS, ("partial", "none", "complete")))
    cases = {f"{model}, {pooling} pooling": Case(model, 2 + i % 2, pooling) for i, (model, pooling) in pairs}
    aged = {"covariates": ["age"], "slope": {"dist": "Normal", "sigma": 0.7}}
    crossed = {"by": ["*"], "by_between": {"dist": "HalfNormal", "sigma": 0.5}}
    heavy, sparse = {"shape": "student_t", "nu": 4.0}, {"shape": "horseshoe", "slab": 1.0}
    return cases | {
        "baselines alone": Case("conversion", 3, baseline={"pooling": "none"}),
        "correlated": Case("conversion-correlated", reading="yes or no"), "four arms": Case("metric", 4),
        "heavy tails": Case("conversion", effect=heavy, higher_is_better=False),
        "strata": Case("conversion", effect={"strata": "device"}), "rates by age": Case("rates", effect=aged),
        "one SD for two arms": Case("continuous", 3, effect={"shared_between": True}),
        "heavy tails by age": Case("published-estimates", effect=heavy | aged),
        "covariance": Case("published-estimates", reading="covariance"), "sampled": Case("survival", nuts=True),
        "covariance by age": Case("published-estimates", effect=aged, reading="covariance", nuts=True),
        "crossed by age": Case("published-estimates", effect=crossed | aged, nuts=True),
        "horseshoe": Case("continuous", effect=sparse, nuts=True), "six arms": Case("metric", 6, nuts=True),
    }  # fmt: skip


def show_progress(line: str) -> None:
    """Write a line with the time of day."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {line}\n")


def store_answer(ask: Callable[[], Any]) -> Record:
    """Store a table by columns, cells with what is said of them, or what the package says in their place."""
    try:
        found = ask()
    except (hte.HteError, AttributeError, TypeError) as problem:
        return {"error": f"{type(problem).__name__}: {problem}"}
    if isinstance(found, pd.DataFrame):
        return {str(name): found[name].tolist() for name in found}
    attrs = {str(name): value for name, value in sorted(found.attrs.items())}
    return {"attrs": attrs, "values": store_dataset(found), "check": list(map(str, hte.cells.check(found)))}


def store_variable(values: xr.DataArray) -> Record:
    """Summarise a variable: mean and SD over draws of each of its elements, its first numbers, and a digest."""
    raw = np.ascontiguousarray(values.values)
    found: Record = {"dims": list(map(str, values.dims)), "shape": list(raw.shape)}
    if raw.dtype.kind not in "fiub":
        return found | {"labels": [str(each) for each in raw.ravel()]}
    over = [dim for dim in SAMPLE if dim in values.dims]
    found |= {"digest": hashlib.sha256(raw.tobytes()).hexdigest(), "first": raw.ravel()[:5].tolist()}
    found["mean"] = values.astype(float).mean(over, skipna=False).values.ravel().tolist()
    return found | ({"sd": values.astype(float).std(over, skipna=False).values.ravel().tolist()} if over else {})


def store_dataset(data: xr.Dataset) -> Record:
    """Summarise all variables of a group, and its coordinates but for the numbers of draws."""
    return {name: store_variable(data[name]) for name in sorted(map(str, data.variables)) if name not in SAMPLE}


def normalise_text(text: str) -> str:
    """Replace what changes from run to run: hashes, versions, times and folders."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "<hash>", text)
    text = re.sub(r"\b\d+\.\d+\.\d+\w*", "<version>", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*", "<time>", text)
    return re.sub(r"(?<![\w.<])(?:/[\w.@~-]+)+/(?=[\w.-])", "", text)


def read_report_text(page: str) -> str:
    """Take the visible text of a report."""
    page = re.sub(r"<(style|script|metadata)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return normalise_text(" ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split()))


def store_fit(fit: hte.Fit, folder: Path, *, scores: bool = False) -> Record:
    """Store every answer of a fit, from its methods or from functions of it; for `scores` models are fitted again."""

    def ask(method: str, **given: Any) -> Record:
        return store_answer(lambda: (getattr(fit, method, None) or partial(getattr(hte, method), fit))(**given))

    asked = ["table", "survival", "variance_shares", "sensitivity", "predictive_checks"]
    asked += ["given_tau"] if fit.diagnosis.pareto_k is not None and fit.cells.sizes["arm"] <= 2 else []  # else slow
    tables = {name: ask(name) for name in asked + (["loso", "compare"] if scores else [])}
    for scale in ("absolute", "relative", "link"):
        for name in ("ate", "ranks", "best_arm", "predict_new_segment"):
            tables[f"{name} {scale}"] = ask(name, scale=scale)
        tables[f"table {scale}"] = ask("table", scale=scale, ci_prob=0.9, rope=0.1, detail=True)
        tables[f"heterogeneity {scale}"] = ask("heterogeneity", scale=scale, rope=0.1)
    tables |= {f"contrasts {kind}": ask("contrasts", against=kind) for kind in ("rest", "ate", "pairs")}
    levels = [str(name) for name, labels in fit.cells.coords.items() if labels.dims == ("segment",)]
    tables |= {f"marginal {name}": ask("marginal", dimension=name) for name in levels if name != "segment"}
    page = fit.report(folder / "report.html").read_text(encoding="utf-8")
    return {
        "sampled": fit.diagnosis.pareto_k is None,
        "engine": fit.engine,
        "diagnosis": asdict(fit.diagnosis) | {"text": str(fit.diagnosis)},
        "cells": store_answer(lambda: fit.cells),
        "tables": tables,
        "draws": {name: store_dataset(group.to_dataset()) for name, group in sorted(fit.posterior.children.items())},
        "report": {"text": read_report_text(page), "digest": hashlib.sha256(normalise_text(page).encode()).hexdigest()},
    }


def store_cases(folder: Path) -> Record:
    """Fit every case, each to data of its own seed."""
    found: Record = {}
    for seed, (name, case) in enumerate(list_cases().items()):
        show_progress(f"case: {name}")
        found[name] = store_fit(case.fit_model(seed), folder, scores=name in SCORED)
    return found


def store_examples(folder: Path) -> Record:
    """Carry out every plan of the examples, and the model of one's own."""
    found: Record = {}
    for path in sorted(ROOT.glob("examples/*/*.toml")):
        if path.name != "model.toml":
            show_progress(f"example: {(name := f'{path.parent.name}/{path.stem}')}")
            fit = hte.run(path, progress=False)
            found[name] = store_fit(fit, folder) | {"loaded": store_answer(hte.load(fit.save(folder / "fit.nc")).table)}
    show_progress("example: own_model")
    del sys.argv[1:]  # else the script writes its report there
    own = runpy.run_path(str(ROOT / "examples/own_model/run.py"))
    return found | {"own_model": store_fit(own["fit"], folder)}


def store_readings() -> Record:
    """Reduce one table of rows in every way, and change the cells afterwards."""
    make, units, names = hte.cells, draw_units(2024, count=1200), [*READINGS, "times", "estimates", "covariance"]
    asked: dict[str, Callable[[], Any]] = {name: partial(read_cells, units, name) for name in names}
    scores = units.groupby(CELL, as_index=False)["score"]
    table = scores.agg(n="size", mean="mean", sd="std", total="sum", square=lambda score: (score**2).sum())
    summary = partial(make.from_summary, table, n="n", **COMMON)
    parts = [read_cells(part, "cuped") for _, part in units.groupby("weight")]
    whole, adjusted = asked["mean"](), asked["all"]()
    asked |= {
        "breaks": partial(make.from_times, units, time="days", event="left", breaks=[5, 12], horizon=20, **COMMON),
        "summary": partial(summary, mean="mean", sd="sd"),
        "sums": partial(summary, total="total", sum_squares="square"),
        "guessed": partial(make.from_table, table[[*CELL, "n", "mean", "sd"]]),
        "merged": partial(make.merge, *parts), "protected": partial(make.protect, whole, 25, "merge"),
        "slice": lambda: make.split(adjusted, "plan")["team"], "sample ratio": partial(make.sample_ratio, whole),
        "shares": partial(make.with_shares, whole, {"control": 2, "email": 1}),
    }  # fmt: skip
    return {name: store_answer(read) for name, read in asked.items()}


def store_calls() -> Record:
    """Call what works on several fits, or before any."""
    tables = {f"test {seed}": read_cells(draw_units(seed), "yes or no") for seed in range(3)}
    fits, one = hte.fit_many(tables, "conversion", progress=False), tables["test 0"]
    prior = hte.prior_predictive(one, "conversion", draws=500)
    return {
        "fit_many table": store_answer(fits.table),
        "fit_many ate": store_answer(fits.ate),
        "prior_sweep": store_answer(partial(hte.prior_sweep, one, "conversion", [0.5, 1.0, 2.0])),
        "prior_predictive": {name: store_dataset(group.to_dataset()) for name, group in prior.children.items()},
        "prior_from_fit": hte.prior_from_fit(fits["test 0"]).model_dump(exclude_none=True),
        "learn_prior": hte.learn_prior(list(fits.values())).model_dump(exclude_none=True),
    }


def store_commands(folder: Path) -> Record:
    """Run the command line; store what it prints, and the files it writes."""
    small, large = "examples/eight_schools/plan.toml", "examples/hillstrom/plan.toml"
    asked = [f"show {path.stem}" for path in sorted(ROOT.glob("models/*.toml"))]
    asked += [f"check {large}", f"check {large} --json", f"aggregate {large}", f"aggregate {small} --json"]
    asked += [f"run {small} --out {folder}/out", f"run {large} --json --no-report --out {folder}/more"]
    found: Record = {}
    for words in asked:
        show_progress(f"command: {(name := normalise_text(words))}")
        command = [str(Path(sys.executable).with_name("bayes-hte")), *words.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
        said = re.sub(r"\d+\.\d s$", "<seconds>", done.stderr, flags=re.MULTILINE)
        found[name] = {"exit": done.returncode, "out": normalise_text(done.stdout), "err": normalise_text(said)}
    files = sorted(folder.glob("out/*.[cj]s*"))
    return found | {f"file {path.name}": normalise_text(path.read_text(encoding="utf-8")) for path in files}


def store_snapshot(target: Path) -> None:
    """Compute everything, and write one file."""
    with tempfile.TemporaryDirectory() as name:
        # An empty cache: compiled code that comes from one rounds otherwise than the same code when it is new.
        os.environ["PYTENSOR_FLAGS"] = f"base_compiledir={name}/compiled"
        found = {"commands": store_commands(folder := Path(name)), "readings": store_readings(), "calls": store_calls()}
        found |= {"examples": store_examples(folder), "cases": store_cases(folder)}
    target.write_text(json.dumps(found, default=str, ensure_ascii=False), encoding="utf-8")


def find_errors(record: Record, draws: float) -> dict[str, Any]:
    """Monte-Carlo errors of the difference of two runs, by column of a table or summary of a variable."""
    error = np.sqrt(2 / draws) if draws else 0.0
    if "digest" in record:
        return dict.fromkeys(("mean", "sd"), error * np.array(record.get("sd", 0.0)))
    if not draws or "ci_low" not in record:
        return {}
    width = np.array(record["ci_high"]) - record["ci_low"]  # four SDs; of a probability there is none
    fixed = dict.fromkeys(("raw", "raw_se", "n_control", "n_treated"), 0.0)
    factors = {name: 0.7 if name.startswith("ci_") else 0.25 for name in record} | fixed
    found = {name: error * np.nan_to_num(factor * width, nan=0.5) for name, factor in factors.items()}
    return found | {name: error * 0.5 for name in record if name.startswith("p_")}


def compare_numbers(place: str, before: Any, after: Any, draws: float, errors: Any) -> Differences:
    """Compare numbers, or lists of them, to the tolerance or to their Monte-Carlo errors."""
    old, new = (np.atleast_1d(np.array(each, dtype=float)) for each in (before, after))
    if old.shape != new.shape:
        yield place, f"{len(old)} numbers before, {len(new)} after", ""
        return
    off, excuse = ~np.isclose(new, old, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True), ""
    if draws and (errors is None or "/sample_stats/" in place):
        excuse = "drawn anew, and how far it may move is not known"
    elif draws and bool((np.abs(new - old) <= ERRORS * errors)[off].all()):
        excuse = "drawn anew, within Monte-Carlo error"
    if off.any():
        yield place, f"{off.sum()} of {off.size} numbers, the first {old[off][0]} → {new[off][0]}", excuse


def compare_texts(place: str, before: Any, after: Any, draws: float) -> Differences:
    """Compare what is no number; digits may move where the draws did."""
    old, new = str(before), str(after)
    if old != new:
        start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        shown = slice(max(start - 30, 0), start + 70)
        alike = draws and len({re.sub(r"[\d.,<>−-]+", "#", each) for each in (old, new)}) == 1
        excuse = "last bits, or markup" if place.endswith("/digest") else "drawn anew, other digits" if alike else ""
        yield place, f"…{old[shown]}… → …{new[shown]}…", excuse


def compare_values(place: str, before: Any, after: Any, draws: float = 0.0, errors: Any = None) -> Differences:
    """Compare anything that is stored; so many effective `draws` are behind what NUTS drew anew, 0 behind the rest."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        numeric = all(np.size(each) and np.asarray(each).dtype.kind in "fiub" for each in (before, after))
        compare = partial(compare_numbers, errors=errors) if numeric else compare_texts
        yield from compare(place, before, after, draws)
        return
    if before.get("sampled") is True:
        one, other = (each["draws"]["posterior"]["effect"]["digest"] for each in (before, after))
        draws = min(each["diagnosis"]["ess_bulk_min"] for each in (before, after)) if one != other else 0.0
    if [name for name in after if name in before] != [name for name in before if name in after]:
        yield place, "columns are in another order", ""
    allowed = find_errors(before, draws)
    for name in before | after:
        inner = f"{place}/{name}"
        if name not in after:
            yield inner, "is not there any more", ""
        elif name not in before:
            yield inner, "is new", "new column" if name in ALLOWED_NEW_COLUMNS else ""
        else:
            yield from compare_values(inner, before[name], after[name], draws, allowed.get(name))


def compare_snapshots(before: Path, after: Path) -> int:
    """Say what differs; return 1 if anything does that may not."""
    found = list(compare_values("", *(json.loads(path.read_text(encoding="utf-8")) for path in (before, after))))
    for excuse in sorted({excuse for *_, excuse in found}, reverse=True):
        some = [f"  {place}: {told}\n" for place, told, reason in found if reason == excuse]
        sys.stdout.write(f"\n{excuse or 'DIFFERENT'}: {len(some)}\n{''.join(some[: 10 if excuse else None])}")
    wrong = sum(not excuse for *_, excuse in found)
    sys.stdout.write(f"\n{wrong} differences that may not be, {len(found) - wrong} that may\n")
    return min(wrong, 1)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["store", target]:
            store_snapshot(Path(target))
        case ["compare", before, after]:
            sys.exit(compare_snapshots(Path(before), Path(after)))
        case _:
            sys.exit(__doc__)
