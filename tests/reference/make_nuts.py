"""Long NUTS runs, kept as numbers in nuts/: what every other engine must agree with.

    python tests/reference/make_nuts.py [NAME ...]

Without names all data sets are run, which takes half an hour. Each file holds the cell table, the
model, and for every scalar of the posterior its mean and SD with their Monte-Carlo standard errors and its
effective draws; for effects P(> 0) too, and beside the parameters the effects and ATE on the absolute scale.
A run that did not converge writes nothing.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr
from nuts_families import MADE
from run_numbers import as_text, describe_moments, digits

import bayes_hte as hte
from bayes_hte.analysis.run import prepare_analysis
from bayes_hte.estimands.effects import compute_effects, get_fitted_family
from bayes_hte.estimands.tables import compute_mcse_of_chains
from bayes_hte.estimands.weights import average_over_segments, compute_population_shares
from bayes_hte.inference.draws import add_mean_outcome
from bayes_hte.inference.nuts.sample import NutsSettings, sample_with_nuts
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import cell_table
from bayes_hte.spec.fit_tree import FitRecord

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"
PACKAGES = ("bayes_hte", "pymc", "nutpie", "arviz", "numpy")

MAX_RHAT = 1.005
MIN_ESS = 4000
MAX_DIVERGENT = 0.0005
"""Share of draws that may diverge."""


@dataclass(frozen=True, slots=True)
class Case:
    """One data set, its model, and how long the chains must be."""

    what: str
    source: str
    cells: xr.Dataset
    model: hte.Model
    draws: int = 400_000
    target_accept: float = 0.98
    tune: int = 3000
    seed: int = 20


def normal(sigma: float) -> dict[str, Any]:
    return {"dist": "Normal", "mu": 0.0, "sigma": sigma}


def half_normal(sigma: float) -> dict[str, Any]:
    return {"dist": "HalfNormal", "sigma": sigma}


def other_reference(name: str) -> dict[str, Any]:
    """A file beside this script, for the cells in it."""
    content: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return content


def from_plan(plan: str, what: str, **effort: Any) -> Case:
    """The cells and the model of one of the examples."""
    prepared = prepare_analysis(EXAMPLES / plan)
    return Case(what, f"examples/{plan}: {prepared.plan.source}", prepared.cells, prepared.model, **effort)


def eight_schools() -> Case:
    """The prior of Gelman (2006): uniform between schools; 104.44 is ten times the SD of the raw effects."""
    prior = {"mean": normal(100.0), "between": {"dist": "Uniform", "lower": 0.0, "upper": 104.44}}
    case = from_plan("eight_schools/plan.toml", "Rubin's (1981) eight schools, vague priors")
    return Case(case.what, case.source, case.cells, hte.Model(family="estimate", effect=prior), target_accept=0.99)


def bcg() -> Case:
    rows = pd.DataFrame(other_reference("bcg")["cells"])
    cells = hte.cells.from_estimates(rows, segments=["segment"], estimate="y", se="se")
    source = "bcg.json: Colditz et al. (1994), JAMA 271:698-702"
    return Case("13 BCG trials, log risk ratios", source, cells, hte.read_model("published-estimates"))


def beta_blockers(what: str, model: hte.Model) -> Case:
    rows = pd.DataFrame(other_reference("blockers")["cells"])
    cells = hte.cells.from_summary(
        rows, arm="arm", control="control", segments=["segment"], n="n", events="events", outcome="death"
    )
    return Case(what, "blockers.json: Yusuf et al. (1985); BUGS examples vol. 1; BDA3 section 5.6", cells, model)


def blockers() -> Case:
    return beta_blockers("22 beta-blocker trials", hte.read_model("conversion"))


def blockers_free() -> Case:
    baseline = {"pooling": "none", "mean": normal(5.0)}
    effect = {"mean": normal(1.0), "between": half_normal(0.5)}
    model = hte.Model(family="binomial", effect=effect, baseline=baseline)
    return beta_blockers("22 beta-blocker trials, free trial intercepts", model)


def hillstrom() -> Case:
    return from_plan("hillstrom/plan.toml", "Hillstrom: visits by past purchases, two e-mails against none")


def hillstrom_channel() -> Case:
    what = "Hillstrom: visits by sales channel; three segments hardly identify the between-segment SD"
    return from_plan("hillstrom/channel.toml", what, target_accept=0.99)


def hillstrom_spend() -> Case:
    case = from_plan("hillstrom/spend.toml", "Hillstrom: spend by past purchases, two e-mails against none")
    # Each cell's own variance, which makes standard errors differ more than those that the plan's model pools.
    return replace(case, model=case.model.model_copy(update={"unit_variance": "per_cell"}))


def thornton() -> Case:
    return from_plan("thornton/plan.toml", "Thornton (2008): learning one's HIV result, 119 villages", draws=200_000)


def star() -> Case:
    rows = pd.DataFrame(other_reference("star")["cells"])
    cells = hte.cells.from_summary(
        rows, arm="arm", control="regular", segments=["segment"], n="n", mean="mean", sd="sd", outcome="score"
    )
    source = "star.json: Tennessee STAR, kindergarten, reading + maths"
    model = hte.read_model("continuous")
    return Case("STAR: small against regular classes, 79 schools", source, cells, model, draws=200_000)


def binomial_cells(seed: int, n: np.ndarray, effect: list[float], tau: float) -> xr.Dataset:
    """Synthetic counts: n has dims (segment, arm), the control first; control rates near 10 %."""
    rng = np.random.default_rng(seed)
    segments, arms = n.shape
    baseline = rng.normal(-2.2, 0.3, (segments, 1))
    shift = np.array(effect) + tau * rng.standard_normal((segments, arms - 1))
    rate = 1 / (1 + np.exp(-baseline - np.column_stack([np.zeros(segments), shift])))
    return synthetic({"n": n, "events": rng.binomial(n, rate)})


def synthetic(columns: dict[str, np.ndarray]) -> xr.Dataset:
    """A summary of one row per segment and arm, from arrays with dims (segment, arm)."""
    segments, arms = columns["n"].shape
    rows = [
        {"segment": f"s{s + 1:02d}", "arm": "control" if a == 0 else f"arm {a}"}
        | {name: values[s, a] for name, values in columns.items()}
        for s in range(segments)
        for a in range(arms)
    ]
    named = {name: name for name in columns}
    return hte.cells.from_summary(pd.DataFrame(rows), arm="arm", control="control", segments=["segment"], **named)


def sparse() -> Case:
    n = np.random.default_rng(301).integers(1, 61, (30, 2))
    n[17, 1] = 0
    cells = binomial_cells(302, n, [0.4], 0.4)
    what = "Synthetic: 30 segments of 1 to 60 units per arm, rates near 10 %, one arm unseen in one segment"
    return Case(what, "binomial_cells(seed=302) of this script", cells, hte.read_model("conversion"))


def four_arms() -> Case:
    n = np.random.default_rng(401).integers(40, 900, (12, 4))
    cells = binomial_cells(402, n, [0.0, 0.3, -0.3], 0.25)
    what = "Synthetic: control and three treated arms, 12 segments, yes or no"
    return Case(what, "binomial_cells(seed=402) of this script", cells, hte.read_model("conversion"))


def normal_three_arms() -> Case:
    """Eight segments, three arms with SDs 8, 8 and 12; one cell of a single unit."""
    rng = np.random.default_rng(502)
    n = rng.integers(3, 60, (8, 3))
    n[6, 2] = 1
    centre = rng.normal(50, 5, (8, 1)) + np.column_stack([np.zeros(8), rng.normal([2, 5], [1.5, 4], (8, 2))])
    units = [[rng.normal(centre[s, a], sd, n[s, a]) for a, sd in enumerate([8, 8, 12])] for s in range(8)]
    mean = np.array([[cell.mean() for cell in row] for row in units])
    sd = np.array([[cell.std(ddof=1) if len(cell) > 1 else 0.0 for cell in row] for row in units])
    what = "Synthetic: control and two treated arms, 8 segments, normal outcome"
    source = "normal_three_arms (seed=502) of this script"
    return Case(what, source, synthetic({"n": n, "mean": mean, "sd": sd}), hte.read_model("continuous"))


def synthetic_family(name: str) -> Case:
    """One of the data sets of nuts_families.py."""
    what, cells, model = MADE[name]()
    effort = {"draws": 44_000, "tune": 1000}
    return Case(what, f"{name} of nuts_families.py", cells, model, target_accept=0.97, **effort)


CASES: dict[str, Callable[[], Case]] = {
    case.__name__: case
    for case in (
        eight_schools, bcg, blockers, blockers_free, hillstrom, hillstrom_channel, hillstrom_spend, thornton, star,
        sparse, four_arms, normal_three_arms,
    )
} | {name: partial(synthetic_family, name) for name in MADE}  # fmt: skip


def quantities(tree: xr.DataTree) -> xr.Dataset:
    """Every scalar that must agree: parameters without offsets, effects and ATE on the absolute scale."""
    posterior = tree["posterior"].to_dataset()
    aside = ("_offset", "_half")  # what only NUTS draws: offsets, and correlations as shares
    found = posterior[[name for name in map(str, posterior.data_vars) if not name.endswith(aside)]]
    absolute = compute_effects(tree, "absolute")
    if get_fitted_family(tree).link != "identity":
        found["effect_absolute"] = absolute
    found["ate_absolute"] = average_over_segments(absolute, compute_population_shares(tree["cells"].to_dataset()))
    return found


def described(found: xr.Dataset) -> dict[str, Any]:
    """Per variable its dims and the arrays of its statistics, and P(effect > 0)."""
    content, positive = describe_moments(found), found["effect"] > 0
    content["effect"]["p_positive"] = digits(positive.mean(("chain", "draw")), 6)
    content["effect"]["p_mcse"] = digits(compute_mcse_of_chains(positive), 3)
    return content


def table(cells: xr.Dataset) -> dict[str, Any]:
    """The cell table as lists: labels, then each variable with the contract's order of dims, digits untouched."""
    further = [name for name in ("value", "interval", "start", "end", "covariate") if name in cells.coords]
    extra: dict[str, Any] = {"coords": {name: cells[name].values.tolist() for name in further}} if further else {}
    if "horizon" in cells.attrs:
        extra["horizon"] = cells.attrs["horizon"]
    return extra | {
        "outcome": cells.attrs["outcome"],
        "control": cells.attrs["control"],
        "arm": cells["arm"].values.astype(str).tolist(),
        "segment": cells["segment"].values.astype(str).tolist(),
        "dimensions": {name: cells[name].values.astype(str).tolist() for name in cell_table.list_dimensions(cells)},
        "data": {
            str(name): values.astype(object).where(values.notnull(), None).values.tolist()
            for name, values in cells.data_vars.items()
        },
        "sha256": cell_table.hash_cell_table(cells),
    }


def run(case: Case) -> dict[str, Any]:
    """Sample, summarise, and refuse what did not converge."""
    task = build_problem(case.cells, case.model)
    drawn = sample_with_nuts(
        task, draws=case.draws, seed=case.seed, settings=NutsSettings(case.target_accept, case.tune), progress=False
    )
    drawn = replace(drawn, posterior=add_mean_outcome(task, drawn.posterior))
    tree = drawn.to_fit_tree(case.cells, FitRecord(model=case.model, seed=case.seed))
    found = quantities(tree)
    rhat = max(float(values.max()) for values in az.rhat(found).data_vars.values())
    ess = min(float(values.min()) for values in az.ess(found, method="bulk").data_vars.values())
    divergent = int(drawn.sample_stats["diverging"].sum())
    chains, draws = (drawn.posterior.sizes[dim] for dim in ("chain", "draw"))
    effort = {"draws": chains * draws, "chains": chains, "tune": case.tune, "target_accept": case.target_accept,
              "seed": case.seed}  # fmt: skip
    outcome = {"divergences": divergent, "max_rhat": round(rhat, 5), "min_ess": round(ess)}
    if rhat > MAX_RHAT or ess < MIN_ESS or divergent > MAX_DIVERGENT * case.draws:
        raise SystemExit(f"not converged, nothing written: {case.what}: {outcome}; raise draws or target_accept")
    return {
        "what": case.what,
        "source": case.source,
        "made_by": "NUTS (nutpie) on the PyMC model, tests/reference/make_nuts.py",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "run": effort | outcome,
        "cells": table(case.cells),
        "model": case.model.model_dump(exclude={"title", "notes"}, exclude_none=True),
        "quantities": described(found),
    }


def main(names: list[str]) -> None:
    for name in names or CASES:
        started = time.perf_counter()
        content = run(CASES[name]())
        path = HERE / "nuts" / f"{name}.json"
        path.write_text(as_text(content) + "\n", encoding="utf-8")
        seconds, size = time.perf_counter() - started, path.stat().st_size
        sys.stdout.write(f"{name}: {content['run']}, {seconds:.0f} s, {size / 1000:.0f} kB\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
