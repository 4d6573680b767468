"""Gather other people's results, and the data behind them, into the golden files beside this script.

    python tests/reference/make.py REFERENCE_FOLDER DATA_FOLDER

The reference folder holds brms.json (brms 2.18, Stan), estimates_exact.json (quadrature over tau) and
bayesmeta.json (bayesmeta, R); the data folder the public data sets that they were computed from. Only cell
figures computed from the data are kept, never rows.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parent


def normal(sigma: float, mu: float = 0.0) -> dict[str, Any]:
    return {"dist": "Normal", "mu": mu, "sigma": sigma}


def half_normal(sigma: float) -> dict[str, Any]:
    return {"dist": "HalfNormal", "sigma": sigma}


def summaries(slopes: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{"segment": str(s[key]), "mean": s["mean"], "sd": s["sd"], "p_positive": s["p_gt0"]} for s in slopes]


def effective(case: dict[str, Any]) -> float:
    """Draws that the slowest of the reference's parameters is worth."""
    return float(case["diagnostics"]["draws"] * case["diagnostics"]["neff_ratio_min"])


def write(name: str, content: dict[str, Any]) -> None:
    (HERE / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def hillstrom(brms: dict[str, Any], data: Path) -> None:
    cells = pd.read_csv(data / "hillstrom" / "womens_visit_cells.csv")
    case = brms["hillstrom_womens_visit"]
    write("hillstrom_womens_visit", {
        "what": "Hillstrom women's e-mail against none, visits in 29 segments",
        "made_by": "brms 2.18 (Stan)", "prior": case["prior"], "ess": effective(case),
        "cells": [
            {"segment": r.seg, "arm": "email" if r.trt else "none", "n": int(r.n), "events": int(r.visit_sum)}
            for r in cells.itertuples()
        ],
        "model": {
            "family": "binomial",
            "effect": {"mean": normal(1), "between": half_normal(1)},
            "baseline": {"mean": normal(2.5), "between": half_normal(1)},
        },
        "hyper": {"effect_mean": case["hyper"]["b_trt"], "effect_between": case["hyper"]["sd_seg__trt"],
                  "baseline_mean": case["hyper"]["b_Intercept"],
                  "baseline_between": case["hyper"]["sd_seg__Intercept"]},
        "effects": summaries(case["slopes"], "level"),
    })  # fmt: skip


def blockers(brms: dict[str, Any], data: Path) -> None:
    trials = pd.read_csv(data / "blockers" / "blockers22.csv")
    case = brms["blockers22"]
    cells = [
        {"segment": f"t{r.trial:02d}", "arm": arm, "n": int(n), "events": int(deaths)}
        for r in trials.itertuples()
        for arm, n, deaths in (("control", r.nc, r.rc), ("treated", r.nt, r.rt))
    ]
    write("blockers", {
        "what": "22 beta-blocker trials (BUGS vol. 1; BDA3 section 5.6), free trial intercepts",
        "made_by": "brms 2.18 (Stan)", "prior": case["prior"], "ess": effective(case), "cells": cells,
        "model": {
            "family": "binomial",
            "effect": {"mean": normal(1), "between": half_normal(0.5)},
            "baseline": {"pooling": "none", "mean": normal(10)},
        },
        "hyper": {"effect_mean": case["hyper"]["b_trt"], "effect_between": case["hyper"]["sd_study__trt"]},
        "effects": summaries(case["slopes"], "level"),
    })  # fmt: skip


def star(brms: dict[str, Any], data: Path) -> None:
    pupils = pd.read_csv(data / "star" / "star_k_small_regular.csv")
    grouped = pupils.groupby(["schoolidk", "trt"])["scorek"]
    moments = grouped.agg(n="size", mean="mean", sd="std").reset_index()
    case = brms["star_k"]
    write("star", {
        "what": "Tennessee STAR kindergarten, small against regular classes, reading + maths, 79 schools",
        "made_by": "brms 2.18 (Stan)", "prior": case["prior"], "ess": effective(case),
        "cells": [
            {"segment": str(int(r.schoolidk)), "arm": "small" if r.trt else "regular", "n": int(r.n),
             "mean": r.mean, "sd": r.sd}
            for r in moments.itertuples()
        ],
        "model": {
            "family": "normal",
            "effect": {"mean": normal(50), "between": half_normal(50)},
            "baseline": {"mean": normal(100, mu=900), "between": half_normal(50)},
            "nuisance": {"sigma": half_normal(100)},
        },
        "hyper": {"effect_mean": case["hyper"]["b_trt"], "effect_between": case["hyper"]["sd_school__trt"],
                  "baseline_mean": case["hyper"]["b_Intercept"],
                  "baseline_between": case["hyper"]["sd_school__Intercept"]},
        "effects": summaries(case["slopes"], "level"),
    })  # fmt: skip


def schools(exact: dict[str, Any]) -> None:
    case = exact["eight_schools__mu_N0_5__tau_HC5 (posteriordb prior)"]
    write("eight_schools", {
        "what": "Rubin's (1981) eight schools", "made_by": "quadrature over tau", "prior": case["prior"],
        "cells": [
            {"segment": name, "y": y, "se": se}
            for name, y, se in zip(case["theta"], case["y"], case["se"], strict=True)
        ],
        "model": {"family": "estimate",
                  "effect": {"mean": normal(5), "between": {"dist": "HalfCauchy", "beta": 5}}},
        "hyper": {"effect_mean": case["mu"], "effect_between": case["tau"]},
        "new_segment": case["new_group"],
        "effects": [
            {"segment": name, "mean": t["mean"], "sd": t["sd"], "p_positive": t["p_gt0"], "pooling": t["pooling"]}
            for name, t in case["theta"].items()
        ],
    })  # fmt: skip


def bcg(bayesmeta: dict[str, Any]) -> None:
    case = bayesmeta["bcg_logRR_N0_2_HN1"]
    write("bcg", {
        "what": "13 BCG trials, log risk ratios", "made_by": "bayesmeta (R)", "prior": case["prior"],
        "cells": [{"segment": t["label"], "y": t["y"], "se": t["se"]} for t in case["theta"]],
        "model": {"family": "estimate", "effect": {"mean": normal(2), "between": half_normal(1)}},
        "hyper": {"effect_mean": case["mu"], "effect_between": case["tau"]},
        "new_segment": case["new_theta"],
        "effects": summaries(case["theta"], "label"),
    })  # fmt: skip


if __name__ == "__main__":
    folder, data = Path(sys.argv[1]), Path(sys.argv[2])
    brms = json.loads((folder / "brms.json").read_text())
    hillstrom(brms, data)
    blockers(brms, data)
    star(brms, data)
    schools(json.loads((folder / "estimates_exact.json").read_text()))
    bcg(json.loads((folder / "bayesmeta.json").read_text()))
