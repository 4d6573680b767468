"""What the priors say before any fit: draws, predicted data, and the figure."""

import numpy as np
import pytest
import xarray as xr
from example_cells import example
from matplotlib.figure import Figure
from scipy import stats

import bayes_hte as hte
from bayes_hte import plot
from bayes_hte.spec import list_shipped_models


def test_prior_predictive_data_follow_from_prior_parameters(counts: xr.Dataset) -> None:
    """Rates of large cells are those of the drawn parameters, up to binomial noise."""
    tree = hte.prior_predictive(counts, "conversion", draws=800, seed=3)
    prior, data = tree["prior"].to_dataset(), tree["prior_predictive"].to_dataset()
    assert dict(data.sizes) == {"chain": 1, "draw": 800, "cell": 17}
    p = 1 / (1 + np.exp(-prior["baseline"].isel(segment=0).values))
    z = (data["events"].isel(cell=0).values - 900 * p) / np.sqrt(900 * p * (1 - p) + 1e-9)
    usual = (900 * p > 20) & (900 * (1 - p) > 20)
    # The chance that a standard normal sample of this size has an SD 4 standard errors away is 6e-5.
    assert z[usual].std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * usual.sum()))


def test_prior_effects_are_a_normal_mixed_over_the_between_segment_sd(counts: xr.Dataset) -> None:
    effect = hte.prior_predictive(counts, "conversion", draws=4000)["prior"]["effect"].isel(segment=1, arm=0)
    tau = np.abs(np.random.default_rng(0).normal(0, 0.5, 200_000))
    theory = np.random.default_rng(1).normal(0, np.sqrt(1 + tau**2))
    assert stats.ks_2samp(effect.values.ravel(), theory).pvalue > 1e-3


@pytest.mark.parametrize("name", list_shipped_models())
def test_every_shipped_model_can_be_looked_at_before_the_fit(name: str) -> None:
    model = hte.read_model(name)
    cells = example(model.family)
    if model.units == "control_sd" and "n" not in cells:
        cells = example("normal")
    tree = hte.prior_predictive(cells, model, draws=200)
    assert all(bool(np.isfinite(values).all()) for values in tree["prior"].to_dataset().data_vars.values())
    assert set(tree["prior_predictive"].data_vars) == set(tree["observed_data"].data_vars)
    assert isinstance(hte.plot_prior(cells, model, "link", draws=300), Figure)


def test_the_figure_of_a_fit_shows_the_posterior_as_well(counts: xr.Dataset) -> None:
    fit = hte.fit(counts, "conversion", draws=400)
    before, after = hte.plot_prior(counts, "conversion"), fit.plot_prior()
    assert len(after.axes[0].child_axes[0].lines) == len(before.axes[0].child_axes[0].lines) + 1
    assert "after the data" in "".join(text.get_text() for text in after.axes[0].texts)
    assert "after the data" not in "".join(text.get_text() for text in before.axes[0].texts)


def test_raw_estimates_beyond_the_prior_are_counted() -> None:
    narrow = np.random.default_rng(2).normal(0, 0.01, 500)
    drawn = plot.prior([plot.ArmBelief("a", narrow, None, np.array([0.0, 5.0, np.nan]))])
    assert "1 raw estimates outside" in "".join(text.get_text() for text in drawn.axes[0].texts)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(hte.DataError, match="no prior to draw"):
        plot.prior([])
    with pytest.raises(hte.DataError, match="not finite"):
        plot.prior([plot.ArmBelief("a", np.array([np.inf, 1.0]), None, np.zeros(1))])
