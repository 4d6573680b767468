"""Plans of tables that hold no rows of units: paths are relative to the plan, and the cells are those of the call."""

from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from bayes_hte.analysis import aggregate
from bayes_hte.cells import from_estimates
from bayes_hte.errors import PlanError
from bayes_hte.spec import Plan, read_plan

SCHOOLS = pd.DataFrame({"school": ["A", "B"], "y": [28.0, 8.0]})


def plan_of(folder: Path, data: str) -> Plan:
    path = folder / "plan.toml"
    path.write_text(f'title = "t"\nmodel = "conversion"\n[data]\n{data}\n', encoding="utf-8")
    return read_plan(path)


def cells_of(folder: Path, data: str) -> xr.Dataset:
    return aggregate(plan_of(folder, data), folder)


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
