"""No result of crossed or nested dimensions that calls itself reliable is off: random problems against a walk.

Each family has a tenth of `--adversarial-problems` problems (30 where the option is not given; families whose
likelihood is not normal from 10 on), made from `--adversarial-seed`; their dimensions are awkward in eleven ways in
turn (`random_crossed.LAYOUTS`). For every effect and baseline of segments and of levels, every mean, slope and SD,
the shares of the fit's draws below three quantiles of the reference, and P(> 0), agree within five combined
Monte-Carlo errors, or the fit says that it is not reliable, or refuses.

An error of five standard deviations happens in 6e-7 of comparisons, and a problem makes some 200; errors that are
estimated from 40 blocks have heavier tails, so a problem that disagrees is walked again, from another seed and four
times as long, before it counts. A sound engine fails one run of 30 × 5 problems in about fifty.
"""

import numpy as np
import pytest
from crossed_agreement import find_crossed_disagreements, walk_problem
from random_crossed import FAMILIES, LAYOUTS, NORMAL_FAMILIES, CrossedProblem, make_crossed_problem

import bayes_hte as hte

SWEEPS = 600
MAX_REFERENCE_ERROR = 0.05
"""Of a share of draws: a walk that is less sure of its quantiles settles nothing."""
MAX_RHAT = 1.1
"""Of any quantity of a walk, for the same reason."""
MAX_UNSETTLED_SHARE, MAX_REFUSED_SHARE = 0.25, 0.4
PROBLEMS_PER_OPTION = 0.1

pytestmark = pytest.mark.slow


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = PROBLEMS_PER_OPTION * metafunc.config.getoption("--adversarial-problems")
    # A walk by gradient takes many minutes, one over scales seconds: of few problems, only these are tried.
    families = FAMILIES if asked >= 1 else NORMAL_FAMILIES
    count = max(1, int(asked))
    starts = range(0, count, len(LAYOUTS))
    metafunc.parametrize(
        ("family", "numbers"),
        [pytest.param(family, range(start, min(start + len(LAYOUTS), count)), id=f"{family}-{start}")
         for family in families for start in starts],
    )  # fmt: skip


def fit_or_refuse(problem: CrossedProblem) -> hte.Fit | None:
    """Fit a problem; None where the engine refuses it, or says that the result is not reliable."""
    try:
        fit = hte.fit(problem.cells, problem.model, sampler="exact", seed=1)
    except (hte.DataError, hte.FitError):
        return None
    return fit if fit.diagnosis.ok else None


def test_what_calls_itself_reliable_agrees_with_a_walk(
    family: str, numbers: range, pytestconfig: pytest.Config
) -> None:
    seed = pytestconfig.getoption("--adversarial-seed")
    problems = [make_crossed_problem(family, number, seed) for number in numbers]
    fits = [fit_or_refuse(each) for each in problems]
    # Refusing is honest, but an engine that refuses everything would pass the rest of this test.
    assert np.mean([fit is None for fit in fits]) <= MAX_REFUSED_SHARE
    wrong, unsettled = {}, 0
    for number, problem, fit in zip(numbers, problems, fits, strict=True):
        if fit is None:
            continue
        expected = walk_problem(problem, sweeps=SWEEPS, seed=2)
        if expected.error[:-1].max() > MAX_REFERENCE_ERROR or expected.rhat.max() > MAX_RHAT:
            unsettled += 1
        elif find_crossed_disagreements(fit, expected):
            again = walk_problem(problem, sweeps=4 * SWEEPS, seed=77)
            if said := find_crossed_disagreements(fit, again):
                wrong[f"{family}, seed {seed}, problem {number}: {problem.layout}, {problem.truth}"] = said
    assert not wrong, wrong
    assert unsettled <= MAX_UNSETTLED_SHARE * len(numbers)
