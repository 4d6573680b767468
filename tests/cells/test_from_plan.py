"""Plans of tables that hold no rows of units: paths are relative to the plan, and the cells are those of the call."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_estimates, from_wide
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.errors import PlanError
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
    cells = cells_of(tmp_path, ESTIMATES + 'covariance = "c.csv"')
    xr.testing.assert_identical(
        cells.drop_attrs(),
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
    cells = cells_of(tmp_path, WIDE)
    xr.testing.assert_identical(cells.drop_attrs(), expected.drop_attrs())
    assert cells.attrs["outcome"] == "tuberculosis"


def test_a_plan_may_leave_a_table_to_its_names(tmp_path):
    TRIALS.to_csv(tmp_path / "t.csv", index=False)
    cells = cells_of(tmp_path, 'form = "table"\npath = "t.csv"')
    assert cell_table.list_notes(cells)[0].startswith(
        "read as from_wide(table, segments=['trial'], arms={'treated': {'events'"
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
