"""Write rows as a DuckDB relation: a hundred million units, drawn by SQL where they are needed and never kept.

Random numbers are hashes of the unit's number, so the same rows come out whatever the number of threads:

    u = hash(unit + offset) / 2^64        offset: 62 random bits for each stream, which follow from the seed

A unit falls into a cell, and a count or an answer on a value, by Walker's alias method: a slot is drawn uniformly, and
within it one of two values. Normal numbers are by Box and Muller.

References
----------
Walker 1977, An efficient method for generating discrete random variables with general distributions, ACM TOMS 3:253.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from bayes_hte._support.validation import describe_type
from bayes_hte.cells.simulation.drawing.cells import DAY
from bayes_hte.cells.simulation.drawing.rows import label_units
from bayes_hte.cells.simulation.outcomes.binary import BinaryLaw
from bayes_hte.cells.simulation.outcomes.counts import EXPOSURE_COLUMN, PoissonLaw
from bayes_hte.cells.simulation.outcomes.gaussian import GaussianLaw
from bayes_hte.cells.simulation.outcomes.histograms import (
    NegativeBinomialLaw,
    OrdinalLaw,
    compute_count_probabilities,
)
from bayes_hte.cells.simulation.outcomes.law import FloatGrid, LawParameters, OutcomeLaw
from bayes_hte.cells.simulation.outcomes.two_part import TwoPartLaw
from bayes_hte.cells.simulation.stated.design import Design
from bayes_hte.cells.simulation.stated.unit_structure import COVARIATE_COLUMN
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import ARM

STREAM_COUNT = 8
"""Random numbers that a unit may need: for its cell, its outcome, its covariate."""
OFFSET_LIMIT = 2**62
"""Offsets below this plus the number of a unit stay below 2^64."""


def build_relation(connection: Any, eta: FloatGrid, design: Design, rng: np.random.Generator) -> Any:
    """Build the relation of one experiment's rows.

    Parameters
    ----------
    connection : duckdb.DuckDBPyConnection
        The rows exist as long as it is open.
    eta : array
        Linear predictor, (segment, arm).
    design : Design
    rng : numpy.random.Generator
        Gives the offsets of the streams.

    Returns
    -------
    duckdb.DuckDBPyRelation
        The columns of `draw_rows`; nothing is computed before it is asked for.

    Raises
    ------
    ArgumentError
        If this is no DuckDB connection, sizes are fixed, units come in clusters, or times are simulated.
    """
    _check_request(connection, design)
    uniforms = [_write_uniform(offset) for offset in rng.integers(OFFSET_LIMIT, size=STREAM_COUNT).tolist()]
    cells, slots = _tabulate_cells(eta, design)
    # Units by number, the slot of the cell's alias table, and the cell that it or its alias names.
    units = (
        connection.table_function("range", [design.sizes.unit_count])
        .project("range AS unit_number")
        .project(
            f"unit_number, CAST(floor({uniforms[0]} * {len(slots)}) AS INTEGER) AS cell_slot, {uniforms[1]} AS coin"
        )
    )
    units = units.join(connection.from_df(slots), "cell_slot").project(
        "unit_number, CASE WHEN coin < cell_cut THEN cell_slot ELSE cell_alias END AS cell_number"
    )
    units = units.join(connection.from_df(cells), "cell_number")
    outcome_sql = _write_outcome(design.law, uniforms)
    if "value_slot" in outcome_sql:
        values = _tabulate_values(design.law, list_cell_parameters(eta, design))
        units = units.project(f"*, CAST(floor({uniforms[2]} * value_count) AS INTEGER) AS value_slot")
        units = units.join(connection.from_df(values), "cell_number, value_slot")
    label_columns = [*design.segments.dims, ARM, *([DAY] if len(design.sizes.day_shares) > 1 else [])]
    labels = ", ".join(map(quote_identifier, label_columns))
    outcome_name = quote_identifier(str(design.law.reader_options["outcome"]))
    exposure = f", p_exposure AS {EXPOSURE_COLUMN}" if isinstance(design.law, PoissonLaw) else ""
    drawn = units.project(f"*, {outcome_sql['outcome']} AS drawn_outcome")
    return drawn.project(f"{labels}, drawn_outcome AS {outcome_name}{exposure}{_write_covariate(design, uniforms)}")


def _check_request(connection: Any, design: Design) -> None:
    if type(connection).__name__ != "DuckDBPyConnection":
        raise ArgumentError(f"connection is {describe_type(connection)}; give a DuckDB connection, or rows=True")
    if design.sizes.is_fixed:
        raise ArgumentError("rows in a database are assigned one by one; leave out fixed_sizes, or draw rows=True")
    if design.structure.cluster_size is not None:
        raise ArgumentError("clusters are drawn in memory only; leave out connection, and draw rows=True")
    if not isinstance(design.law, BinaryLaw | GaussianLaw | PoissonLaw | NegativeBinomialLaw | OrdinalLaw | TwoPartLaw):
        raise ArgumentError("times and published estimates are drawn in memory only; leave out connection")


def quote_identifier(name: str) -> str:
    """Quote the name of a column for SQL."""
    return '"' + name.replace('"', '""') + '"'


def _write_uniform(offset: int) -> str:
    # The upper 53 bits of the hash, and half a step: between 0 and 1 and never equal to either.
    return f"((hash(unit_number::UBIGINT + {offset}::UBIGINT) >> 11)::DOUBLE + 0.5) * {2.0**-53!r}"


def _write_normal(first_uniform: str, second_uniform: str) -> str:
    return f"sqrt(-2 * ln({first_uniform})) * cos({2 * np.pi!r} * {second_uniform})"


def list_cell_parameters(eta: FloatGrid, design: Design) -> LawParameters:
    """Find the parameters of every cell in the order of the cells' numbers, (cell, …): day, segment, arm."""
    day_count = len(design.sizes.day_shares)
    return {
        name: np.repeat(values[None], day_count, axis=0).reshape(-1, *values.shape[2:])
        for name, values in design.law.find_parameters(eta).items()
    }


def _tabulate_cells(eta: FloatGrid, design: Design) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tabulate labels and parameters of every cell, and the alias table of their shares."""
    sizes = design.sizes
    shares = np.einsum("d,s,a->dsa", sizes.day_shares, design.segments.shares, design.arms.shares)
    day_index, segment_index, arm_index = (index.ravel() for index in np.indices(shares.shape))
    parameters = {f"p_{name}": values for name, values in list_cell_parameters(eta, design).items() if values.ndim == 1}
    unit_mean, unit_sd = design.law.find_mean(eta), design.law.find_unit_sd(design.law.find_parameters(eta))
    cells = pd.DataFrame(
        {
            "cell_number": np.arange(shares.size, dtype=np.int32),
            **label_units(segment_index, arm_index, design),
            DAY: day_index + 1,
            **parameters,
            "own_mean": unit_mean[segment_index, arm_index],
            "own_sd": unit_sd[segment_index, arm_index],
            "control_mean": unit_mean[segment_index, 0],
            "control_sd": unit_sd[segment_index, 0],
        }
    )
    if isinstance(design.law, NegativeBinomialLaw | OrdinalLaw | PoissonLaw):
        cells["value_count"] = _compute_probabilities(design.law, list_cell_parameters(eta, design)).shape[-1]
    cut, alias = build_alias_table(shares.ravel()[None] / shares.sum())
    slots = pd.DataFrame(
        {"cell_slot": np.arange(shares.size, dtype=np.int32), "cell_cut": cut[0], "cell_alias": alias[0]}
    )
    return cells, slots


def _write_outcome(law: OutcomeLaw, uniforms: list[str]) -> dict[str, str]:
    """Write the outcome of a unit in SQL, from the parameters of its cell (columns p_…)."""
    normal = _write_normal(uniforms[3], uniforms[4])
    if isinstance(law, BinaryLaw):
        return {"outcome": f"CAST({uniforms[2]} < p_mean AS INTEGER)"}
    if isinstance(law, GaussianLaw):
        return {"outcome": f"p_mean + p_sd * {normal}"}
    if isinstance(law, TwoPartLaw):
        amount = f"exp(p_log_mean + p_log_sd * {normal})"
        return {"outcome": f"CASE WHEN {uniforms[2]} < p_chance THEN {amount} ELSE 0.0 END"}
    return {
        "value_slot": "",
        "outcome": f"CASE WHEN {uniforms[3]} < value_cut THEN slot_value ELSE alias_value END",
    }


def _write_covariate(design: Design, uniforms: list[str]) -> str:
    """Write the covariate from before the experiment, as `draw_covariate` computes it."""
    correlation = design.structure.pre_correlation
    if correlation is None:
        return ""
    if isinstance(design.law, PoissonLaw):
        raise ArgumentError("a covariate is not drawn of events over an exposure; leave pre_correlation out")
    noise = f"{float(np.sqrt(1 - correlation**2))!r} * {_write_normal(uniforms[5], uniforms[6])}"
    standardised = "(drawn_outcome - own_mean) / own_sd"
    return f", control_mean + control_sd * ({correlation!r} * {standardised} + {noise}) AS {COVARIATE_COLUMN}"


def _compute_probabilities(law: OutcomeLaw, parameters: LawParameters) -> FloatGrid:
    """Compute the probability of every value in every cell, (cell, value)."""
    if isinstance(law, OrdinalLaw):
        return parameters["probabilities"]
    if isinstance(law, NegativeBinomialLaw):
        return compute_count_probabilities(parameters["mean"], parameters["alpha"])
    mean = parameters["mean"] * parameters["exposure"]
    counts = np.arange(int(mean.max() + 12 * np.sqrt(mean.max()) + 30))
    # P(k) = m^k e^−m / k!, beyond 12 SDs next to nothing
    log_probability = counts * np.log(mean)[:, None] - mean[:, None] - special.gammaln(counts + 1)
    probability = np.exp(log_probability)
    return probability / probability.sum(axis=-1, keepdims=True)


def _tabulate_values(law: OutcomeLaw, parameters: LawParameters) -> pd.DataFrame:
    """Tabulate the alias table of every cell's values."""
    probabilities = _compute_probabilities(law, parameters)
    cut, alias = build_alias_table(probabilities)
    cell_index, value_index = (index.ravel() for index in np.indices(probabilities.shape))
    first_value = 1 if isinstance(law, OrdinalLaw) else 0
    return pd.DataFrame(
        {
            "cell_number": cell_index.astype(np.int32),
            "value_slot": value_index.astype(np.int32),
            "value_cut": cut.ravel(),
            "slot_value": value_index + first_value,
            "alias_value": alias.ravel() + first_value,
        }
    )


def build_alias_table(probabilities: FloatGrid) -> tuple[FloatGrid, NDArray[np.int64]]:
    """Build Walker's alias tables of several distributions, (distribution, value).

    Returns
    -------
    cut, alias : array
        Of a slot: the chance of its own value; the value that it has else.
    """
    cut = probabilities * probabilities.shape[1]
    alias = np.tile(np.arange(probabilities.shape[1]), (len(probabilities), 1))
    for cut_row, alias_row in zip(cut, alias, strict=True):
        small, large = list(np.flatnonzero(cut_row < 1)), list(np.flatnonzero(cut_row >= 1))
        while small and large:
            # What a small slot lacks is filled up by a large one, which may become small by it.
            low, high = small.pop(), large[-1]
            alias_row[low] = high
            cut_row[high] -= 1 - cut_row[low]
            if cut_row[high] < 1:
                small.append(large.pop())
        # What is left differs from 1 by rounding only.
        cut_row[[*small, *large]] = 1.0
    return cut, alias
