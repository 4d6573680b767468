"""What is loaded: nothing that is not used, because importing it would take longer than the answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

ENGINES = {"pymc", "pytensor", "nutpie", "numba", "arviz"}
STATISTICS = {"arviz_base", "arviz_stats"}
PAGES = {"matplotlib", "jinja2", "markupsafe"}
READERS = {"duckdb", "narwhals", "polars"}
FILES = {"h5py", "h5netcdf", "netCDF4"}
TERMINALS = {"rich"}
DISTRIBUTIONS = {"scipy.stats", "scipy.optimize", "scipy.interpolate"}  # half a second together
RUN = """
import sys
from bayes_hte.cli import main
sys.argv = ["bayes-hte", "run", {plan!r}, "--out", {out!r}, "--json", *{options!r}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
HIDE = "import sys\nsys.modules['dask'] = None\n"  # xarray imports it where it is installed, and it SciPy and jinja2
SAY = "\nimport json, sys\nprint('\\n' + json.dumps(sorted(sys.modules)))"


def loaded(code: str) -> set[str]:
    """Packages and modules that a fresh Python has loaded after the code."""
    done = subprocess.run([sys.executable, "-c", HIDE + code + SAY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_models_and_cells_need_neither_an_engine_nor_a_page() -> None:
    code = f"""
import bayes_hte as hte
hte.read_model("conversion")
table = {str(ROOT / "examples" / "hillstrom" / "cells.csv")!r}
columns = dict(arm="arm", control="No e-mail", segments=["bought", "customer", "spent"], n="n", events="visits")
assert hte.cells.from_summary(table, **columns).sizes["segment"] == 10
"""
    assert not loaded(code) & (ENGINES | STATISTICS | PAGES | READERS | FILES | TERMINALS | {"scipy"})


@pytest.mark.parametrize(
    ("example", "options", "unused"),
    [
        ("hillstrom", ["--no-report"], ENGINES | STATISTICS | PAGES | READERS | TERMINALS),
        ("hillstrom", [], ENGINES | READERS | TERMINALS),
        # Published estimates have no arms to compare before: nothing asks for a distribution.
        ("eight_schools", ["--no-report"], ENGINES | STATISTICS | PAGES | READERS | TERMINALS | DISTRIBUTIONS),
    ],
    ids=["no report", "report", "estimates"],
)
def test_a_run_loads_only_what_it_uses(tmp_path: Path, example: str, options: list[str], unused: set[str]) -> None:
    plan = str(ROOT / "examples" / example / "plan.toml")
    found = loaded(RUN.format(plan=plan, out=str(tmp_path / "out"), options=options))
    assert {"numpy", "pandas", "xarray", "h5py"} <= found
    assert ("matplotlib" in found) is not bool(options)
    assert not found & unused
