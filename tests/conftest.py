"""What every test file can ask for, which tests are unit tests, and how tests are shared between processes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from example_cells import table
from hypothesis import HealthCheck, settings
from table_engines import skip_without, spark_session

# How long an example takes says how busy the machine is: no property test may fail by a clock.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

TESTS = Path(__file__).parent
ASKS_MORE = (
    "adversarial",
    "analysis/batches", "analysis/priors", "analysis/test_compare.py", "analysis/test_fit_many.py", "benchmarks",
    "criticism/test_leave", "criticism/test_tau_profile.py", "inference", "model/pymc", "report/test_browser.py",
    "test_cli.py", "test_docs.py", "test_examples.py", "test_imports.py",
)  # fmt: skip
"""Paths that begin so hold tests which draw from a posterior, compile a model, or start a process or a browser."""
TABLE_ENGINES = frozenset(
    ("pandas-arrow", "polars", "polars-lazy", "pyarrow", "duckdb", "csv", "parquet", "dask", "ibis-duckdb")
)
SERVERS = ("spark", "ibis-postgres")
"""Table engines that take seconds to start: one process starts them, for all of their tests."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the random problems of tests/adversarial be others, more, or fewer."""
    group = parser.getgroup("random problems")
    group.addoption("--adversarial-seed", type=int, default=1, help="seed of the random problems")
    group.addoption("--adversarial-problems", type=int, default=300, help="random problems per family")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark unit tests: by where they stand, and by the table engine that they are asked with."""
    for item in items:
        place = item.path.relative_to(TESTS).as_posix()
        parameters = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        engines = {value for value in parameters if isinstance(value, str)} & {*TABLE_ENGINES, *SERVERS}
        if not (place.startswith(ASKS_MORE) or engines or item.get_closest_marker("slow")):
            item.add_marker(pytest.mark.unit)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process whole files, because their fixtures are shared, and one process everything with a server."""
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class FilesAndServers(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, name = nodeid.partition("::")
            return next((server for server in SERVERS if server in name), file)

    return FilesAndServers(config, log)


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """One Spark session for all tests: it takes seconds to start."""
    skip_without("spark")
    with spark_session() as session:
        yield session


@pytest.fixture(scope="session")
def ray_data() -> Iterator[Any]:
    """Ray in this machine's local mode, on one core."""
    skip_without("ray")
    # `uv run pytest` would have Ray start every worker through `uv run` as well, in a copy of this folder: that hangs.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no report to its makers
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.default_hash_shuffle_parallelism = False, 2
    yield ray.data
    ray.shutdown()


@pytest.fixture
def counts() -> xr.Dataset:
    """Six segments of unequal size, three arms, one cell that was never seen."""
    n = np.array([[900, 850, 870], [400, 420, 380], [60, 70, 50], [30, 25, 20], [12, 9, 8], [500, 480, 0]])
    events = np.array([[90, 120, 140], [40, 60, 44], [5, 12, 4], [0, 4, 3], [1, 0, 2], [55, 70, 0]])
    return table({"n": n, "events": events}, arms=("control", "email", "sms"), control="control")


@pytest.fixture
def moments() -> xr.Dataset:
    """Five segments, two arms; one cell of a single unit, one without variation."""
    n = np.array([[200, 190], [50, 60], [12, 10], [8, 1], [4, 5]])
    mean = np.array([[10.0, 11.5], [12.0, 12.4], [9.0, 10.0], [11.0, 14.0], [8.0, 9.5]])
    sd = np.array([[3.0, 3.2], [2.8, 3.1], [3.3, 2.5], [2.0, 0.0], [0.0, 3.0]])
    return table({"n": n, "mean": mean, "ss": sd**2 * (n - 1)}, arms=("control", "email"), control="control")


@pytest.fixture
def means(moments: xr.Dataset) -> xr.Dataset:
    """Means with standard errors, number of units unknown."""
    se = np.array([[0.3, 0.25], [0.4, 0.5], [0.9, 1.0], [0.7, 2.5], [1.5, 1.4]])
    return table({"mean": moments["mean"].values, "se": se}, arms=("control", "email"), control="control")


@pytest.fixture
def schools() -> xr.Dataset:
    """Rubin's (1981) eight schools."""
    y = np.array([[28.0], [8.0], [-3.0], [7.0], [-1.0], [1.0], [18.0], [12.0]])
    se = np.array([[15.0], [10.0], [16.0], [11.0], [9.0], [11.0], [10.0], [18.0]])
    return table({"estimate": y, "se": se}, arms=("coaching",), control="", dimension="school")
