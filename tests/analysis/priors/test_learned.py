"""Priors that come from somewhere, against what they must be in closed form."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import example, table

import bayes_hte as hte
from bayes_hte.analysis.priors.learned import _predict_new_experiment
from bayes_hte.model.families import FAMILIES
from bayes_hte.model.planned_effect import compute_control_mean, convert_to_link, with_planned_effect


def test_a_prior_that_is_handed_on_has_the_posteriors_mean_and_a_discounted_variance(schools: xr.Dataset) -> None:
    model = hte.Model.model_validate(
        {
            "family": "estimate",
            "effect": {"mean": {"dist": "Normal", "sigma": 20.0}, "between": {"dist": "HalfNormal", "sigma": 10.0}},
        }
    )
    fit = hte.fit(schools, model)
    draws = fit.posterior["posterior"].to_dataset()
    for discount in (1.0, 0.25):
        effect = hte.prior_from_fit(fit, discount=discount).effect
        assert effect.mean.mu == pytest.approx(float(draws["effect_mean"].mean()))
        assert effect.mean.sigma == pytest.approx(float(draws["effect_mean"].std()) / math.sqrt(discount))
        assert effect.between.mu == pytest.approx(float(draws["effect_between"].mean()))
        assert effect.between.sigma == pytest.approx(float(draws["effect_between"].std()) / math.sqrt(discount))


def test_handing_on_a_whole_posterior_is_like_seeing_both_experiments_together() -> None:
    """With many precise segments the posterior of what they share is nearly normal: two halves equal the whole."""
    rng = np.random.default_rng(5)
    y, se = rng.normal(0.3, 0.2, (60, 1)), np.full((60, 1), 0.05)
    halves = [table({"estimate": y[i::2], "se": se[i::2]}, arms=("t",), control="") for i in range(2)]
    whole = table({"estimate": y, "se": se}, arms=("t",), control="")
    first = hte.fit(halves[0], "published-estimates")
    second = hte.fit(halves[1], hte.prior_from_fit(first, discount=1.0))
    both = hte.fit(whole, "published-estimates")
    for name in ("effect_mean", "effect_between"):
        ours, theirs = (each.posterior["posterior"][name] for each in (second, both))
        sd = float(theirs.std())
        # The Gamma and the Normal stand in for the posterior: a tenth of an SD is their shape, not an error.
        assert abs(float(ours.mean() - theirs.mean())) < 0.1 * sd
        assert float(ours.std()) == pytest.approx(sd, rel=0.1)


def test_every_pooled_family_can_hand_on_its_prior() -> None:
    for name in ("conversion", "rates", "counts", "ordered-scale", "survival", "continuous", "conversion-correlated"):
        model = hte.read_model(name)
        cells = example(model.family, segments=8, arms=("control", "email"))
        handed = hte.prior_from_fit(hte.fit(cells, model, sampler="exact", draws=800))
        assert handed.units == "link"
        assert hte.fit(cells, handed, draws=800).diagnosis.ok


def test_what_cannot_be_handed_on_is_refused(schools: xr.Dataset) -> None:
    shares = schools.assign(estimate=schools["estimate"] / 100, se=schools["se"] / 100)
    fit = hte.fit(shares, "published-estimates", draws=400)
    with pytest.raises(hte.ArgumentError, match="above 0 and at most 1, not 0"):
        hte.prior_from_fit(fit, discount=0.0)
    alone = fit.model.model_copy(update={"pooling": "none"})
    with pytest.raises(hte.ModelError, match="partially pooled one way"):
        hte.prior_from_fit(hte.fit(shares, alone, draws=400))


def test_the_learnt_prior_predicts_the_next_experiment() -> None:
    """Forty experiments whose common effects have mean 0.2 and SD 0.15: the learnt prior is that distribution."""
    rng = np.random.default_rng(11)
    fits = []
    for centre in rng.normal(0.2, 0.15, 40):
        effect = rng.normal(centre, 0.1, (12, 1))
        se = np.full((12, 1), 0.05)
        cells = table({"estimate": effect + se * rng.standard_normal((12, 1)), "se": se}, arms=("t",), control="")
        fits.append(hte.fit(cells, "published-estimates", draws=800))
    learnt = hte.learn_prior(fits).effect
    # Of 40 experiments the mean has a standard error of 0.15 / √40 = 0.024, and the SD one of 0.017: four of these.
    assert learnt.mean.mu == pytest.approx(0.2, abs=0.1)
    assert learnt.mean.sigma == pytest.approx(0.15, abs=0.07)
    assert math.exp(learnt.between.mu) == pytest.approx(0.1, rel=0.25)


def test_the_predictive_distribution_is_that_of_the_hierarchical_model() -> None:
    """With equal and tiny errors the predictive mean is the sample's, its SD a little above the sample's."""
    y = np.array([0.1, 0.3, 0.2, 0.5, 0.4, 0.0, 0.2, 0.3])
    mean, sd = _predict_new_experiment([(each, 1e-3) for each in y], seed=1)
    assert mean == pytest.approx(y.mean(), abs=4 * y.std() / math.sqrt(8000) * 2)
    assert y.std() < sd < 2 * y.std()


def test_few_or_different_experiments_teach_nothing(schools: xr.Dataset, counts: xr.Dataset) -> None:
    fit = hte.fit(schools, "published-estimates", draws=400)
    with pytest.raises(hte.DataError, match="give 3 or more"):
        hte.learn_prior([fit, fit])
    with pytest.raises(hte.ModelError, match="different families"):
        hte.learn_prior([fit, fit, hte.fit(counts, "conversion", draws=400)])


@pytest.mark.parametrize("family", ["binomial", "poisson", "negative_binomial", "piecewise_exponential"])
def test_a_planned_effect_reaches_the_link_scale_and_back(family: str) -> None:
    """A control at its overall mean, moved by the effect on the link scale, has the planned absolute effect."""
    statistics = FAMILIES[family].select_statistics(example(family))
    mean = compute_control_mean(FAMILIES[family], statistics)
    delta = convert_to_link(FAMILIES[family], statistics, 0.1 * mean, "absolute")
    match family:
        case "binomial":
            treated = 1 / (1 + (1 - mean) / mean * math.exp(-delta))
        case "piecewise_exponential":
            treated = 1 - (1 - mean) ** math.exp(delta)
        case _:
            treated = mean * math.exp(delta)
    assert treated - mean == pytest.approx(0.1 * mean)


def test_a_planned_effect_is_the_scale_of_the_between_segment_sd(counts: xr.Dataset, moments: xr.Dataset) -> None:
    conversion = hte.read_model("conversion")
    assert with_planned_effect(conversion, counts, -0.2, "link").effect.between.sigma == pytest.approx(0.2)
    continuous = hte.read_model("continuous")
    found = with_planned_effect(continuous, moments, 1.5, "absolute").effect.between
    sd = FAMILIES["normal"].measure_control_outcome(moments)[1]
    assert found.sigma * sd == pytest.approx(1.5)
    relative = with_planned_effect(continuous, moments, 0.1, "relative").effect.between
    assert relative.sigma * sd == pytest.approx(0.1 * FAMILIES["normal"].measure_control_outcome(moments)[0])


def test_a_planned_effect_that_makes_no_sense_is_refused(counts: xr.Dataset) -> None:
    conversion = hte.read_model("conversion")
    with pytest.raises(hte.ModelError, match=r"impossible where the control's overall mean is 0\.1"):
        with_planned_effect(conversion, counts, 0.95, "absolute")
    with pytest.raises(hte.ModelError, match="has no size"):
        with_planned_effect(conversion, counts, 0.0, "link")
    with pytest.raises(hte.ModelError, match="anchor of partial pooling"):
        with_planned_effect(conversion.model_copy(update={"pooling": "complete"}), counts, 0.1, "link")
    with pytest.raises(hte.ModelError, match="each of two parts"):
        with_planned_effect(hte.read_model("revenue"), example("two_part"), 0.1, "relative")


def test_a_plan_with_a_planned_effect_is_fitted_with_it(tmp_path: Path) -> None:
    rows = pd.DataFrame({"d": list("aabb"), "arm": list("ctct"), "n": [900, 900, 90, 90], "y": [90, 120, 9, 12]})
    rows.to_csv(tmp_path / "cells.csv", index=False)
    (tmp_path / "plan.toml").write_text(
        """title = "t"
model = "conversion"
planned_effect = 0.02
[data]
form = "summary"
path = "cells.csv"
arm = "arm"
control = "c"
segments = ["d"]
n = "n"
events = "y"
""",
        encoding="utf-8",
    )
    fit = hte.run(tmp_path / "plan.toml")
    p = 99 / 990
    expected = math.log((p + 0.02) / (1 - p - 0.02)) - math.log(p / (1 - p))
    assert fit.model.effect.between is not None
    assert fit.model.effect.between.sigma == pytest.approx(expected)
