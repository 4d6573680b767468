"""The same question under other priors: each row block is an ordinary fit."""

import numpy as np
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.spec.distributions import HalfCauchy, HalfNormal


def test_every_prior_gives_the_table_of_its_own_fit(counts: xr.Dataset) -> None:
    swept = hte.prior_sweep(counts, "conversion", [0.5, 1.0], draws=1000)
    stated = hte.read_model("conversion")
    for factor, part in zip((0.5, 1.0), np.split(np.arange(len(swept)), 2), strict=True):
        model = stated.model_copy(update={"effect": stated.effect.model_copy(
            update={"between": HalfNormal(sigma=0.5 * factor)})})  # fmt: skip
        alone = hte.fit(counts, model, draws=1000).table()
        assert (swept.iloc[part]["effect"].to_numpy() == alone["effect"].to_numpy()).all()
        assert set(swept.iloc[part]["between"]) == {f"HalfNormal(sigma={0.5 * factor:g})"}


def test_a_wider_prior_lets_segments_differ_more(counts: xr.Dataset) -> None:
    swept = hte.prior_sweep(counts, "conversion", [0.05, 4.0])
    spread = swept.groupby("between", sort=False)["effect"].std().to_numpy()
    assert spread[1] > spread[0]
    assert (swept.groupby("between", sort=False)["tau"].mean().diff().dropna() > 0).all()
    assert np.isfinite(swept["log_evidence"]).all()


def test_priors_may_be_of_another_kind(counts: xr.Dataset) -> None:
    swept = hte.prior_sweep(counts, "conversion", [HalfCauchy(beta=0.3)], scale="link", ci_prob=0.8)
    assert set(swept["between"]) == {"HalfCauchy(beta=0.3)"}
    assert swept.columns[-1] == "reliable"
    assert swept["reliable"].dtype == bool


def test_harm_is_on_the_side_that_is_stated(counts: xr.Dataset) -> None:
    sales, deaths = (
        hte.prior_sweep(counts, "conversion", [1.0], rope=0.01, draws=800, higher_is_better=higher_is_better)
        for higher_is_better in (True, False)
    )
    assert (sales["p_benefit"] == deaths["p_harm"]).all()
    assert (sales["p_benefit"] > sales["p_harm"]).any()


def test_without_partial_pooling_there_is_nothing_to_vary(counts: xr.Dataset) -> None:
    stated = hte.read_model("conversion").model_copy(update={"pooling": "complete"})
    with pytest.raises(hte.ModelError, match="no between-segment SD to vary"):
        hte.prior_sweep(counts, stated)
