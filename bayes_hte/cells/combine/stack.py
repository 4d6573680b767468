"""Stack cell tables of several tests: each test's cells stay apart, told by a dimension more."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from bayes_hte.cells.build import TableAttributes, build_cell_table
from bayes_hte.cells.combine.merge import merge
from bayes_hte.cells.combine.split import rebuild_cells
from bayes_hte.cells.reading.labels import CellKey
from bayes_hte.cells.summaries.segment_covariates import list_segment_levels
from bayes_hte.errors import DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, COVARIATE, SEGMENT

TEST_DIMENSION = "test"
"""Name of the dimension that tells tests apart, unless the data have one of that name."""


def name_test_dimension(dimensions: Sequence[str]) -> str:
    """Name the dimension of tests: ``test``, with as many underscores as no dimension of the data has."""
    name = TEST_DIMENSION
    while name in dimensions:
        name += "_"
    return name


def stack_tests(tables: Mapping[str, xr.Dataset], dimension: str) -> xr.Dataset:
    """Stack the tables of several tests into one, whose segments are those of every test.

    Parameters
    ----------
    tables : mapping
        Test -> its cell table; all of one kind, with the same outcome, control and dimensions.
    dimension : str
        Name of the dimension that is added, whose levels are the tests.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm). Nothing is pooled: every cell is as it was. Covariates of segments are left out.

    Raises
    ------
    DataError
        If the tables differ in outcome, control, dimensions or kind, or are estimates with a covariance.
    """
    kinds = {cell_table.identify_kind(table) for table in tables.values()}
    if kinds & {"means", "estimates"}:
        return _stack_normal_cells(tables, dimension)
    # The keys of two tests' cells are never the same, so that merging aligns and pools nothing.
    return merge(*(_add_dimension(table, dimension, test) for test, table in tables.items()))


def _add_dimension(table: xr.Dataset, dimension: str, test: str) -> xr.Dataset:
    """Add a dimension with one level to a table."""
    # Shares may have been planned anew for the second test; segments of both are never added up here.
    shareless_table = table.assign_attrs()
    shareless_table.attrs.pop("shares", None)
    dims = [*cell_table.list_dimensions(table), dimension]
    return rebuild_cells(shareless_table, _list_test_keys(table, test), dims)


def _list_test_keys(table: xr.Dataset, test: str) -> list[CellKey]:
    """List the keys of a table's cells with the test as their last level, the arm fastest."""
    return [((*levels, test), str(arm)) for levels in list_segment_levels(table) for arm in table[ARM].values]


def _stack_normal_cells(tables: Mapping[str, xr.Dataset], dimension: str) -> xr.Dataset:
    """Stack means or estimates with their standard errors, which no other cell changes."""
    first_table = next(iter(tables.values()))
    if any("covariance" in table for table in tables.values()):
        raise DataError(
            "estimates with a covariance between segments cannot be combined with another test: make the cells "
            "without it, and say that segments are taken as independent"
        )
    kept_names = [
        name
        for name in ("n", "mean", "estimate", "se", "covariate_part", "cell_size")
        if all(name in table for table in tables.values())
    ]
    variables = {
        name: np.concatenate([table[name].transpose(SEGMENT, ARM).values.ravel() for table in tables.values()])
        for name in kept_names
    }
    metadata = TableAttributes(
        outcome_name=first_table.attrs["outcome"],
        control_arm=first_table.attrs["control"],
        dims=[*cell_table.list_dimensions(first_table), dimension],
        source_text=" + ".join(str(table.attrs.get("source", "unknown")) for table in tables.values()),
        notes=[note for table in tables.values() for note in cell_table.list_notes(table)],
        validity_warnings=[each for table in tables.values() for each in cell_table.list_validity_warnings(table)],
        size_unit=first_table.attrs.get("size_unit"),
        cluster_column=first_table.attrs.get("cluster"),
        level_orders=cell_table.read_level_orders(first_table),
    )
    cell_keys = [key for test, table in tables.items() for key in _list_test_keys(table, test)]
    return build_cell_table(cell_keys, variables, metadata)


def pool_tests(tables: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Pool the tables of several tests into one cell for each segment and arm: how many units, and their outcome.

    Counts and sums add up. Means and estimates that are known by standard errors are averaged with weights that all
    arms of a segment share, the inverse of its variances: so a test with other shares of the arms moves no difference.

    Parameters
    ----------
    tables : mapping
        As `stack_tests` takes them.
    """
    kinds = {cell_table.identify_kind(table) for table in tables.values()}
    if not kinds & {"means", "estimates"}:
        # Of the same segment two tests may have measured other covariates.
        shareless_tables = [table.drop_vars(["covariates", COVARIATE], errors="ignore") for table in tables.values()]
        if len({str(table.attrs.get("shares")) for table in shareless_tables}) > 1:
            for table in shareless_tables:
                table.attrs.pop("shares", None)
        return merge(*shareless_tables)
    value_name = "estimate" if "estimates" in kinds else "mean"
    dimension = name_test_dimension(cell_table.list_dimensions(next(iter(tables.values()))))
    return _average_normal_cells(_stack_normal_cells(tables, dimension), value_name, dimension)


def _average_normal_cells(stacked_cells: xr.Dataset, value_name: str, dimension: str) -> xr.Dataset:
    """Average means or estimates of each segment and arm over tests."""
    dims = [name for name in cell_table.list_dimensions(stacked_cells) if name != dimension]
    is_known = cell_table.has_data(stacked_cells).transpose(SEGMENT, ARM)
    variance = stacked_cells["se"].transpose(SEGMENT, ARM).where(is_known) ** 2
    # weight of a test in a segment = 1 / mean variance of its arms, the same for all arms
    weights = (1 / variance.mean(ARM)).expand_dims({ARM: variance[ARM]}, 1).where(is_known, 0.0)
    # The test is the last level of a stacked segment.
    segment_keys = [levels[:-1] for levels in list_segment_levels(stacked_cells)]
    positions = {levels: position for position, levels in enumerate(dict.fromkeys(segment_keys))}
    members = np.zeros((len(positions), len(segment_keys)))
    members[[positions[levels] for levels in segment_keys], np.arange(len(segment_keys))] = 1.0
    totals = members @ weights.values
    with np.errstate(divide="ignore", invalid="ignore"):
        # mean = Σ w y / Σ w,   se² = Σ w² se² / (Σ w)²
        means = members @ (weights * stacked_cells[value_name].fillna(0.0)).transpose(SEGMENT, ARM).values / totals
        errors = np.sqrt(members @ (weights**2 * variance.fillna(0.0)).values) / totals
    variables = {value_name: means.ravel(), "se": errors.ravel()}
    for name in ("n", "cell_size"):
        if name in stacked_cells:
            summed = members @ stacked_cells[name].transpose(SEGMENT, ARM).values
            variables[name] = summed.ravel().astype(stacked_cells[name].dtype)
    if "covariate_part" in stacked_cells:
        parts = members @ (weights * stacked_cells["covariate_part"].fillna(0.0)).transpose(SEGMENT, ARM).values
        with np.errstate(divide="ignore", invalid="ignore"):
            variables["covariate_part"] = (parts / totals).ravel()
    metadata = TableAttributes(
        outcome_name=stacked_cells.attrs["outcome"],
        control_arm=stacked_cells.attrs["control"],
        dims=dims,
        source_text=stacked_cells.attrs["source"],
        notes=cell_table.list_notes(stacked_cells),
        validity_warnings=cell_table.list_validity_warnings(stacked_cells),
        size_unit=stacked_cells.attrs.get("size_unit"),
        cluster_column=stacked_cells.attrs.get("cluster"),
        level_orders={
            name: order for name, order in cell_table.read_level_orders(stacked_cells).items() if name in {*dims, ARM}
        },
    )
    cell_keys = [(levels, str(arm)) for levels in positions for arm in stacked_cells[ARM].values]
    return build_cell_table(cell_keys, variables, metadata)
