"""What the documents say of the data that a family needs: cells made so are taken by the family's shipped models."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayes_hte import read_model
from bayes_hte.cells.from_plan import MAKER_BY_FORM
from bayes_hte.model.problem import build_problem
from bayes_hte.spec.family_rules import FAMILY_RULES
from bayes_hte.spec.files import list_shipped_models

MODEL_BY_FAMILY = {read_model(name).family: name for name in reversed(list_shipped_models())}
OUTCOME_BY_FAMILY = {"binomial": "bought", "poisson": "visits", "negative_binomial": "visits", "ordinal": "stars"}
ASK: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}
WAYS = [
    (family, form, columns)
    for family, rules in FAMILY_RULES.items()
    for form, alternatives in rules.columns_by_form.items()
    for columns in alternatives
]


def make_units() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    n = 600
    units = pd.DataFrame({"arm": rng.choice(["old", "new"], n), "device": rng.choice(["pc", "tv", "web"], n)})
    units["spent"] = np.where(rng.uniform(size=n) < 0.5, rng.lognormal(size=n), 0.0)
    units["bought"] = (units["spent"] > 0).astype(int)
    units["visits"] = rng.poisson(2.0, n)
    units["stars"] = rng.integers(1, 6, n)
    for column in ("hours", "views", "weight", "before"):
        units[column] = rng.uniform(1.0, 2.0, n)
    units["home"] = rng.integers(0, 200, n)
    return units


UNITS = make_units()


def make_summary() -> pd.DataFrame:
    """Every statistic that a table may hold of a cell."""
    positive = UNITS.assign(log=np.log(UNITS["spent"].where(UNITS["spent"] > 0)), square=UNITS["spent"] ** 2)
    cells = positive.groupby(["device", "arm"]).agg(
        n=("spent", "size"), events=("bought", "sum"), mean=("spent", "mean"), sd=("spent", "std"),
        total=("spent", "sum"), sum_squares=("square", "sum"), exposure=("hours", "sum"), positive=("bought", "sum"),
        log_mean=("log", "mean"), log_sd=("log", "std"),
    )  # fmt: skip
    cells["non_events"], cells["se"] = cells["n"] - cells["events"], cells["sd"] / np.sqrt(cells["n"])
    return cells.reset_index()


def make_other_table(form: str, tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    match form:
        case "levels":
            return UNITS.groupby(["device", "arm", "stars"]).size().rename("count").reset_index(name="count").rename(
                columns={"stars": "value"}
            ), ASK
        case "times":
            return UNITS.rename(columns={"hours": "time", "bought": "event"}), ASK
    table = pd.DataFrame({"device": ["pc", "tv", "web"], "estimate": [0.1, 0.2, 0.3], "se": [0.1, 0.1, 0.2]})
    # The limits lie round the estimate, and round the ratio on the log scale.
    table["lower"], table["upper"] = table["estimate"] / 2, 1.5 * table["estimate"]
    table["ratio"] = np.sqrt(table["lower"] * table["upper"])
    pd.DataFrame(np.diag(table["se"] ** 2), table["device"], table["device"]).to_csv(tmp_path / "covariance.csv")
    return table, {"segments": ["device"]}


@pytest.mark.parametrize(("family", "form", "columns"), WAYS)
def test_columns_that_the_documents_name_make_cells_of_the_family(family, form, columns, tmp_path):
    table, ask = (make_summary(), ASK) if form == "summary" else make_other_table(form, tmp_path)
    named = {role: role for role in columns.split(", ")}
    if "covariance" in named:
        named["covariance"] = str(tmp_path / "covariance.csv")
    cells = MAKER_BY_FORM[form](table, **ask, **named)
    assert build_problem(cells, read_model(MODEL_BY_FAMILY[family]))


ROWS = [
    (family, key_and_value)
    for family, rules in FAMILY_RULES.items()
    if rules.rows_keys is not None
    for key_and_value in (re.findall(r"`([^`]+)`", rules.rows_keys) or [""])
]
COLUMN_BY_KEY = {"exposure": "hours", "denominator": "views", "weights": "weight", "cluster": "home", "cuped": "before"}


@pytest.mark.parametrize(("family", "said"), ROWS)
def test_what_a_plan_of_rows_says_besides_makes_cells_of_the_family(family, said):
    key, _, value = said.partition(" = ")
    options = {key: value.strip('"') or COLUMN_BY_KEY[key]} if key else {}
    outcome = OUTCOME_BY_FAMILY.get(family, "spent")
    cells = MAKER_BY_FORM["rows"](
        UNITS if key != "cluster" else UNITS.assign(arm=np.where(UNITS["home"] % 2, "old", "new")),
        outcome=outcome,
        **ASK,
        **options,
    )
    assert build_problem(cells, read_model(MODEL_BY_FAMILY[family]))
