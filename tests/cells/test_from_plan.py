"""Plans of tables that hold no rows of units: paths are relative to the plan, and the cells are those of the call."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr

from bayes_hte import cells
from bayes_hte.cells import from_estimates, from_wide
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.errors import DataError, PlanError
from bayes_hte.spec import Plan, cell_table, read_plan

SCHOOLS = pd.DataFrame({"school": ["A", "B"], "y": [28.0, 8.0]})


def plan_of(folder: Path, data: str) -> Plan:
    path = folder / "plan.toml"
    path.write_text(f'title = "t"\nmodel = "conversion"\n[data]\n{data}\n', encoding="utf-8")
    return read_plan(path)


def cells_of(folder: Path, data: str) -> xr.Dataset:
    return from_plan(plan_of(folder, data), folder)


ESTIMATES = 'form = "estimates"\npath = "y.csv"\nsegments = ["school"]\nestimate = "y"\n'


def test_a_plan_names_the_file_of_a_covariance(tmp_path):
    SCHOOLS.to_csv(tmp_path / "y.csv", index=False)
    labels = ["B", "A"]
    pd.DataFrame([[100.0, 30.0], [30.0, 225.0]], labels, labels).to_csv(tmp_path / "c.csv")
    made = cells_of(tmp_path, ESTIMATES + 'covariance = "c.csv"')
    xr.testing.assert_identical(
        made.drop_attrs(),
        from_estimates(
            SCHOOLS, segments=["school"], estimate="y", covariance=[[225.0, 30.0], [30.0, 100.0]]
        ).drop_attrs(),
    )


def test_estimates_without_uncertainty_are_refused_before_the_data_are_read(tmp_path):
    with pytest.raises(PlanError, match="estimates need their uncertainty: name the column of standard errors as se"):
        plan_of(tmp_path, ESTIMATES)


TRIALS = pd.DataFrame({"trial": ["A", "B"], "tpos": [4, 6], "tneg": [119, 300], "cpos": [11, 29], "cneg": [128, 274]})
ARMS: Any = {"bcg": {"events": "tpos", "non_events": "tneg"}, "none": {"events": "cpos", "non_events": "cneg"}}
WIDE = """
form = "wide"
path = "t.csv"
outcome = "tuberculosis"
segments = ["trial"]
control = "none"
arms.bcg = { events = "tpos", non_events = "tneg" }
arms.none = { events = "cpos", non_events = "cneg" }
"""


def test_a_plan_describes_a_wide_table(tmp_path):
    TRIALS.to_csv(tmp_path / "t.csv", index=False)
    expected = from_wide(TRIALS, segments=["trial"], arms=ARMS, control="none", outcome="tuberculosis")
    made = cells_of(tmp_path, WIDE)
    xr.testing.assert_identical(made.drop_attrs(), expected.drop_attrs())
    assert made.attrs["outcome"] == "tuberculosis"


def test_a_plan_may_leave_a_table_to_its_names(tmp_path):
    TRIALS.to_csv(tmp_path / "t.csv", index=False)
    made = cells_of(tmp_path, 'form = "table"\npath = "t.csv"')
    assert cell_table.list_notes(made)[0].startswith(
        'read as data.form = "wide", data.segments = ["trial"], data.arms = { treated = { events = '
    )
    said = 'segments = ["trial"]\ncontrol = "treated"\noutcome = "y"'
    named = cells_of(tmp_path, f'form = "table"\npath = "t.csv"\n{said}')
    assert (named.attrs["control"], named.attrs["outcome"]) == ("treated", "y")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("events =", "event =", "data.arms.bcg.event.*should be 'n', 'events', 'non_events'"),
        ('arms.none = { events = "cpos", non_events = "cneg" }', "", "data.arms: should have 2 entries or more, not 1"),
        ('"tpos"', "1", "data.arms.bcg.events: should be text in quotes, not 1"),
    ],
)
def test_a_mistake_in_a_wide_plan_is_named(tmp_path, before, after, message):
    with pytest.raises(PlanError, match=message):
        plan_of(tmp_path, WIDE.replace(before, after, 1))


ROWS = pd.DataFrame({"arm": ["old", "new"] * 3, "device": ["tv"] * 6, "y": [1.0, 2.0, None, 4.0, 5.0, 7.0]})
BASIC = 'path = "rows.csv"\noutcome = "y"\narm = "arm"\ncontrol = "old"\nsegments = "device"\n'


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        ("", DataError, r"set data\.drop_missing = true \(--drop-missing\)"),
        ("cap = 1\ncap_quantile = 0.9", PlanError, r"^\[data\]: cap and cap_quantile are both given"),
        ('metric = "histogram"\nexposure = "y"', PlanError, r'exposure makes rates, and data\.metric = "histogram"'),
        ('metric = "two_part"\ncluster = "y"', PlanError, r'use data\.metric = "mean"$'),
        ("bins = { age = 3 }", PlanError, r"bins are asked for 'age', which is not among the segments"),
    ],
)
def test_what_is_wrong_with_the_data_of_a_plan_is_said_in_its_words(tmp_path, said, error, words):
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(error, match=words):
        cells_of(tmp_path, BASIC + said)


def test_notes_of_a_plan_say_what_the_plan_may_say(tmp_path):
    rows = ROWS.fillna(3.0).assign(user=[1, 1, 2, 2, 3, 3])
    rows["arm"] = ["old", "old", "new", "new", "old", "old"]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    (said,) = [one for one in cells.check(cells_of(tmp_path, BASIC + 'unit = "user"')) if "more than one row" in one]
    assert said.endswith('or set data.cluster = "user"')
    called = cells.from_rows(rows, outcome="y", arm="arm", control="old", segments="device", unit="user")
    assert [one for one in cells.check(called) if one.endswith("or pass cluster='user'")]


def test_a_plan_of_rows_takes_covariates_from_a_file_of_segments(tmp_path):
    rows = ROWS.fillna(3.0).assign(device=["tv", "tv", "web", "web", "web", "tv"])
    rows.to_csv(tmp_path / "rows.csv", index=False)
    known = pd.DataFrame({"device": ["web", "tv", "phone"], "inches": [20.0, 50.0, 6.0]})
    known.to_csv(tmp_path / "devices.csv", index=False)
    made = cells_of(tmp_path, BASIC + '[covariates]\npath = "devices.csv"\ncolumns = "inches"')
    assert made["covariates"].sel(covariate="inches").to_series().to_dict() == {"tv": 50.0, "web": 20.0}
    known[:1].to_csv(tmp_path / "devices.csv", index=False)
    with pytest.raises(DataError, match="covariates are missing for 1 of 2 segments"):
        cells_of(tmp_path, BASIC + '[covariates]\npath = "devices.csv"\ncolumns = "inches"')
