"""Values at normal scores are quantiles of the prior, far into both tails."""

import numpy as np
import pytest
from scipy import special

from bayes_hte.model.normal_scores import compute_value_of_score, find_score_of_value
from bayes_hte.model.priors import freeze_distribution
from bayes_hte.spec import distributions as d

PRIORS = [
    d.Normal(mu=1.0, sigma=2.0), d.StudentT(nu=4.0, mu=0.1, sigma=2.0), d.Cauchy(alpha=1.0, beta=2.0),
    d.HalfNormal(sigma=0.5), d.HalfStudentT(nu=3.0, sigma=0.7), d.HalfCauchy(beta=0.3), d.Exponential(lam=2.5),
    d.Gamma(alpha=2.0, beta=3.0), d.InverseGamma(alpha=3.0, beta=1.3), d.LogNormal(mu=-0.5, sigma=0.7),
    d.Uniform(lower=0.1, upper=2.3), d.LKJ(eta=2.0),
]  # fmt: skip


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.dist)
def test_values_are_quantiles_taken_from_the_nearer_tail(prior: d.Distribution) -> None:
    scores = np.array([-5.9, -3.1, -1.0, -0.2, 0.3, 1.7, 3.3, 5.9])
    law = freeze_distribution(prior)
    expected = np.where(scores < 0, law.ppf(special.ndtr(scores)), law.isf(special.ndtr(-scores)))
    # Near 0 both lose digits to the same cancellation: 1e-15 of a scale of 1
    assert compute_value_of_score(prior, scores) == pytest.approx(expected, rel=1e-6, abs=1e-14)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.dist)
def test_a_score_is_found_again_from_its_value(prior: d.Distribution) -> None:
    scores = np.array([-2.0, 0.4, 3.0])
    found = [find_score_of_value(prior, float(value)) for value in compute_value_of_score(prior, scores)]
    assert found == pytest.approx(scores, abs=1e-6)


def test_data_far_outside_a_prior_have_a_score() -> None:
    # P(τ > 20) under HalfNormal(1) is 5e-89
    score = find_score_of_value(d.HalfNormal(sigma=1.0), 20.0)
    assert compute_value_of_score(d.HalfNormal(sigma=1.0), np.array(score)) == pytest.approx(20.0, rel=1e-9)
