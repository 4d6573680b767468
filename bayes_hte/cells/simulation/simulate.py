"""`simulate`: experiments of any outcome family with known truth, as cells or as rows."""

from typing import Any, Unpack

import numpy as np

from bayes_hte._support.validation import check_nonempty_text, check_seed, describe_value
from bayes_hte.cells.combine.planned_shares import with_shares
from bayes_hte.cells.simulation.drawing.cells import (
    DAY,
    EXPERIMENT,
    CellNames,
    build_simulated_cells,
    draw_sizes,
    pool_days,
)
from bayes_hte.cells.simulation.drawing.rows import draw_rows
from bayes_hte.cells.simulation.outcomes.build import OutcomeKeywords, build_law
from bayes_hte.cells.simulation.outcomes.law import CountGrid, FloatGrid
from bayes_hte.cells.simulation.result import Simulation
from bayes_hte.cells.simulation.stated.design import Design, check_count, check_sd, read_sizes
from bayes_hte.cells.simulation.stated.segments import read_arms, read_segments
from bayes_hte.cells.simulation.stated.values import spread_over_arms, spread_over_segments
from bayes_hte.cells.simulation.truth import (
    TruthDesign,
    compute_true_effects,
    draw_eta,
    find_baseline_eta,
    read_spreads,
    tabulate_average,
    tabulate_truth,
)
from bayes_hte.cells.units.from_rows import from_rows
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.cell_table import ARM, EFFECT_SCALES, EffectScale


def simulate(  # noqa: PLR0913, one keyword per thing that an experiment has
    segments: Any,
    *,
    effect: Any = None,
    between: Any = 0.0,
    scale: EffectScale = "link",
    family: str = "binomial",
    baseline: Any = None,
    baseline_between: float = 0.0,
    arms: Any = ("control", "treatment"),
    n: float = 20_000,
    fixed_sizes: bool = False,
    days: Any = None,
    experiments: int | None = None,
    rows: bool = False,
    outcome: str = "outcome",
    seed: int = 1,
    **outcome_options: Unpack[OutcomeKeywords],
) -> Simulation:
    """Simulate one or many experiments whose truth is known.

    Parameters
    ----------
    segments : mapping, int or pandas.DataFrame
        The population: the share of each level by dimension, as ``{"device": {"mobile": 0.6, "desktop": 0.4}}``, or
        a list of levels that are equally frequent; dimensions that are given so are independent of each other. A
        number makes so many equal segments. A table has one row per segment: the dimensions, and as far as it has
        these columns ``share``, ``baseline`` and ``effect``.
    effect : float, mapping or pandas.DataFrame, optional
        What the arms do, on `scale`: one number for all, a number by segment (its key is the label, or the tuple of
        the levels), by level of one or several dimensions (``{"device": {"mobile": 0.1, …}, "plan": {…}}``, which
        add up), or a table with the dimensions and ``effect``. Any of these by arm, as ``{"new": 0.1, "bold": 0.2}``.
        By default 0, or the column of `segments`.
    between : float or mapping
        SD of the segments' effects around `effect`, on `scale`: drawn anew in every experiment, for each arm. By arm;
        or by dimension, for the SD of its levels, with ``"segment"`` for that of what the levels leave.
    scale : str
        Scale of `effect` and `between`: ``link`` (log-odds, log-rate, or the outcome itself), ``absolute``
        (difference of means) or ``relative`` (0.08 is 8 % of the control's mean).
    family : str
        The outcome: ``binomial``, ``normal``, ``mean`` (of measurements) or ``poisson``.
    baseline : float, mapping or pandas.DataFrame, optional
        Mean outcome of the control, in the forms of `effect`: a probability, a mean, or a rate per unit of exposure.
        By default 0.1, 0 and 1, or the column of `segments`.
    baseline_between : float
        SD of the control's mean between segments, on the link scale, around `baseline`.
    arms : sequence or mapping
        The arms, the control first: their names, or the share of the units that each gets.
    n : int
        Units of one experiment, in all segments and arms.
    fixed_sizes : bool
        Give every cell its expected number of units, in place of a random one.
    days : int or sequence of float, optional
        Days on which units arrive: their number, or the share of the units on each.
    experiments : int, optional
        Simulate so many experiments at once: cells get the dim experiment. No rows are drawn for them.
    rows : bool
        Draw rows of units; cells are then the reduction of these.
    outcome : str
        Name of the outcome, and of its column.
    seed : int
        The only source of randomness. With the same seed the truth is the same for cells and for rows.
    **outcome_options
        ``sd``: SD over units, of families normal and mean (1 by default). ``exposure`` of each unit, of family
        poisson (1 by default). In the forms of `effect`.

    Returns
    -------
    Simulation
        ``cells``, ``rows``, ``daily``, and the truth: ``truth`` by segment and ``ate``.

    Raises
    ------
    ArgumentError
        If shares do not add up to 1, there is no segment, unit, day or second arm, a name is not known, a baseline is
        impossible for the outcome, or an effect leads beyond what it can be.

    Notes
    -----
    Cells are drawn from the sampling distributions of their sufficient statistics, without any unit: thousands of
    experiments take no longer than the numbers that they consist of. Sizes of cells are multinomial, as when units are
    assigned one by one.

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
    check_nonempty_text(outcome=outcome)
    _check_switches(scale, experiments=experiments, rows=rows)
    experiment_count = 1 if experiments is None else check_count(experiments, "experiments", "experiments")
    segment_design, stated_columns = read_segments(segments)
    arm_design = read_arms(arms)
    law = build_law(family, outcome, (segment_design, arm_design), outcome_options)
    design = Design(segment_design, arm_design, law, read_sizes(n, days, is_fixed=fixed_sizes))
    stated_baseline = law.default_baseline if baseline is None else baseline
    baseline_mean = (
        stated_columns["baseline"]
        if baseline is None and "baseline" in stated_columns
        else spread_over_segments(stated_baseline, segment_design, "baseline")
    )
    treated = arm_design.treated
    truth = TruthDesign(
        find_baseline_eta(baseline_mean, law, segment_design),
        check_sd(baseline_between, "baseline_between"),
        np.repeat(stated_columns["effect"][:, None], len(treated), axis=1)
        if effect is None and "effect" in stated_columns
        else spread_over_arms(0.0 if effect is None else effect, segment_design, treated, "effect"),
        read_spreads(between, segment_design, arm_design),
        scale,
    )
    # Three streams, so that the truth stays the same whatever is drawn of it.
    truth_rng, size_rng, data_rng = np.random.default_rng(check_seed(seed)).spawn(3)
    eta = draw_eta(truth, law, (segment_design, arm_design), truth_rng, experiment_count)
    counts = draw_sizes(design.sizes, segment_design, arm_design, size_rng, experiment_count)
    return _draw_data(design, eta, counts, data_rng, wants_rows=rows, has_many=experiments is not None, seed=seed)


def _check_switches(scale: object, *, experiments: object, rows: object) -> None:
    if scale not in EFFECT_SCALES:
        raise ArgumentError(f"scale is {describe_value(scale)}; it must be one of {', '.join(EFFECT_SCALES)}")
    if rows and experiments is not None:
        raise ArgumentError("rows are drawn of one experiment only; leave out rows, or experiments")


def _draw_data(
    design: Design,
    eta: FloatGrid,
    counts: CountGrid,
    rng: np.random.Generator,
    *,
    wants_rows: bool,
    has_many: bool,
    seed: int,
) -> Simulation:
    """Draw rows or cells, and put them beside the truth."""
    segments, arms, law = design.segments, design.arms, design.law
    true_effects = compute_true_effects(eta, law)
    truth = tabulate_truth(true_effects, segments, arms)
    average = tabulate_average(true_effects, eta, law, segments, arms)
    if not has_many:
        truth, average = truth.drop(columns=EXPERIMENT), average.drop(columns=EXPERIMENT)
    columns = {**law.reader_options, ARM: ARM, "control": arms.names[0], "segments": list(segments.dims)}
    if wants_rows:
        unit_rows = draw_rows(counts[0], eta[0], law, (segments, arms), rng)
        planned_shares = dict(zip(arms.names, arms.shares.tolist(), strict=True))
        return Simulation(
            with_shares(from_rows(unit_rows, **columns), planned_shares), truth, average, unit_rows, columns
        )
    names = CellNames(str(law.reader_options["outcome"]), f"simulated with seed {seed}")
    # The days of an experiment share its truth: parameters get an axis of length 1 for them.
    parameters = {name: values[:, None] for name, values in law.find_parameters(eta).items()}
    statistics = law.draw_statistics(counts, parameters, rng)
    cells = build_simulated_cells(pool_days(statistics), segments, arms, names, [EXPERIMENT])
    # The whole is pooled from its days, so that both always agree.
    daily = None
    if counts.shape[1] > 1:
        daily = build_simulated_cells(statistics, segments, arms, names, [EXPERIMENT, DAY])
    if not has_many:
        cells = cells.isel({EXPERIMENT: 0}, drop=True)
        daily = None if daily is None else daily.isel({EXPERIMENT: 0}, drop=True)
    return Simulation(cells, truth, average, None, columns, daily)
