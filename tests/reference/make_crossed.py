"""Long NUTS runs of plain PyMC models of crossed and nested dimensions, kept as numbers in crossed/.

    python tests/reference/make_crossed.py [NAME ...]

The models are written out here, non-centred, and share no line with the package, so that neither an engine nor the
package's own PyMC model can be wrong in the same way. Each file holds the rows, the model as the package states it,
and for every scalar its mean and SD with their Monte-Carlo standard errors and its effective draws; for effects,
of segments, of levels and in common, P(> 0) too. A run that did not converge writes nothing.

One core, chains in turn: all data sets take about half an hour.
"""

import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz as az
import crossed_data
import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import xarray as xr
from run_numbers import SAMPLE, as_text, describe_moments, digits

HERE = Path(__file__).parent
PACKAGES = ("pymc", "nutpie", "arviz", "numpy")
CHAINS = 4
MAX_RHAT = 1.005
MIN_ESS_BETWEEN, MIN_ESS = 4000, 1500
"""Of every between-SD, and of everything else."""
MAX_DIVERGENT_SHARE = 0.0005

Scales = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Case:
    """Rows, their dimensions, which terms effects and baselines are made of, and the scales of the priors.

    `effect_scales` and `baseline_scales` are the SDs of normal priors of the mean and the slope, and of half-normal
    priors of the SD between levels and of what is left to segments.
    """

    rows: Callable[[], pd.DataFrame]
    family: str
    dimensions: tuple[str, ...]
    effect_by: tuple[str, ...]
    baseline_by: tuple[str, ...]
    effect_scales: Scales = field(default_factory=lambda: {"mean": 1.0, "level": 0.5, "left": 0.25})
    baseline_scales: Scales = field(default_factory=lambda: {"mean": 2.5, "level": 1.0, "left": 0.5})
    baseline_centre: float = 0.0
    covariate: str = ""
    draws: int = 60_000
    target_accept: float = 0.99
    tune: int = 2000
    seed: int = 20


def three(name: str, rows: Callable[[], pd.DataFrame], **changes: Any) -> Case:
    """Build a case of yes or no in which all three dimensions count for effects and for baselines."""
    every = ("bought", "customer", "spent") if name == "hillstrom" else ("device", "plan", "region")
    return Case(rows, "binomial", every, every, every, **changes)


NESTED = ("region", "region:district")
UNITS = {
    "effect_scales": {"mean": 2.0, "level": 1.0, "left": 0.5},
    "baseline_scales": {"mean": 5.0, "level": 2.0, "left": 1.0},
    "baseline_centre": 4.0,
}
CASES: dict[str, Case] = {
    "hillstrom": three("hillstrom", crossed_data.hillstrom, draws=45_000, target_accept=0.97),
    "large": three("large", crossed_data.large, target_accept=0.97),
    "weak": three("weak", crossed_data.weak, draws=100_000),
    "tiny": three("tiny", crossed_data.tiny, draws=100_000),
    "normal": Case(crossed_data.normal, "normal", *[("device", "plan", "region")] * 3, **UNITS),
    "poisson": Case(crossed_data.poisson, "poisson", ("device", "plan"), ("device",), ("plan", "device")),
    "nested": Case(crossed_data.nested, "binomial", ("region", "district", "device"), NESTED, (*NESTED, "device"),
                   draws=100_000),
    "nested_covariate": Case(
        crossed_data.nested_covariate, "binomial", ("region", "district", "ward"), NESTED, NESTED,
        effect_scales={"mean": 1.0, "level": 0.5, "left": 0.25, "slope": 0.5}, covariate="age",
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- model


def label_levels(segments: pd.DataFrame, term: str) -> list[str]:
    """Label every segment's level of a term, `region` or `region:district`."""
    return [" | ".join(levels) for levels in segments[term.split(":")].itertuples(index=False)]


def add_levels(name: str, terms: tuple[str, ...], scales: Scales, places: Mapping[str, Any], arms: tuple[str, ...]
               ) -> Any:  # fmt: skip
    """Add Σ_terms sd_term z[level of segment], z ~ Normal(0, 1), sd ~ HalfNormal; per arm where there are arms."""
    total: Any = 0.0
    for term in terms:
        variable = f"{name}_{term.replace(':', '_')}"
        sd = pm.HalfNormal(f"{variable}_between", scales["level"], dims=arms or None)
        z = pm.Normal(f"{variable}_z", 0, 1, dims=(term, *arms))
        total = total + pm.Deterministic(variable, sd * z, dims=(term, *arms))[places[term]]
    return total


def build_model(case: Case, rows: pd.DataFrame) -> pm.Model:
    """Write the model out: baseline + effect of every segment, and the likelihood of its cells."""
    segments = rows.drop_duplicates([*case.dimensions]).reset_index(drop=True)
    labels = [" · ".join(levels) for levels in segments[[*case.dimensions]].itertuples(index=False)]
    of_row = {label: i for i, label in enumerate(labels)}
    s = np.array([of_row[" · ".join(levels)] for levels in rows[[*case.dimensions]].itertuples(index=False)])
    treated = [arm for arm in dict.fromkeys(rows["arm"]) if arm != "control"]
    a = np.array([0 if arm == "control" else 1 + treated.index(arm) for arm in rows["arm"]])
    terms = tuple(dict.fromkeys((*case.effect_by, *case.baseline_by)))
    by_segment = {term: label_levels(segments, term) for term in terms}
    coords: dict[str, Any] = {"segment": labels, "arm": treated, "variant": ["control", *treated]}
    coords |= {term: list(dict.fromkeys(levels)) for term, levels in by_segment.items()}
    places = {term: np.array([coords[term].index(each) for each in levels]) for term, levels in by_segment.items()}
    if case.covariate:
        coords["covariate"] = [case.covariate]

    with pm.Model(coords=coords) as model:
        baseline_mean = pm.Normal("baseline_mean", case.baseline_centre, case.baseline_scales["mean"])
        baseline_between = pm.HalfNormal("baseline_between", case.baseline_scales["left"])
        baseline_z = pm.Normal("baseline_z", 0, 1, dims="segment")
        levels = add_levels("baseline", case.baseline_by, case.baseline_scales, places, ())
        baseline = pm.Deterministic("baseline", baseline_mean + levels + baseline_between * baseline_z, dims="segment")

        effect_mean = pm.Normal("effect_mean", 0, case.effect_scales["mean"], dims="arm")
        effect_between = pm.HalfNormal("effect_between", case.effect_scales["left"], dims="arm")
        effect_z = pm.Normal("effect_z", 0, 1, dims=("segment", "arm"))
        centre = effect_mean + add_levels("effect", case.effect_by, case.effect_scales, places, ("arm",))
        if case.covariate:
            x = segments[case.covariate].to_numpy()
            slope = pm.Normal("effect_slope", 0, case.effect_scales["slope"], dims=("covariate", "arm"))
            centre = centre + ((x - x.mean()) / x.std(ddof=1))[:, None] * slope[0]
        effect = pm.Deterministic("effect", centre + effect_between * effect_z, dims=("segment", "arm"))

        eta = baseline[s] + np.where(a > 0, 1.0, 0.0) * effect[s, np.maximum(a - 1, 0)]
        if case.family == "binomial":
            pm.Binomial("events", rows["n"].to_numpy(), logit_p=eta, observed=rows["events"].to_numpy())
        elif case.family == "poisson":
            pm.Poisson("events", rows["exposure"].to_numpy() * pm.math.exp(eta), observed=rows["events"].to_numpy())
        else:
            sigma = pm.HalfNormal("sigma", 4.0, dims="variant")
            n, mean, ss = (rows[name].to_numpy() for name in ("n", "mean", "ss"))
            # Σ_i log Normal(y_i; eta, sigma) = −n log sigma − (ss + n (mean − eta)²) / (2 sigma²)
            pm.Potential("y", -n * pm.math.log(sigma[a]) - (ss + n * (mean - eta) ** 2) / (2 * sigma[a] ** 2))
    return model


def state_model(case: Case) -> dict[str, Any]:
    """State the same model as a model file of the package does."""

    def normal(sigma: float, mu: float = 0.0) -> dict[str, Any]:
        return {"dist": "Normal", "mu": mu, "sigma": sigma}

    def half(sigma: float) -> dict[str, Any]:
        return {"dist": "HalfNormal", "sigma": sigma}

    tables: dict[str, Any] = {"family": case.family}
    for name, scales, by in (
        ("effect", case.effect_scales, case.effect_by), ("baseline", case.baseline_scales, case.baseline_by)
    ):  # fmt: skip
        centre = case.baseline_centre if name == "baseline" else 0.0
        tables[name] = {"mean": normal(scales["mean"], centre), "between": half(scales["left"]), "by": list(by),
                        "by_between": half(scales["level"])}  # fmt: skip
    if case.covariate:
        tables["effect"] |= {"covariates": [case.covariate], "slope": normal(case.effect_scales["slope"])}
    if case.family == "normal":
        tables["nuisance"] = {"sigma": half(4.0)}
    return tables


# --------------------------------------------------------------------------------------------------- run


def describe_run(found: xr.Dataset) -> dict[str, Any]:
    """Describe moments, and P(> 0) of whatever is an effect."""
    content = describe_moments(found)
    for name, draws in found.data_vars.items():
        if str(name).startswith("effect") and not str(name).endswith("_between"):
            share = (draws > 0).astype(float)
            p = share.mean(SAMPLE)
            error = az.mcse(share.to_dataset(name="x"), method="mean")["x"].fillna(0.0)
            content[str(name)]["p_positive"] = digits(p, 6)
            content[str(name)]["p_mcse"] = digits(error, 3)
    return content


def run(name: str, case: Case) -> dict[str, Any]:
    """Sample, summarise, and refuse what did not converge."""
    rows = case.rows()
    with build_model(case, rows) as model:
        compiled = nutpie.compile_pymc_model(model)
    tree = nutpie.sample(
        compiled, draws=case.draws // CHAINS, tune=case.tune, chains=CHAINS, cores=1, seed=case.seed,
        target_accept=case.target_accept, progress_bar=False, save_warmup=False, adaptation="low_rank",
    )  # fmt: skip
    posterior = tree["posterior"].to_dataset()
    found = posterior[[each for each in posterior.data_vars if not str(each).endswith(("_z", "_log__"))]]
    divergent = int(tree["sample_stats"]["diverging"].sum())
    content = describe_run(found)
    rhat = max(float(values.max()) for values in az.rhat(found).data_vars.values())
    ess = {each: int(np.min(numbers["ess"])) for each, numbers in content.items()}
    least = {
        "between": min(value for each, value in ess.items() if each.endswith("_between")),
        "all": min(ess.values()),
    }
    outcome = {"divergences": divergent, "max_rhat": round(rhat, 5), "min_ess_between": least["between"],
               "min_ess": least["all"]}  # fmt: skip
    sys.stdout.write(f"{name}: {outcome}\n{dict(sorted(ess.items(), key=lambda each: each[1])[:6])}\n")
    few = least["between"] < MIN_ESS_BETWEEN or least["all"] < MIN_ESS
    if rhat > MAX_RHAT or few or divergent > MAX_DIVERGENT_SHARE * case.draws:
        raise SystemExit(f"not converged, nothing written: {name}: {outcome}; raise draws or target_accept")
    effort = {"draws": case.draws, "chains": CHAINS, "tune": case.tune, "target_accept": case.target_accept,
              "seed": case.seed}  # fmt: skip
    return {
        "what": (case.rows.__doc__ or "").splitlines()[0],
        "source": f"{case.rows.__name__} of crossed_data.py",
        "made_by": "NUTS (nutpie) on a plain PyMC model, tests/reference/make_crossed.py",
        "versions": {"python": platform.python_version()} | {each: version(each) for each in PACKAGES},
        "run": effort | outcome,
        "dimensions": case.dimensions,
        "rows": {column: rows[column].tolist() for column in rows},
        "model": state_model(case),
        "labels": {dim: found[dim].values.tolist() for dim in map(str, found.dims) if dim not in SAMPLE},
        "quantities": content,
    }


def main(names: list[str]) -> None:
    (HERE / "crossed").mkdir(exist_ok=True)
    for name in names or CASES:
        started = time.perf_counter()
        text = as_text(run(name, CASES[name])) + "\n"
        (HERE / "crossed" / f"{name}.json").write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}: {time.perf_counter() - started:.0f} s, {len(text) / 1000:.0f} kB\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
