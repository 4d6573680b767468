"""`fit_table`: from a long table of cells to a plain table of results, by the engine that holds the table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bayes_hte.analysis.batches.cell_columns import choose_cell_columns
from bayes_hte.analysis.batches.fit_problems import TableRequest
from bayes_hte.analysis.batches.fit_rows import TableTask
from bayes_hte.analysis.batches.frame_engines import is_of_package, read_column_kinds, run_on_engine
from bayes_hte.analysis.fit import check_sampling_request
from bayes_hte.cells.reading.engines import restore_index_columns
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.spec import Model, read_model
from bayes_hte.spec.cell_table import EffectScale


def fit_table(
    frame: Any,
    model: Model | str | Path,
    *,
    keys: Sequence[str],
    segments: Sequence[str] | None = None,
    arm: str | None = None,
    control: str | None = None,
    statistics: Mapping[str, str] | None = None,
    scale: EffectScale = "absolute",
    ci_prob: float = 0.95,
    sampler: str = "exact",
    draws: int = 2000,
    seed: int = 1,
) -> Any:
    """Fit every problem in a long table of cells, on one machine or a cluster, into a plain table.

    Parameters
    ----------
    frame
        A pandas, Polars (also lazy), PyArrow, PySpark or Dask table, or a Ray dataset: one row per problem, segment
        and arm (and value, for histograms), with the statistics of the cell. A thousand experiments are one table.
    model : Model, str or Path
        What is believed of every problem; a name or path is read here, not on the workers.
    keys
        Columns that tell the problems apart, such as experiment, metric and dimension. Text, whole numbers or dates.
    segments
        Columns that define the segments: the dimensions. By default all columns of text that are nothing else.
    arm
        Column that names the arm; by default the one that is called arm, variant, treatment or the like.
    control
        The control of every problem, as text; by default the arm that is called control or placebo.
    statistics
        Columns of the statistics by role, as `cells.from_summary`, `cells.from_levels` or `cells.from_estimates` call
        them: ``{"n": "users", "events": "buyers"}``. By default the columns that are called so or alike.
    scale, ci_prob
        As in `Fit.table`.
    sampler
        As in `fit`; the exact engine alone by default, as it needs no PyMC on the workers. What it refuses is a row
        with the reason.
    draws
        Posterior draws of each problem.
    seed : int
        With the text of a problem's keys it makes the seed of the problem, the column ``seed``: results depend neither
        on the engine, nor on the order of rows, nor on partitions.

    Returns
    -------
    The same kind of table
        Spark, Dask, Ray and lazy Polars tables are lazy: nothing is fitted until they are asked. One row per problem,
        segment and arm (``row`` is "segment"), then one per problem and arm for the average ("average"); of a problem
        that cannot be fitted one row ("failure") whose ``error`` says why. Columns: the keys, row, the dimensions,
        arm, then as in `Fit.table` n_control, n_treated, raw, raw_se, effect, sd, ci_low, ci_high, p_positive,
        p_negative, pooling; and of the problem scale, ci_prob, reliable, problems (why not), engine, the numbers of
        the certificate (pareto_k, effective_points, quadrature_error, unexplored_mass, unmoved_share), seed, error,
        schema_version. What does not apply is missing. The order of rows is the engine's.

    Raises
    ------
    ArgumentError
        If a column is missing, used twice, or called as one of the result; if the columns of arms or statistics are in
        doubt; if scale, ci_prob, sampler, draws or seed make no sense.
    DataError
        If a dimension has a name that cell tables reserve.
    ModelError
        If there is no such model.

    Notes
    -----
    `hte.fit` on the cells of one problem, with its seed and as many draws, gives the same numbers to the last bit on
    machines of the same kind.

    Examples
    --------
    >>> import pandas as pd, bayes_hte as hte
    >>> counts = pd.DataFrame({
    ...     "experiment": ["checkout"] * 4 + ["banner"] * 4,
    ...     "segment": ["mobile", "mobile", "tablet", "tablet"] * 2,
    ...     "arm": ["control", "new"] * 4,
    ...     "users": [9000, 9100, 300, 280, 7000, 7100, 900, 950],
    ...     "buyers": [810, 955, 27, 40, 350, 352, 51, 60],
    ... })
    >>> results = hte.fit_table(counts, "conversion", keys=["experiment"])
    >>> results[["experiment", "row", "segment"]].head(3).values.tolist()
    [['checkout', 'segment', 'mobile'], ['checkout', 'segment', 'tablet'], ['checkout', 'average', nan]]
    >>> [f"{p:.1f}" for p in results.query("row == 'average'")["p_positive"]]
    ['1.0', '0.5']
    """
    draws, seed = check_sampling_request(sampler, draws, seed)
    if is_of_package(frame, "pandas"):  # where groupby leaves the keys
        frame = restore_index_columns(frame, [])
    request = TableRequest(
        model if isinstance(model, Model) else read_model(model), EffectQuestion(scale, ci_prob), sampler, draws
    )
    cell_columns = choose_cell_columns(
        read_column_kinds(frame), keys=keys, segments=segments, arm=arm, control=control, statistics=statistics
    )
    task = TableTask(cell_columns, request, seed)
    task.schema.check_names()
    return run_on_engine(frame, task)
