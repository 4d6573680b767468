"""The unit of an outcome changes the numbers by its factor and nothing else.

Priors in SDs of the control move with the unit. The draws need not be the same ones, as rounding may turn a choice: the
means of two independent runs of 4,000 draws differ by more than 4.5 standard errors once in 150,000.
"""

import numpy as np
import pandas as pd
import pytest

import bayes_hte as hte


def fit_rows(model: str, factor: float) -> np.ndarray:
    rng = np.random.default_rng(21)
    segment = rng.choice(list("abcd"), 1200, p=[0.4, 0.3, 0.2, 0.1])
    arm = rng.choice(["c", "t"], 1200)
    outcome = rng.lognormal(3.0, 0.8, 1200) * np.exp(0.1 * (arm == "t"))
    rows = pd.DataFrame({"segment_name": segment, "arm": arm, "y": outcome * factor})
    cells = hte.cells.from_rows(rows, outcome="y", arm="arm", control="c", segments=["segment_name"])
    fit = hte.fit(cells, model, sampler="exact", seed=5)
    return np.asarray(fit.posterior["posterior"]["effect"].values.reshape(-1, 4) / factor)


@pytest.mark.parametrize("model", ["metric", "continuous"])
def test_cents_yen_and_revenue_per_impression_are_computed_as_dollars_are(model: str) -> None:
    dollars = fit_rows(model, 1.0)
    error = 4.5 * dollars.std(0) * np.sqrt(2 / 4000)
    for factor in (1e-7, 150.0, 1e8):
        other = fit_rows(model, factor)
        assert (np.abs(other.mean(0) - dollars.mean(0)) < error).all(), factor
        assert other.std(0) == pytest.approx(dollars.std(0), rel=0.1)
