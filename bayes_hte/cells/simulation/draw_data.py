"""Draw what was asked for of a design whose truth is known, cells or rows, and put it beside the truth."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayes_hte.cells.combine.planned_shares import with_shares
from bayes_hte.cells.simulation.drawing.adjusted_cells import (
    draw_column_moments,
    label_columns,
    plan_recipe,
    pool_column_days,
    solve_cells,
)
from bayes_hte.cells.simulation.drawing.cells import (
    DAY,
    EXPERIMENT,
    CellNames,
    build_simulated_cells,
    draw_sizes,
    list_cell_keys,
    pool_days,
)
from bayes_hte.cells.simulation.drawing.relation import build_relation
from bayes_hte.cells.simulation.drawing.rows import draw_rows
from bayes_hte.cells.simulation.outcomes.estimates import EstimateLaw
from bayes_hte.cells.simulation.outcomes.law import CountGrid, DrawnValues, FloatGrid
from bayes_hte.cells.simulation.outcomes.survival import TIME_COLUMN
from bayes_hte.cells.simulation.result import Simulation
from bayes_hte.cells.simulation.stated.design import Design
from bayes_hte.cells.simulation.stated.unit_structure import CLUSTER_COLUMN, COVARIATE_COLUMN
from bayes_hte.cells.simulation.truth import compute_true_effects, tabulate_average, tabulate_truth
from bayes_hte.cells.units.from_rows import from_rows
from bayes_hte.cells.units.from_times import from_times
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import ARM


@dataclass(frozen=True, slots=True)
class DataRequest:
    """What is drawn of an experiment.

    Attributes
    ----------
    wants_rows : bool
        Rows in place of cells.
    connection : object
        The database in which rows are computed; None for rows in memory.
    has_many : bool
        Whether cells have the dim experiment, and tables of truth its column.
    seed : int
        Named in the cells' source.
    """

    wants_rows: bool
    connection: Any
    has_many: bool
    seed: int


def draw_data(design: Design, eta: FloatGrid, request: DataRequest, rng: np.random.Generator) -> Simulation:
    """Draw the data of experiments with the linear predictors eta, (experiment, segment, arm).

    Raises
    ------
    ArgumentError
        If rows are asked for of many experiments, or days of published estimates.
    """
    if request.wants_rows and request.has_many:
        raise ArgumentError("rows are drawn of one experiment only; leave out rows, or experiments")
    if isinstance(design.law, EstimateLaw) and len(design.sizes.day_shares) > 1:
        raise ArgumentError("published estimates do not arrive by day; leave out days")
    true_effects = compute_true_effects(eta, design.law)
    if isinstance(design.law, EstimateLaw):
        # Of published effects nobody knows the means that they are differences of.
        unknown = np.full(eta[..., 1:].shape, np.nan)
        true_effects |= {"baseline": unknown, "mean": unknown, "relative": unknown}
    truth = tabulate_truth(true_effects, design.segments, design.arms)
    average = tabulate_average(true_effects, eta, design.law, design.segments, design.arms)
    if not request.has_many:
        truth, average = truth.drop(columns=EXPERIMENT), average.drop(columns=EXPERIMENT)
    columns = _name_columns(design)
    if request.connection is not None:
        relation = build_relation(request.connection, eta[0], design, rng)
        return Simulation(None, truth, average, relation, columns)
    size_rng, data_rng = rng.spawn(2)
    counts = draw_sizes(design.sizes, design.segments, design.arms, size_rng, len(eta), design.structure.cluster_size)
    if request.wants_rows:
        unit_rows = draw_rows(counts[0], eta[0], design, data_rng)
        read_rows = from_times if TIME_COLUMN in columns.values() else from_rows
        cells = with_shares(read_rows(unit_rows, **columns), design.arms.name_shares())
        return Simulation(cells, truth, average, unit_rows, columns)
    cells, daily = _draw_tables(design, eta, counts, request, data_rng)
    return Simulation(cells, truth, average, None, columns, daily)


def _name_columns(design: Design) -> dict[str, Any]:
    """Name what the columns of rows are, in the keywords of the function that reads them."""
    structure, options = design.structure, dict(design.law.reader_options)
    if structure.cluster_size is not None:
        options["cluster"] = CLUSTER_COLUMN
    if structure.pre_correlation is not None:
        # Means can be adjusted for it; of other outcomes `check` compares it between the arms.
        options["balance" if "metric" in options else "cuped"] = COVARIATE_COLUMN
    return {**options, ARM: ARM, "control": design.arms.names[0], "segments": list(design.segments.dims)}


def _draw_tables(
    design: Design, eta: FloatGrid, counts: CountGrid, request: DataRequest, rng: np.random.Generator
) -> tuple[xr.Dataset, xr.Dataset | None]:
    """Draw the cells of every experiment, and of its days where there are several."""
    has_days = counts.shape[1] > 1
    # The days of an experiment share its truth: parameters get an axis of length 1 for them.
    parameters = {name: values[:, None] for name, values in design.law.find_parameters(eta).items()}
    draw_statistics = _draw_plain_statistics if design.structure.is_plain else _draw_adjusted_statistics
    pooled, by_day, names = draw_statistics(design, parameters, counts, request.seed, rng)
    tables = [build_simulated_cells(pooled, design.segments, design.arms, names, [EXPERIMENT])]
    if has_days:
        tables.append(build_simulated_cells(by_day, design.segments, design.arms, names, [EXPERIMENT, DAY]))
    if not request.has_many:
        tables = [table.isel({EXPERIMENT: 0}, drop=True) for table in tables]
    return tables[0], tables[1] if has_days else None


def _draw_plain_statistics(
    design: Design, parameters: dict[str, FloatGrid], counts: CountGrid, seed: int, rng: np.random.Generator
) -> tuple[DrawnValues, DrawnValues, CellNames]:
    law = design.law
    statistics = law.draw_statistics(counts, parameters, rng)
    names = CellNames(
        str(law.reader_options["outcome"]),
        f"simulated with seed {seed}",
        law.find_coords(statistics),
        law.reader_options.get("horizon"),
    )
    # The whole is pooled from its days, so that both always agree.
    return pool_days(statistics), statistics, names


def _draw_adjusted_statistics(
    design: Design, parameters: dict[str, FloatGrid], counts: CountGrid, seed: int, rng: np.random.Generator
) -> tuple[DrawnValues, DrawnValues, CellNames]:
    structure, recipe = design.structure, plan_recipe(design.structure)
    moments = draw_column_moments(design.law, counts, parameters, structure, rng)
    cell_keys = list_cell_keys(design.segments, design.arms.names)
    names = CellNames(
        str(design.law.reader_options["outcome"]),
        f"simulated with seed {seed}",
        label_columns(recipe),
        recipe_text=recipe.to_json(),
        cluster_column=structure.cluster_column,
    )
    by_day = solve_cells(moments, recipe, cell_keys, structure) if counts.shape[1] > 1 else {}
    return solve_cells(pool_column_days(moments), recipe, cell_keys, structure), by_day, names
