"""`simulate`: experiments of any outcome family with known truth, as cells or as rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np

from bayes_hte._support.validation import check_nonempty_text, check_seed, describe_value
from bayes_hte.cells.simulation.draw_data import DataRequest, draw_data
from bayes_hte.cells.simulation.outcomes.build import OutcomeKeywords, build_law
from bayes_hte.cells.simulation.outcomes.law import OutcomeLaw
from bayes_hte.cells.simulation.result import Simulation
from bayes_hte.cells.simulation.stated.design import Design, read_sizes
from bayes_hte.cells.simulation.stated.numbers import check_count, check_sd
from bayes_hte.cells.simulation.stated.past import PastDesign, TruthSource, read_past
from bayes_hte.cells.simulation.stated.segments import (
    ArmDesign,
    PopulationDesign,
    StatedValues,
    read_arms,
    read_segments,
)
from bayes_hte.cells.simulation.stated.unit_structure import read_structure
from bayes_hte.cells.simulation.stated.values import spread_over_arms, spread_over_segments
from bayes_hte.cells.simulation.truth import TruthDesign, draw_eta, find_baseline_eta, read_spreads
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import EFFECT_SCALES, EffectScale

DEFAULT_UNIT_COUNT = 20_000
MAX_CELL_COUNT = 200_000_000
"""Cells, or rows in memory: each has a few numbers, and these are some ten gigabytes."""


def simulate(  # noqa: PLR0913, one keyword per thing that an experiment has
    segments: Any = None,
    *,
    like: Any = None,
    truth: TruthSource = "mean",
    effect: Any = None,
    between: Any = 0.0,
    scale: EffectScale = "link",
    family: str | None = None,
    baseline: Any = None,
    baseline_between: float = 0.0,
    arms: Any = None,
    n: float | None = None,
    fixed_sizes: bool = False,
    days: Any = None,
    cluster_size: int | None = None,
    icc: float = 0.0,
    pre_correlation: float | None = None,
    experiments: int | None = None,
    rows: bool = False,
    connection: Any = None,
    outcome: str | None = None,
    seed: int = 1,
    **outcome_options: Unpack[OutcomeKeywords],
) -> Simulation:
    """Simulate one or many experiments whose truth is known.

    Parameters
    ----------
    segments : mapping, int or pandas.DataFrame, optional
        The population, where `like` does not give it: the share of each level by dimension, as
        ``{"device": {"mobile": 0.6, "desktop": 0.4}}``, or a list of levels that are equally frequent; dimensions that
        are given so are independent of each other. A number makes so many equal segments. A table has one row per
        segment: the dimensions, and as far as it has these columns ``share``, ``baseline`` and ``effect``.
    like : xarray.Dataset, Fit or path, optional
        The past that the experiment is like, in place of `segments`: a cell table, such as `hte.cells.from_rows` makes
        of rows, or a plan whose data exist (its first question, where it asks several), gives dimensions, shares,
        baselines, arms, their planned shares, n, and the spread of units; a fit gives effects besides. What is stated
        beside it replaces what it says.
    truth : str
        Which baselines and effects of a fit are true: its posterior ``mean``, or in every experiment a ``draw`` of
        its posterior.
    effect : float, mapping or pandas.DataFrame, optional
        What the arms do, on `scale`: one number for all, a number by segment (its key is the label, or the tuple of
        the levels), by level of one or several dimensions (``{"device": {"mobile": 0.1, …}, "plan": {…}}``, which
        add up), or a table with the dimensions and ``effect``. Any of these by arm, as ``{"new": 0.1, "bold": 0.2}``.
        By default 0, the column of `segments`, or that of the fit.
    between : float or mapping
        SD of the segments' effects around `effect`, on `scale`: drawn anew in every experiment, for each arm. By arm;
        or by dimension, for the SD of its levels, with ``"segment"`` for that of what the levels leave.
    scale : str
        Scale of `effect` and `between`: ``link`` (log-odds, log-rate, or the outcome itself), ``absolute``
        (difference of means) or ``relative`` (0.08 is 8 % of the control's mean; of survival, of its hazard). Effects
        of a fit are on the link scale, and `between` beside them too.
    family : str, optional
        The outcome, as in a model file: ``binomial`` (by default), ``normal``, ``mean``, ``estimate``, ``poisson``,
        ``negative_binomial``, ``two_part``, ``ordinal`` or ``piecewise_exponential``. By default that of `like`.
    baseline : float, mapping or pandas.DataFrame, optional
        Mean outcome of the control, in the forms of `effect`: a probability (0.1 by default), a mean (0), a rate per
        unit of exposure, a mean count, the mean of an outcome in two parts with its zeros (1), the mean answer, or the
        risk of the event by the horizon (0.2). By default also the column of `segments`, or what `like` says.
    baseline_between : float
        SD of the control's mean between segments, on the link scale, around `baseline`.
    arms : sequence or mapping, optional
        The arms, the control first: their names, or the share of the units that each gets. By default control and
        treatment, or those of `like`.
    n : int, optional
        Units of one experiment, in all segments and arms; 20,000 by default, or as many as `like` has.
    fixed_sizes : bool
        Give every cell its expected number of units, in place of a random one.
    days : int or sequence of float, optional
        Days on which units arrive: their number, or the share of the units on each.
    cluster_size : int, optional
        Units come in clusters of this size, which are assigned as a whole, as villages are; families binomial, normal
        and mean. Cells are then means of clusters, for models of family mean.
    icc : float
        Correlation of the outcomes of two units of a cluster.
    pre_correlation : float, optional
        Correlation, within a cell, of the outcome with a covariate ``before`` that was measured before treatment. Of
        families binomial, normal and mean, cells are then means adjusted for it (CUPED), for models of family mean.
    experiments : int, optional
        Simulate so many experiments at once: cells get the dim experiment. No rows are drawn for them.
    rows : bool
        Draw rows of units; cells are then the reduction of these.
    connection : duckdb.DuckDBPyConnection, optional
        Give rows as a relation of this database in place of drawing them: a hundred million, computed where they are
        asked for. Cells are left to `hte.cells.from_rows`.
    outcome : str, optional
        Name of the outcome, and of its column; ``outcome`` by default, or that of `like`.
    seed : int
        The only source of randomness. With the same seed the truth is the same for cells and for rows.
    **outcome_options
        What else the units of a family have. Numbers may be stated by segment, level or arm, as `effect`.

        =========================  ===========================================================================
        ``normal``, ``mean``       ``sd``: SD over units within a cell (1)
        ``estimate``               ``se``: standard error (0.1)
        ``poisson``                ``exposure`` of each unit (1)
        ``negative_binomial``      ``alpha``: a count with mean m has the variance m + m² / alpha (1)
        ``two_part``               ``chance`` of an outcome above 0 in the control (0.1); ``log_sd``: SD of the
                                   logarithm of these (1); ``chance_part``: the part of the effect on the log of
                                   the mean that acts on the chance, the rest on the amounts (0.5)
        ``ordinal``                ``answers``: share of each level, from 1 up, in the control (five equal ones)
        ``piecewise_exponential``  ``horizon`` (1); ``follow_up``: when units without the event are censored (the
                                   horizon); ``breaks`` and ``relative_hazards`` of the intervals between them
        =========================  ===========================================================================

    Returns
    -------
    Simulation
        ``cells``, ``rows``, ``daily``, and the truth: ``truth`` by segment and ``ate``.

    Raises
    ------
    ArgumentError
        If shares do not add up to 1, there is no segment, unit, day or second arm, a name is not known, a baseline is
        impossible for the outcome, an effect leads beyond what it can be, or what is asked does not go together.
    PlanError, DataError, ModelError
        If `like` is a plan, and it or its data are wrong.

    Notes
    -----
    Cells are drawn from the sampling distributions of their sufficient statistics, without any unit: thousands of
    experiments take no longer than the numbers that they consist of. Sizes of cells are multinomial, as when units are
    assigned one by one. Of outcomes in two parts and of times, cells with more than 1,000 positive outcomes or events
    take the normal limit of the sums that have no distribution of their own.

    Rows in DuckDB are hashes of the unit's number: the same rows for a seed and a version of DuckDB, whatever the
    number of threads, but not those of ``rows=True``.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> simulation = hte.simulate(
    ...     {"device": {"mobile": 0.5, "desktop": 0.4, "tablet": 0.1}},
    ...     effect={"mobile": 0.08, "desktop": 0.0, "tablet": -0.04},
    ...     scale="relative",
    ...     baseline=0.1,
    ...     arms=["old", "new"],
    ...     n=60_000,
    ... )
    >>> simulation.truth[["device", "baseline", "mean", "relative"]].round(4).values.tolist()
    [['mobile', 0.1, 0.108, 0.08], ['desktop', 0.1, 0.1, 0.0], ['tablet', 0.1, 0.096, -0.04]]
    >>> simulation.ate["relative"].round(4).item(), int(simulation.cells["n"].sum())
    (0.036, 60000)

    Two thousand experiments at once, whose effects differ by 0.1 log-odds between segments:

    >>> many = hte.simulate(8, effect=0.05, between=0.1, n=40_000, experiments=2000)
    >>> dict(many.cells.sizes)
    {'experiment': 2000, 'segment': 8, 'arm': 2}
    """
    if (segments is None) == (like is None):
        raise ArgumentError(
            f"{'both segments and like are' if like is not None else 'neither segments nor like is'} stated; state the "
            "population by one of them"
        )
    if scale not in EFFECT_SCALES:
        raise ArgumentError(f"scale is {describe_value(scale)}; it must be one of {', '.join(EFFECT_SCALES)}")
    # What is stated comes before what the past says, and that before the defaults.
    past = None if like is None else read_past(like, family, truth)
    population, stated_columns = read_segments(segments) if past is None else (past.segments, {})
    arm_design = past.arms if past is not None and arms is None else read_arms(arms or ("control", "treatment"))
    outcome_name = outcome or ("outcome" if past is None else past.outcome_name)
    check_nonempty_text(outcome=outcome_name)
    law = build_law(
        family or ("binomial" if past is None else past.family),
        outcome_name,
        (population, arm_design),
        {**(past.options if past is not None else {}), **outcome_options},
    )
    stated_truth = _StatedTruth(effect, between, scale, baseline, check_sd(baseline_between, "baseline_between"))
    truth_design = _design_truth(stated_truth, law, (population, arm_design), stated_columns, past)
    unit_count = n if n is not None else (DEFAULT_UNIT_COUNT if past is None else past.unit_count)
    design = Design(
        population,
        arm_design,
        law,
        read_sizes(unit_count, days, is_fixed=fixed_sizes),
        read_structure(cluster_size, icc, pre_correlation),
    )
    experiment_count = 1 if experiments is None else check_count(experiments, "experiments", "experiments")
    _check_size(design, experiment_count, has_rows_in_memory=bool(rows) and connection is None)
    # Streams of their own, so that the truth stays the same whatever is drawn of it.
    truth_rng, data_rng = np.random.default_rng(check_seed(seed)).spawn(2)
    eta = draw_eta(truth_design, law, (population, arm_design), truth_rng, experiment_count)
    request = DataRequest(rows or connection is not None, connection, experiments is not None, seed)
    return draw_data(design, eta, request, data_rng)


def _check_size(design: Design, experiment_count: int, *, has_rows_in_memory: bool) -> None:
    """Raise ArgumentError where the data would not fit into memory, before it is asked for."""
    cell_count = experiment_count * len(design.segments.shares) * len(design.arms.names) * len(design.sizes.day_shares)
    if cell_count > MAX_CELL_COUNT:
        raise ArgumentError(
            f"the simulation has {cell_count:,} cells (experiments × segments × arms × days), and {MAX_CELL_COUNT:,} "
            "can be held; simulate a part at a time, with a seed of its own"
        )
    if has_rows_in_memory and design.sizes.unit_count > MAX_CELL_COUNT:
        raise ArgumentError(
            f"n is {design.sizes.unit_count:,}, and {MAX_CELL_COUNT:,} rows can be held; give a connection, where the "
            "database computes them, or leave rows out"
        )


@dataclass(frozen=True, slots=True)
class _StatedTruth:
    """What a caller says of the truth."""

    effect: Any
    between: Any
    scale: EffectScale
    baseline: Any
    baseline_between: float


def _design_truth(
    stated: _StatedTruth,
    law: OutcomeLaw,
    names: tuple[PopulationDesign, ArmDesign],
    stated_columns: Mapping[str, StatedValues],
    past: PastDesign | None,
) -> TruthDesign:
    """Put together what is true of baselines and effects: what is stated, else a column of segments, else the past."""
    population, arms = names
    fit_eta = None if past is None else past.eta_draws
    if fit_eta is not None and fit_eta.shape[2] != len(arms.names):
        raise ArgumentError(f"the fit has {fit_eta.shape[2]} arms, not {len(arms.names)}; leave arms out, or like")
    # Baseline and effect of one draw belong together: they are correlated in the posterior.
    if stated.baseline is None and fit_eta is not None:
        baseline_eta = fit_eta[..., 0]
    else:
        stated_baseline = stated.baseline
        if stated_baseline is None:
            past_baseline = law.default_baseline if past is None else past.baseline
            stated_baseline = stated_columns.get("baseline", past_baseline)
        baseline_mean = (
            stated_baseline
            if isinstance(stated_baseline, np.ndarray) and stated_baseline.shape == population.shares.shape
            else spread_over_segments(stated_baseline, population, "baseline")
        )
        baseline_eta = find_baseline_eta(baseline_mean, law, population)[None]
    effect, scale = stated.effect, stated.scale
    # Effects of a fit are differences of its linear predictors, so they are on the link scale whatever was asked.
    if effect is None and fit_eta is not None:
        effect_draws, scale = fit_eta[..., 1:] - fit_eta[..., :1], "link"
    elif effect is None and "effect" in stated_columns:
        effect_draws = np.repeat(stated_columns["effect"][None, :, None], len(arms.treated), axis=2)
    else:
        effect_draws = spread_over_arms(0.0 if effect is None else effect, population, arms.treated, "effect")[None]
    spreads = read_spreads(stated.between, population, arms)
    return TruthDesign(baseline_eta, stated.baseline_between, effect_draws, spreads, scale)
