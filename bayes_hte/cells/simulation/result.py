"""`Simulation`: what `simulate` gives, data together with the truth that they were drawn from."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.cells.combine.split import split
from bayes_hte.cells.simulation.drawing.cells import DAY, EXPERIMENT
from bayes_hte.cells.units.from_rows import from_rows
from bayes_hte.cells.units.from_times import from_times


# Tables have no truth value, so two simulations are equal only if they are the same one.
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Simulation:
    """Data of one or many simulated experiments, and the truth behind them.

    Attributes
    ----------
    cells : xarray.Dataset or None
        The cell table, dims (segment, arm); with ``experiments`` dims (experiment, segment, arm), of which every
        slice is a cell table. Where rows were drawn it is the reduction of these; None where they stay in a database.
    truth : pandas.DataFrame
        One row per segment and treated arm: the dimensions, ``arm``, ``share`` of the population, ``baseline`` and
        ``mean`` (mean outcome of the control and of the arm), and the effect as ``absolute``, ``relative`` and
        ``link``; with ``experiments`` the column ``experiment`` before these.
    ate : pandas.DataFrame
        One row per treated arm: the effect averaged over the population, on the three scales.
    rows : pandas.DataFrame, duckdb.DuckDBPyRelation or None
        One row per unit; None where cells were drawn directly.
    columns : mapping
        What the columns of `rows` are, as keywords: ``hte.cells.from_rows(rows, **columns)``.
    daily : xarray.Dataset or None
        The cells of every day, dims (day, segment, arm) or (experiment, day, segment, arm), which merge into `cells`;
        None where all units arrive at once, or rows were drawn, which have a column ``day``.
    """

    cells: xr.Dataset | None
    truth: pd.DataFrame
    ate: pd.DataFrame
    rows: Any
    columns: Mapping[str, Any]
    daily: xr.Dataset | None = None

    def tables(self) -> Iterator[xr.Dataset]:
        """Iterate over the cell tables of the experiments, or over the only one, dims (segment, arm)."""
        if self.cells is None:
            return
        if EXPERIMENT not in self.cells.dims:
            yield self.cells
            return
        # Slices share the memory of the whole; one at a time, as thousands of datasets would take more than it.
        for experiment in range(self.cells.sizes[EXPERIMENT]):
            yield self.cells.isel({EXPERIMENT: experiment}, drop=True)

    def days(self) -> list[xr.Dataset]:
        """List the cell tables of the days in their order, which `merge` puts together; of rows, their reduction."""
        if self.rows is not None and DAY in self.rows.columns:
            by_day = {**self.columns, "segments": [DAY, *self.columns["segments"]]}
            read_rows = from_times if "time" in by_day else from_rows
            return list(split(read_rows(self.rows, **by_day), DAY).values())
        if self.daily is None:
            return [] if self.cells is None else [self.cells]
        return [self.daily.isel({DAY: day}, drop=True) for day in range(self.daily.sizes[DAY])]

    def __repr__(self) -> str:
        """Count experiments, segments and arms."""
        # The table has a row for every experiment, segment and treated arm.
        treated_count, is_many = self.ate["arm"].nunique(), EXPERIMENT in self.truth
        experiment_count = self.truth[EXPERIMENT].nunique() if is_many else 1
        segment_count = len(self.truth) // (experiment_count * treated_count)
        size_phrases = [
            *([write_count(experiment_count, "experiment", "experiments")] if is_many else []),
            write_count(segment_count, "segment", "segments"),
            write_count(treated_count, "treated arm", "treated arms"),
        ]
        return f"<Simulation of {'cells' if self.rows is None else 'rows'}: {', '.join(size_phrases)}>"

    def _repr_html_(self) -> str:
        """Write the truth as HTML for notebooks."""
        truth_table = self.truth.to_html(index=False, max_rows=60, escape=True, float_format=lambda x: f"{x:.4g}")
        return f"<p><b>{html.escape(repr(self))}</b></p>{truth_table}"
