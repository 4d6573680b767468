"""A fit beside the numbers of a long run: moments of every scalar with the Monte-Carlo errors of both."""

from collections.abc import Mapping
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import xarray as xr

import bayes_hte as hte

SAMPLE = ("chain", "draw")


def side_by_side(found: xr.Dataset, quantities: Mapping[str, Any]) -> pd.DataFrame:
    """One row per scalar: mean, SD, P(> 0) where it is stored, and their standard errors, ours and the reference's.

    The labels of `found` stand in the reference's order.
    """
    shares = (found > 0).astype(float)
    ours = {
        "mean": found.mean(SAMPLE),
        "sd": found.std(SAMPLE, ddof=1),
        "mcse": az.mcse(found, method="mean"),
        "mcse_sd": az.mcse(found, method="sd"),
        "p_positive": shares.mean(SAMPLE),
        "p_mcse": az.mcse(shares, method="mean").fillna(0.0),
    }
    frames = []
    for name, expected in quantities.items():
        dims = expected["dims"]
        assert set(found[name].dims) == {*SAMPLE, *dims}
        labels = [list(map(str, found[name][dim].values)) for dim in dims]
        index = [f"{name}[{', '.join(place)}]" for place in pd.MultiIndex.from_product(labels)] if dims else [name]
        columns = {key: values[name].transpose(*dims).values.ravel() for key, values in ours.items()}
        theirs = {f"{key}_nuts": np.ravel(expected[key]) for key in (*ours, "ess") if key in expected}
        frames.append(pd.DataFrame(columns | theirs, index=index))
    return pd.concat(frames)


def index_table(fit: hte.Fit) -> pd.DataFrame:
    """The table on the link scale by segment and arm, whose labels it does not hold: segments are outermost in it."""
    labels = [list(map(str, fit.posterior["posterior"][dim].values)) for dim in ("segment", "arm")]
    return fit.table(scale="link", detail=True).set_index(pd.MultiIndex.from_product(labels, names=["segment", "arm"]))


def find_moved_means(compared: pd.DataFrame) -> pd.DataFrame:
    """Find what is further than four combined standard errors from the reference's mean."""
    allowed = 4 * np.hypot(compared["mcse"], compared["mcse_nuts"])
    return compared[~(abs(compared["mean"] - compared["mean_nuts"]) <= allowed)]


def find_moved_sds(compared: pd.DataFrame) -> pd.DataFrame:
    """Find SDs that differ by more than 3 %, or by four combined standard errors where that is more."""
    error = np.hypot(compared["mcse_sd"] / compared["sd"], compared["mcse_sd_nuts"] / compared["sd_nuts"])
    return compared[~(abs(np.log(compared["sd"] / compared["sd_nuts"])) <= np.maximum(0.03, 4 * error))]


def find_moved_signs(compared: pd.DataFrame) -> pd.DataFrame:
    """Find P(> 0) further than .01 and four combined standard errors from the reference's, where that is stored."""
    signs = compared.dropna(subset="p_positive_nuts")
    allowed = 0.01 + 4 * np.hypot(signs["p_mcse"], signs["p_mcse_nuts"])
    return signs[~(abs(signs["p_positive"] - signs["p_positive_nuts"]) <= allowed)]
