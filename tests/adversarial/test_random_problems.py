"""No result that calls itself reliable is off: random problems of every family against a random walk.

Each family has `--adversarial-problems` problems (300 where the option is not given), made from `--adversarial-seed`.
For every segment's effect, the common effect and the between-segment SD, the shares of the fit's draws below three
quantiles of the reference, and P(> 0), agree within five combined Monte-Carlo errors, or the fit says that it is not
reliable, or refuses.

An error of five standard deviations happens in 6e-7 of comparisons, and a problem makes some 25; errors that are
estimated from 40 blocks have heavier tails, so a problem that disagrees is walked again, from another seed and
eight times as long, before it counts. A sound engine fails one run of 300 × 9 problems in about fifty.
"""

import numpy as np
import pytest
from random_problems import FAMILIES, make_problem
from reference_agreement import draw_reference, find_disagreements

import bayes_hte as hte

BATCH, SWEEPS = 30, 3000
MAX_REFERENCE_ERROR = 0.05
"""Of a share of draws: a walk that is less sure of its quantiles settles nothing."""
MAX_UNSETTLED_SHARE, MAX_REFUSED_SHARE = 0.1, 0.4

pytestmark = pytest.mark.slow


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    problems = metafunc.config.getoption("--adversarial-problems")
    starts = range(0, problems, BATCH)
    metafunc.parametrize(
        ("family", "numbers"),
        [pytest.param(family, range(start, min(start + BATCH, problems)), id=f"{family}-{start}")
         for family in FAMILIES for start in starts],
    )  # fmt: skip


def test_what_calls_itself_reliable_agrees_with_a_random_walk(
    family: str, numbers: range, pytestconfig: pytest.Config
) -> None:
    seed = pytestconfig.getoption("--adversarial-seed")
    problems, fits = [], []
    for problem in (make_problem(family, number, seed) for number in numbers):
        try:
            fit = hte.fit(problem.cells, problem.model, sampler="exact", seed=1)
        except (hte.DataError, hte.FitError):
            continue
        if fit.diagnosis.ok:
            problems.append(problem)
            fits.append(fit)
    # Refusing is honest, but an engine that refuses everything would pass the rest of this test.
    assert len(fits) >= (1 - MAX_REFUSED_SHARE) * len(numbers)
    expected = draw_reference(problems, sweeps=SWEEPS, seed=2)
    unsettled = [each.error[:-1].max() > MAX_REFERENCE_ERROR for each in expected]
    assert np.mean(unsettled) <= MAX_UNSETTLED_SHARE
    doubtful = [i for i, fit in enumerate(fits) if not unsettled[i] and find_disagreements(fit, expected[i])]
    if not doubtful:
        return
    again = draw_reference([problems[i] for i in doubtful], sweeps=8 * SWEEPS, seed=77)
    wrong = {
        f"{family}, seed {seed}, problem {i}": said
        for i, reference in zip(doubtful, again, strict=True)
        if (said := find_disagreements(fits[i], reference))
    }
    assert not wrong, wrong
