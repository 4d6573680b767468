"""The forms of data in a plan say what the functions of `cells` take."""

import inspect
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pydantic import TypeAdapter, ValidationError

from bayes_hte import cells
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.cells.units.metrics import MetricKeywords
from bayes_hte.errors import ArgumentError
from bayes_hte.spec import cell_table, read_plan
from bayes_hte.spec.data_forms import PLACE_KEYS, DataTable, Estimates, Levels, Rows, Summary, Table, Times, Wide
from bayes_hte.spec.plan import Plan, Privacy

BASE: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}
OLD = {"n": "n"}
FORMS = [
    (Rows, cells.from_rows, BASE | {"outcome": "y"}),
    (Times, cells.from_times, BASE | {"time": "t", "event": "e"}),
    (Levels, cells.from_levels, BASE | {"value": "v", "count": "c"}),
    (Summary, cells.from_summary, BASE),
    (Wide, cells.from_wide, {"segments": ["device"], "control": "old", "arms": {"old": OLD, "new": {"n": "m"}}}),
    (Table, cells.from_table, {}),
    (Estimates, cells.from_estimates, {"segments": ["device"], "estimate": "y", "se": "se"}),
]

# Shares are of the cells, whatever made them, and where the data are is their first argument.
NO_KEYWORDS = {"form", "shares", *PLACE_KEYS} - {"decimal"}


def test_all_forms_are_here():
    assert {form for form, _, _ in FORMS} == set(get_args(get_args(DataTable)[0]))


@pytest.mark.parametrize(("form", "function", "least"), FORMS)
def test_a_form_has_the_keywords_of_its_function(form, function, least):
    parameters = inspect.signature(function).parameters
    taken = {name for name, parameter in parameters.items() if parameter.kind == parameter.KEYWORD_ONLY}
    if function is cells.from_rows:  # the short form of its metric
        taken |= set(MetricKeywords.__annotations__)
    asked = set(form.model_fields) - NO_KEYWORDS
    assert asked == taken - {"connection"}  # a plan names where it leads, and makes a DataSource of that
    inspect.signature(function).bind(None, **options(form(**least)))
    for name in set(least) - {"segments"}:
        assert name in MetricKeywords.__annotations__ or parameters[name].default in (inspect.Parameter.empty, None)


def options(form: Any) -> dict[str, Any]:
    return form.model_dump(exclude=NO_KEYWORDS, exclude_none=True)


@pytest.mark.parametrize("form", [Rows, Times, Levels, Summary, Wide, Table])
def test_every_form_with_units_takes_planned_shares(form):
    least = next(least for found, _, least in FORMS if found is form)
    assert form(**least, shares={"old": 1, "new": 3}).shares == {"old": 1.0, "new": 3.0}
    for wrong in (
        {"old": 0.5, "new": 0},
        {"old": 1},
        {"old": 0.5, "new": float("inf")},
        {"old": "x", "new": 1},
        [1, 1],
    ):
        with pytest.raises(ValidationError):
            form(**least, shares=wrong)


def test_plans_of_before_say_what_they_said():
    assert options(Rows(**BASE, outcome="y")) == BASE | {
        "outcome": "y",
        "segments": ("device",),
        "drop_missing": False,
        "fold_labels": False,
    }
    assert options(Summary(**BASE, n="n", events="e")) == BASE | {
        "segments": ("device",),
        "outcome": "outcome",
        "n": "n",
        "events": "e",
        "fold_labels": False,
    }
    assert options(Estimates(segments=["s"], estimate="y", se="se")) == {
        "segments": ("s",),
        "outcome": "effect",
        "estimate": "y",
        "se": "se",
        "fold_labels": False,
    }


@pytest.mark.parametrize(("form", "function", "least"), FORMS)
def test_a_form_is_found_by_its_name(form, function, least):
    name = form.model_fields["form"].default
    assert TypeAdapter(DataTable).validate_python(least | {"form": name}) == form(**least)


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        (Rows, {"outcome": "y", "metric": "median"}),
        (Rows, {"outcome": "y", "exposure": ""}),
        (Times, {"time": "t", "event": "e", "breaks": [0]}),
        (Times, {"time": "t", "event": "e", "horizon": -1}),
        (Times, {"time": "t"}),
        (Levels, {"value": "v"}),
        (Summary, {"covariates": []}),
        (Table, {"n": "n"}),
        (Estimates, {"control": "old"}),
    ],
)
def test_what_no_function_takes_is_refused(form, wrong):
    with pytest.raises(ValidationError):
        form(**BASE | wrong)


def test_a_plan_can_ask_for_all_that_rows_can_give(tmp_path):
    rng = np.random.default_rng(5)
    n = 900
    rows = pd.DataFrame(
        {
            "arm": rng.choice(["old", "new"], n),
            "device": rng.choice(["mobile", "tv", "watch"], n, p=[0.6, 0.35, 0.05]),
            "day": pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(0, 4, n), unit="D"),
            "before": rng.normal(size=n),
            "weight": rng.uniform(1, 2, n),
            "views": rng.integers(1, 9, n),
            "home": rng.integers(0, 300, n),
            "id": np.arange(n),
        }
    )
    rows["y"] = rows["before"] + rng.exponential(size=n)
    rows.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "plan.toml").write_text(
        """
        title = "All"
        model = "metric"
        [data]
        path = "rows.parquet"
        outcome = "y"
        arm = "arm"
        control = "old"
        segments = ["day", "device"]
        denominator = "views"
        weights = "weight"
        cuped = ["before"]
        cap = [-1.0, 3.0]
        bins = { day = "month" }
        rare = { device = 90 }
        unit = "id"
        balance = ["before"]
        shares = { old = 1, new = 1 }
        [privacy]
        min_units = 10
        small = "merge"
        """
    )
    plan = read_plan(tmp_path / "plan.toml")
    found = from_plan(plan, tmp_path)
    asked: dict[str, Any] = {
        "denominator": "views",
        "weights": "weight",
        "cuped": ["before"],
        "cap": (-1.0, 3.0),
        "bins": {"day": "month"},
        "rare": {"device": 90},
        "unit": "id",
        "balance": ["before"],
    }
    made = cells.from_rows(rows, outcome="y", arm="arm", control="old", segments=["day", "device"], **asked)
    expected = cells.protect(cells.with_shares(made, {"old": 1, "new": 1}), 10, "merge")
    xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs(), rtol=1e-10)
    assert cell_table.list_notes(found) == cell_table.list_notes(expected)
    assert found["segment"].values.tolist() == ["2026-03 · mobile", "2026-03 · tv", "2026-03 · (other)"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cap": "high"},
        {"cap": [1.0, 2.0, 3.0]},
        {"bins": {"day": "fortnight"}},
        {"bins": {"age": 1}},
        {"rare": 1},
        {"cuped": []},
        {"balance": ""},
    ],
)
def test_what_a_plan_asks_of_rows_is_checked(wrong):
    with pytest.raises(ValidationError):
        Rows(**BASE, outcome="y", **wrong)


ONE_COLUMN = {"segments": "device", "cuped": "before", "balance": "weight"}


@pytest.mark.parametrize("key", ONE_COLUMN)
def test_one_column_needs_no_list_in_python_or_in_a_plan(key, tmp_path):
    rng = np.random.default_rng(2)
    rows = pd.DataFrame({name: rng.normal(size=80) for name in ("y", "before", "weight")})
    rows["arm"], rows["device"] = ["old", "new"] * 40, ["tv", "tv", "web", "web"] * 20
    rows.to_parquet(tmp_path / "rows.parquet")
    as_list = cells.from_rows(rows, outcome="y", **BASE | {key: [ONE_COLUMN[key]]})
    xr.testing.assert_identical(cells.from_rows(rows, outcome="y", **BASE | {key: ONE_COLUMN[key]}), as_list)
    data = {**BASE, "outcome": "y", key: ONE_COLUMN[key], "path": "rows.parquet"}
    plan = Plan.model_validate({"title": "t", "model": "metric", "data": data})
    # Sums come in another order from a file: equal to rounding error.
    xr.testing.assert_allclose(from_plan(plan, tmp_path).drop_attrs(), as_list.drop_attrs(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("control", [0, 0.0, "0"])
def test_a_control_that_is_a_number_is_taken_as_the_data_write_it(control, tmp_path):
    rows = pd.DataFrame({"y": [1.0, 2, 3, 5], "arm": [0, 1, 0, 1], "device": "tv"})
    rows.to_parquet(tmp_path / "rows.parquet")
    data = {**BASE, "outcome": "y", "control": control, "path": "rows.parquet"}
    made = from_plan(Plan.model_validate({"title": "t", "model": "metric", "data": data}), tmp_path)
    assert made["arm"].values.tolist() == ["0", "1"]
    assert made.attrs["control"] == "0"


def test_times_are_cut_by_the_bins_of_a_plan_as_by_those_of_the_call(tmp_path):
    rng = np.random.default_rng(3)
    rows = pd.DataFrame(
        {"t": rng.exponential(9.0, 300), "e": rng.integers(0, 2, 300), "age": rng.integers(18, 80, 300)}
    )
    rows["arm"] = rng.choice(["old", "new"], 300)
    rows.to_parquet(tmp_path / "rows.parquet")
    data = {"form": "times", "time": "t", "event": "e", "arm": "arm", "control": "old", "path": "rows.parquet"}
    asked: dict[str, Any] = {"segments": "age", "bins": {"age": [30, 50]}}
    made = from_plan(Plan.model_validate({"title": "t", "model": "survival", "data": data | asked}), tmp_path)
    assert made["age"].values.tolist() == ["< 30", "30 to < 50", "50 or more"]
    levels = pd.cut(rows["age"], [0, 30, 50, 99], right=False, labels=made["age"].values)
    by_hand = rows.assign(age=levels.astype(str)).groupby(["age", "arm"])["e"].sum()
    failures = made["failures"].sum("interval").to_series()
    failures.index = failures.index.set_names(["age", "arm"])
    assert failures.sort_index().to_dict() == by_hand.to_dict()
    assert "age is cut at 30, 50" in cell_table.list_notes(made)
    with pytest.raises(ArgumentError, match="not among the segments"):
        cells.from_times(rows, time="t", event="e", **BASE | {"segments": ["age"], "bins": {"size": 3}})


def test_privacy_needs_a_number_of_units():
    for wrong in ({}, {"min_units": 1}, {"min_units": 10, "small": "hide"}):
        with pytest.raises(ValidationError):
            Privacy(**wrong)
