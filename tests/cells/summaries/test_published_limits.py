"""from_estimates: ratios and estimates that are published with the limits of their intervals."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.cells import from_estimates
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

# BCG vaccine against tuberculosis, 13 trials (Colditz et al. 1994, JAMA 271:698): cases and others among vaccinated and
# controls, and the risk ratio with its 95 % interval as the forest plot of Viechtbauer 2010 (Journal of Statistical
# Software 36(3), figure 2) prints them, with two decimals.
BCG = [
    ("Aronson 1948", 4, 119, 11, 128, 0.41, 0.13, 1.26),
    ("Ferguson & Simes 1949", 6, 300, 29, 274, 0.20, 0.09, 0.49),
    ("Rosenthal et al 1960", 3, 228, 11, 209, 0.26, 0.07, 0.92),
    ("Hart & Sutherland 1977", 62, 13536, 248, 12619, 0.24, 0.18, 0.31),
    ("Frimodt-Moller et al 1973", 33, 5036, 47, 5761, 0.80, 0.52, 1.25),
    ("Stein & Aronson 1953", 180, 1361, 372, 1079, 0.46, 0.39, 0.54),
    ("Vandiviere et al 1973", 8, 2537, 10, 619, 0.20, 0.08, 0.50),
    ("TPT Madras 1980", 505, 87886, 499, 87892, 1.01, 0.89, 1.14),
    ("Coetzee & Berjak 1968", 29, 7470, 45, 7232, 0.63, 0.39, 1.00),
    ("Rosenthal et al 1961", 17, 1699, 65, 1600, 0.25, 0.15, 0.43),
    ("Comstock et al 1974", 186, 50448, 141, 27197, 0.71, 0.57, 0.89),
    ("Comstock & Webster 1969", 5, 2493, 3, 2338, 1.56, 0.37, 6.53),
    ("Comstock et al 1976", 27, 16886, 29, 17825, 0.98, 0.58, 1.66),
]
COLUMNS = ["trial", "tpos", "tneg", "cpos", "cneg", "rr", "low", "high"]
TRIALS = pd.DataFrame(BCG, columns=COLUMNS)
RATIO = {"segments": ["trial"], "ratio": "rr", "lower": "low", "upper": "high"}
Z95 = 1.959963984540054


def one_row(**columns: float) -> pd.DataFrame:
    return pd.DataFrame({"trial": ["A"], **{name: [value] for name, value in columns.items()}})


def by_trial(cells: xr.Dataset, name: str) -> np.ndarray:
    return cells[name].squeeze("arm").sel(segment=TRIALS["trial"].to_numpy()).to_numpy()


def test_published_risk_ratios_give_the_log_ratios_of_their_counts_up_to_the_printed_digits(engine):
    cells = from_estimates(engine(TRIALS.to_dict("list")), **RATIO)
    treated, control = TRIALS["tpos"] + TRIALS["tneg"], TRIALS["cpos"] + TRIALS["cneg"]
    log_ratio = np.log(TRIALS["tpos"] / treated) - np.log(TRIALS["cpos"] / control)
    # The large-sample variance of a log risk ratio, as metafor's escalc(measure="RR") has it.
    se = np.sqrt(1 / TRIALS["tpos"] - 1 / treated + 1 / TRIALS["cpos"] - 1 / control)
    # Half a unit of the second decimal, relative to the number: the most that printing can move its logarithm.
    rounding = {name: -np.log1p(-0.005 / TRIALS[name]) for name in ("rr", "low", "high")}
    assert (abs(by_trial(cells, "estimate") - log_ratio) <= rounding["rr"]).all()
    assert (abs(by_trial(cells, "se") - se) <= (rounding["low"] + rounding["high"]) / (2 * Z95)).all()
    assert cells["estimate"].sel(segment="Aronson 1948").item() == np.log(0.41)
    assert "logarithms of rr" in " ".join(cell_table.list_notes(cells))
    assert "95 % intervals: (log high - log low) / 3.92" in " ".join(cell_table.list_notes(cells))


def test_limits_of_another_level_and_of_plain_estimates_give_their_standard_errors():
    table = pd.DataFrame({"trial": ["A", "B"], "y": [1.0, -2.0], "lo": [0.0, -2.5], "hi": [2.0, -1.5]})
    options = {"segments": ["trial"], "estimate": "y", "lower": "lo", "upper": "hi"}
    np.testing.assert_allclose(from_estimates(table, **options)["se"].squeeze(), [1 / Z95, 0.5 / Z95], rtol=1e-12)
    narrow = from_estimates(table, level=0.9, **options)
    np.testing.assert_allclose(narrow["se"].squeeze(), [1 / 1.6448536269514722, 0.5 / 1.6448536269514722], rtol=1e-12)
    assert narrow["estimate"].squeeze().values.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_rounding_alone_is_never_taken_for_asymmetry(decimals):
    draw = np.random.default_rng(decimals)
    centre, se = draw.normal(0, 0.7, 500), draw.uniform(0.05, 0.6, 500)
    exact = np.exp([centre, centre - Z95 * se, centre + Z95 * se])
    printed = pd.DataFrame(dict(zip(("rr", "low", "high"), exact.round(decimals), strict=True)))
    printed["trial"] = [f"trial {i}" for i in range(500)]
    # What rounds to 0 or to equal limits says nothing, and is refused as such.
    cells = from_estimates(printed[(printed["low"] > 0) & (printed["low"] < printed["high"])], **RATIO)
    assert cells.sizes["segment"] > 400


REFUSED: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {
    "asymmetric": (
        one_row(rr=1.5, low=1.12, high=2.95), {},
        r"'rr' is not in the middle of its limits on the log scale in segment 'A', arm 'treated' \(1.5, 1.12 to 2.95\)",
    ),
    "a difference as ratio": (one_row(rr=5.0, low=1.0, high=9.0), {}, "symmetric as they are: name the column as esti"),
    "a ratio as estimate": (
        one_row(rr=0.5, low=0.25, high=1.0), {"ratio": None, "estimate": "rr"},
        "symmetric on the log scale: name the column as ratio",
    ),
    "0": (one_row(rr=1.0, low=0.0, high=3.0), {}, "a ratio and its limits must be greater than 0; wrong in seg"),
    "turned round": (one_row(rr=1.0, low=2.0, high=0.5), {}, "lower must be less than upper; wrong in segment 'A'"),
    "missing": (one_row(rr=1.0, low=0.5, high=np.nan), {}, "upper must be a finite number"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "changes", "message"), REFUSED.values(), ids=REFUSED)
def test_numbers_that_are_no_interval_are_named(table, changes, message):
    with pytest.raises(DataError, match=message):
        from_estimates(table, **(RATIO | changes))


def test_every_asymmetric_row_is_named_up_to_five():
    table = TRIALS.assign(high=TRIALS["high"] * 2)
    with pytest.raises(DataError, match=r"Aronson 1948.*Ferguson") as refusal:
        from_estimates(table, **RATIO)
    assert str(refusal.value).count("segment '") == 5
    # All others but Vandiviere: 0.2, 0.08 and 1.0 may have been printed with one digit, which allows as much.
    assert "and 7 other rows" in str(refusal.value)


CONTRADICTIONS = {
    "both": ({"estimate": "rr"}, "name one column of effects"),
    "neither": ({"ratio": None}, "name one column of effects"),
    "one limit": ({"upper": None}, "an interval has two limits"),
    "se too": ({"se": "tpos"}, "leave se and covariance out"),
    "se only": ({"lower": None, "upper": None, "se": "tpos"}, "a ratio needs its limits"),
    "nothing": ({"lower": None, "upper": None}, "estimates need their uncertainty"),
    "percent": ({"level": 95}, "level is 95; give the confidence level as a share, such as 0.95"),
}


@pytest.mark.parametrize(("changes", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_what_is_given_says_the_uncertainty_once(changes, message):
    with pytest.raises(ArgumentError, match=message):
        from_estimates(TRIALS, **(RATIO | changes))


def test_a_plan_names_ratios_and_their_limits(tmp_path):
    TRIALS.to_csv(tmp_path / "trials.csv", index=False)
    keys = {"form": "estimates", "path": "trials.csv", "segments": "trial", "ratio": "rr", "lower": "low"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    head = ['title = "BCG"', 'model = "published-estimates"', "[data]", *lines]
    (tmp_path / "plan.toml").write_text("\n".join([*head, 'upper = "high"']))
    cells = from_plan(hte.read_plan(tmp_path / "plan.toml"), tmp_path)
    xr.testing.assert_identical(cells.drop_attrs(), from_estimates(TRIALS, **RATIO).drop_attrs())
    (tmp_path / "plan.toml").write_text("\n".join([*head, 'estimate = "rr"', 'upper = "high"']))
    with pytest.raises(hte.PlanError, match="estimates are in one column: name it as estimate, or as ratio"):
        hte.read_plan(tmp_path / "plan.toml")
