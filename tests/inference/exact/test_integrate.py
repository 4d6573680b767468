"""In-place arithmetic of a segment's integral equals its plain formulas, arms coupled to the baseline or not."""

import numpy as np
import pytest
from scipy import special

from bayes_hte.inference.exact.integrate import _assembled, _moved, log_sum

ARMS = 3


def newton_step(
    score: np.ndarray, information: np.ndarray, slope: np.ndarray, along: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve the dense equations of one segment: offsets of the baseline and of the arms, and their covariance.

    log posterior = Σ_a log L_a(η_a) − ½ |offsets|², η_0 = along_0 u, η_a = along_a u + slope_a x_a.
    """
    jacobian = np.column_stack([along, np.vstack([np.zeros(ARMS), np.diag(slope)])])
    covariance = np.linalg.inv(np.eye(1 + ARMS) + jacobian.T @ (information[:, None] * jacobian))
    return covariance @ (jacobian.T @ score), covariance


@pytest.mark.parametrize("coupled", [False, True])
def test_a_step_solves_the_dense_equations(coupled: bool) -> None:
    rng = np.random.default_rng(1)
    score, information = rng.normal(size=(1 + ARMS, 1, 7)), rng.exponential(size=(1 + ARMS, 1, 7))
    slope = rng.uniform(0.2, 2.0, size=(ARMS, 1, 7))
    along = np.repeat(rng.uniform(0.2, 2.0, size=(1, 1, 7)), 1 + ARMS, axis=0)
    if coupled:
        along[1:] += rng.normal(size=(ARMS, 1, 7))
    cells = [(score[1 + a].copy(), information[1 + a].copy(), slope[a], along[1 + a]) for a in range(ARMS)]
    system = _assembled((score[0], information[0], along[0]), cells, coupled=coupled)
    zero = np.zeros((1, 7))
    base, arms = _moved(system, zero, [zero] * ARMS, limit=np.inf)
    for s in range(7):
        at = (slice(None), 0, s)
        offsets, covariance = newton_step(score[at], information[at], slope[at], along[at])
        assert base[0, s] == pytest.approx(offsets[0], rel=1e-10)
        assert [arm[0, s] for arm in arms] == pytest.approx(offsets[1:], rel=1e-10)
        assert 1 / system.precision[0, s] == pytest.approx(covariance[0, 0], rel=1e-10)


def test_equal_slopes_along_the_baseline_give_both_formulas_one_answer() -> None:
    rng = np.random.default_rng(2)
    score, information, slope = (
        rng.normal(size=(2, 1, 5)),
        rng.exponential(size=(2, 1, 5)),
        rng.uniform(1, 2, (2, 1, 5)),
    )
    systems = [
        _assembled(
            (score[0], information[0], slope[0]),
            [(score[1].copy(), information[1].copy(), slope[1], slope[0])],
            coupled=coupled,
        )
        for coupled in (False, True)
    ]
    for name in ("total", "precision"):
        np.testing.assert_allclose(getattr(systems[0], name), getattr(systems[1], name), rtol=1e-13)


def test_sums_of_logarithms_equal_those_of_scipy() -> None:
    terms = np.random.default_rng(3).normal(0.0, 30.0, (9, 4, 5))
    np.testing.assert_allclose(log_sum(terms.copy()), special.logsumexp(terms, axis=0), rtol=1e-13)
