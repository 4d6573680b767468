"""Gather other people's results, and the data behind them, into the golden files beside this script.

    python tests/reference/make.py REFERENCE_FOLDER DATA_FOLDER

The reference folder holds brms.json (brms 2.18, Stan), estimates_exact.json (quadrature over tau) and
bayesmeta.json (bayesmeta, R), metafor.json (metafor, R) and lme4.json (lme4 and glmmTMB, R); the data folder the public
data sets that they were computed from. Only cell figures computed from the data are kept, never rows.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from run_numbers import as_text

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


def write_compact(name: str, content: dict[str, Any]) -> None:
    """One line per list: for large cell tables."""
    (HERE / f"{name}.json").write_text(as_text(content) + "\n", encoding="utf-8")


def catheters(brms: dict[str, Any], data: Path) -> None:
    trials = pd.read_csv(data / "metadat" / "dat.nielweise2008.csv")
    case = brms["nielweise2008"]
    cells = [
        {"segment": f"s{r.study:02d}", "arm": arm, "events": int(events), "exposure": float(days)}
        for r in trials.itertuples()
        for arm, events, days in (("control", r.x2i, r.t2i), ("treated", r.x1i, r.t1i))
    ]
    write("catheters", {
        "what": "9 trials of anti-infective catheters, infections per catheter-day (Niel-Weise et al. 2008)",
        "made_by": "brms 2.18 (Stan)", "prior": case["prior"], "ess": effective(case), "cells": cells,
        "model": {
            "family": "poisson",
            "effect": {"mean": normal(1), "between": half_normal(0.5)},
            "baseline": {"pooling": "none", "mean": normal(10)},
        },
        "hyper": {"effect_mean": case["hyper"]["b_trt"], "effect_between": case["hyper"]["sd_study__trt"]},
        "baselines": [
            {"segment": name.removeprefix("b_study"), "mean": found["mean"], "sd": found["sd"]}
            for name, found in case["hyper"].items() if name.startswith("b_study")
        ],
        "effects": summaries(case["slopes"], "level"),
    })  # fmt: skip


def bcg_latitude(metafor: dict[str, Any], data: Path) -> None:
    trials = pd.read_csv(data / "metadat" / "bcg_effects.csv")
    case = metafor["bcg_logRR_REML_ablat"]
    write("bcg_latitude", {
        "what": "13 BCG trials, log risk ratios regressed on absolute latitude", "made_by": "metafor 3.8 (R), REML",
        "cells": [
            {"segment": label, "y": y, "se": se, "latitude": float(latitude)}
            for label, y, se, latitude in zip(case["labels"], case["y"], case["se_y"], trials["ablat"], strict=True)
        ],
        "model": {"family": "estimate",
                  "effect": {"mean": normal(2), "between": half_normal(1), "covariates": ["latitude"],
                             "slope": normal(1)}},
        "intercept": case["beta"][0], "slope_per_degree": case["beta"][1], "slope_se": case["se"][1],
        "tau": case["tau"], "tau2_interval": case["tau2_ci"][1:], "blup": case["blup"], "blup_se": case["blup_se"],
    })  # fmt: skip


def rand_visits(lme4: dict[str, Any], data: Path) -> None:
    rows = pd.read_csv(data / "randhie" / "randhie.csv.gz")
    health = np.select(
        [rows["hlthg"] == 1, rows["hlthf"] == 1, rows["hlthp"] == 1], ["good", "fair", "poor"], "excellent"
    )
    age = pd.cut(rows["xage"], [-1, 18, 40, 200], right=False, labels=["child", "18-39", "40+"]).astype(str)
    rows = rows.assign(segment=rows["site"].astype(str) + "|" + health + "|" + age,
                       arm=np.where((rows["coins"] == 0) & (rows["idp"] == 0), "free", "shared costs"))  # fmt: skip
    counted = pd.crosstab([rows["segment"], rows["arm"]], rows["mdvis"])
    labels = sorted(rows["segment"].unique())
    arms = ["shared costs", "free"]
    units = [[_trimmed(counted.loc[(s, a)]) if (s, a) in counted.index else [] for a in arms] for s in labels]
    negative, poisson = lme4["randhie_mdvis_nb"], lme4["randhie_mdvis_poisson"]
    write_compact("rand_visits", {
        "what": "RAND Health Insurance Experiment: visits to a doctor per person-year, free care against shared costs",
        "made_by": "glmmTMB (R), maximum likelihood", "segment": labels, "arm": arms,
        "value": list(map(int, counted.columns)),
        "units": dict(zip(labels, units, strict=True)),
        "negative_binomial": _fitted(negative) | {"theta": negative["dispersion_theta"]},
        "poisson": _fitted(poisson),
        "slopes": {row["seg"]: row["slope"] for row in negative["slopes"]},
    })  # fmt: skip


def _trimmed(units: pd.Series) -> list[int]:
    """Units with each value, without the zeros at the end."""
    return np.trim_zeros(units.to_numpy(), "b").tolist()


def _fitted(case: dict[str, Any]) -> dict[str, Any]:
    return {"baseline_mean": case["fixed"]["est"][0], "effect_mean": case["fixed"]["est"][1],
            "effect_mean_se": case["fixed"]["se"][1],
            "baseline_between": case["sd_intercept"], "effect_between": case["sd_slope"]}  # fmt: skip


def hillstrom_crossed(lme4: dict[str, Any], data: Path) -> None:
    rows = pd.read_csv(data / "hillstrom" / "hillstrom.csv.gz")
    rows = rows[rows["segment"].isin(["Womens E-Mail", "No E-Mail"])]
    bought = np.select([(rows["mens"] == 1) & (rows["womens"] == 1), rows["mens"] == 1], ["both", "mens"], "womens")
    rows = rows.assign(bought=bought, arm=np.where(rows["segment"] == "No E-Mail", "none", "email"))
    dimensions = ["bought", "history_segment", "newbie", "zip_code", "channel"]
    counted = rows.groupby([*dimensions, "arm"], as_index=False)["visit"].agg(n="size", events="sum")
    case = lme4["hillstrom_womens_visit_crossed"]
    write_compact("hillstrom_crossed", {
        "what": "Hillstrom women's e-mail against none, visits, five crossed dimensions",
        "made_by": "lme4 1.1-31 (R), maximum likelihood", "formula": case["formula"], "dimensions": dimensions,
        "cells": {name: list(map(str, counted[name])) for name in [*dimensions, "arm"]}
        | {name: counted[name].tolist() for name in ("n", "events")},
        "baseline_mean": case["fixed"]["est"][0], "effect_mean": case["fixed"]["est"][1],
        "effect_mean_se": case["fixed"]["se"][1],
        "effect_sd": {c["grp"]: c["sdcor"] for c in case["varcomp"] if c["var1"] == "trt"},
        "baseline_sd": {c["grp"].removesuffix(".1"): c["sdcor"] for c in case["varcomp"] if c["var1"] != "trt"},
        "levels": {name: {row["level"]: row["trt_dev"] for row in found} for name, found in case["slopes"].items()},
    })  # fmt: skip


if __name__ == "__main__":
    folder, data = Path(sys.argv[1]), Path(sys.argv[2])
    brms = json.loads((folder / "brms.json").read_text())
    hillstrom(brms, data)
    blockers(brms, data)
    star(brms, data)
    schools(json.loads((folder / "estimates_exact.json").read_text()))
    bcg(json.loads((folder / "bayesmeta.json").read_text()))
    catheters(brms, data)
    bcg_latitude(json.loads((folder / "metafor.json").read_text()), data)
    lme4 = json.loads((folder / "lme4.json").read_text())
    rand_visits(lme4, data)
    hillstrom_crossed(lme4, data)
