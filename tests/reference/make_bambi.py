"""Fit a model of crossed dimensions with Bambi, and keep its numbers in bambi_crossed.json.

    python -m venv ENVIRONMENT && ENVIRONMENT/bin/pip install bambi nutpie
    ENVIRONMENT/bin/python tests/reference/make_bambi.py

Bambi is not among the packages that the tests need: it gets an environment of its own, which may be deleted
afterwards. The data are generated here. The formula and its priors say the same as a model of this package with
``by = ["*"]`` for effects and baselines; the test fits that, and compares.
"""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import arviz as az
import bambi as bmb
import numpy as np
import pandas as pd
import xarray as xr

HERE = Path(__file__).parent
FORMULA = (
    "p(events, n) ~ 1 + treat + (1|device) + (1|plan) + (1|segment)"
    " + (0 + treat|device) + (0 + treat|plan) + (0 + treat|segment)"
)
SCALES = {
    "1|device": 1.0,
    "1|plan": 1.0,
    "1|segment": 0.5,
    "treat|device": 0.5,
    "treat|plan": 0.5,
    "treat|segment": 0.25,
}
NAMES = {
    "Intercept": "baseline_mean", "treat": "effect_mean",
    "1|device_sigma": "baseline_device_between", "1|plan_sigma": "baseline_plan_between",
    "1|segment_sigma": "baseline_between", "treat|device_sigma": "effect_device_between",
    "treat|plan_sigma": "effect_plan_between", "treat|segment_sigma": "effect_between",
}  # fmt: skip


def cells() -> pd.DataFrame:
    """Counts in five devices, four plans and two arms."""
    rng = np.random.default_rng(2024)
    device, plan = rng.normal(0, 0.4, 5), rng.normal(0, 0.3, 4)
    effect_device, effect_plan = rng.normal(0, 0.4, 5), rng.normal(0, 0.15, 4)
    rows = []
    for d in range(5):
        for p in range(4):
            base, own = -1.8 + device[d] + plan[p] + rng.normal(0, 0.15), rng.normal(0, 0.1)
            for treat in (0, 1):
                n = int(rng.integers(40, 900))
                eta = base + treat * (0.3 + effect_device[d] + effect_plan[p] + own)
                rows.append({"device": f"d{d}", "plan": f"p{p}", "segment": f"d{d} | p{p}", "treat": treat,
                             "n": n, "events": int(rng.binomial(n, 1 / (1 + np.exp(-eta))))})  # fmt: skip
    return pd.DataFrame(rows)


def fitted(rows: pd.DataFrame) -> xr.DataTree:
    """A long run."""

    def normal(sigma: Any) -> bmb.Prior:
        return bmb.Prior("Normal", mu=0, sigma=sigma)

    priors = {"Intercept": normal(2.5), "treat": normal(1.0)}
    priors |= {name: normal(bmb.Prior("HalfNormal", sigma=scale)) for name, scale in SCALES.items()}
    model = bmb.Model(FORMULA, rows, family="binomial", priors=priors, center_predictors=False)
    return model.fit(
        draws=4000, tune=2000, chains=4, cores=2, random_seed=1, inference_method="nutpie", target_accept=0.98
    )


def effects(posterior: xr.Dataset, rows: pd.DataFrame) -> xr.DataArray:
    """Log odds ratios of segments: the mean, and what their device, their plan and they themselves add."""
    found = []
    for row in rows.drop_duplicates("segment").itertuples():
        total = posterior["treat"]
        for term, level in (("device", row.device), ("plan", row.plan), ("segment", row.segment)):
            name = f"treat|{term}"
            total = total + posterior[name].sel({posterior[name].dims[-1]: level}, drop=True)
        found.append(total.expand_dims(segment=[row.segment]))
    return xr.concat(found, dim="segment").transpose("chain", "draw", "segment")


def described(draws: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Means and SDs with their Monte-Carlo errors."""
    mcse, mcse_sd, ess = az.mcse(draws, method="mean"), az.mcse(draws, method="sd"), az.ess(draws)
    mean, sd = draws.mean(("chain", "draw")), draws.std(("chain", "draw"), ddof=1)
    return {
        str(name): {
            key: np.round(each[name].values, 6).tolist()
            for key, each in {"mean": mean, "sd": sd, "mcse": mcse, "mcse_sd": mcse_sd, "ess": ess}.items()
        }
        for name in draws.data_vars
    }


if __name__ == "__main__":
    rows = cells()
    posterior = fitted(rows)["posterior"].to_dataset()
    draws = posterior[list(NAMES)].rename(NAMES).assign(effect=effects(posterior, rows))
    rhat = max(float(each.max()) for each in az.rhat(draws).data_vars.values())
    content = {
        "what": "Synthetic counts, five devices by four plans, two arms",
        "made_by": f"Bambi {version('bambi')}, nutpie, tests/reference/make_bambi.py", "formula": FORMULA,
        "max_rhat": rhat, "cells": {name: rows[name].tolist() for name in rows},
        "segment": list(dict.fromkeys(rows["segment"])), "quantities": described(draws),
    }  # fmt: skip
    (HERE / "bambi_crossed.json").write_text(json.dumps(content, indent=None) + "\n", encoding="utf-8")
    assert rhat < 1.01, rhat
