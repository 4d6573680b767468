"""What is computed in blocks is what one array would give."""

import numpy as np
import pytest
import xarray as xr
from example_posterior import example_fit

from bayes_hte.estimands.effects import compute_effects, hold_effects
from bayes_hte.estimands.pooling_factor import average_pooling, compute_pooling_factor, hold_pooling
from bayes_hte.estimands.result_tables import compute_result_tables
from bayes_hte.estimands.tables import (
    EffectQuestion,
    compute_signs_against_average,
    summarise_draws,
    tabulate_contrasts,
)
from bayes_hte.inference import draw_blocks

SAMPLE_DIMS = ("chain", "draw")


@pytest.fixture(params=[1, 7, 10**9])
def _block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_blocks, "VALUES_PER_BLOCK", request.param)


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize("dims", [(), ("arm",), ("segment", "arm"), ("arm", "segment"), ("a", "b", "c")])
def test_summaries_are_those_of_the_whole_array_whatever_its_dims(dims: tuple[str, ...]) -> None:
    shape = (2, 50, *range(3, 3 + len(dims)))
    values = np.random.default_rng(1).normal(size=shape)
    values[0, 0] = np.nan
    draws = xr.DataArray(values, dims=(*SAMPLE_DIMS, *dims)).transpose(*dims, *SAMPLE_DIMS)
    summary = summarise_draws(draws, EffectQuestion(ci_prob=0.8))
    expected = {
        "effect": draws.mean(SAMPLE_DIMS),
        "sd": draws.std(SAMPLE_DIMS, ddof=1),
        "ci_low": draws.quantile(0.1, SAMPLE_DIMS).drop_vars("quantile"),
        "ci_high": draws.quantile(0.9, SAMPLE_DIMS).drop_vars("quantile"),
        "p_positive": (draws > 0).mean(SAMPLE_DIMS),
        "p_negative": (draws < 0).mean(SAMPLE_DIMS),
    }
    assert list(summary) == list(expected)
    for name, values_expected in expected.items():
        xr.testing.assert_allclose(summary[name], values_expected, rtol=1e-12)


@pytest.mark.usefixtures("_block_size")
@pytest.mark.parametrize("scale", ["absolute", "relative", "link"])
def test_effects_and_pooling_do_not_depend_on_the_size_of_blocks(scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = example_fit(4, arms=("control", "a", "b")).tree
    effects, averages = compute_effects(tree, scale), average_pooling(tree)  # type: ignore[arg-type]
    monkeypatch.undo()
    assert effects.equals(compute_effects(tree, scale))  # type: ignore[arg-type]
    expected_pooling = compute_pooling_factor(tree).mean(SAMPLE_DIMS)
    assert averages["pooling"].dims == expected_pooling.dims
    assert averages["pooling"].values == pytest.approx(expected_pooling.values, rel=1e-12)


def test_held_results_are_those_that_are_computed() -> None:
    tree, question = example_fit(4).tree, EffectQuestion("relative")
    held_tree = hold_pooling(hold_effects(tree, "relative"))
    assert "held_effects" not in tree.children
    assert compute_effects(held_tree, "relative").equals(compute_effects(tree, "relative"))
    # Another scale than the one that is held is computed.
    assert compute_effects(held_tree, "link").equals(compute_effects(tree, "link"))
    held, computed = compute_result_tables(held_tree, question), compute_result_tables(tree, question)
    assert held.segment_table.equals(computed.segment_table)
    assert held.heterogeneity_table.equals(computed.heterogeneity_table)


def test_signs_against_the_average_are_those_of_the_contrasts() -> None:
    tree, question = example_fit(4, arms=("control", "a", "b")).tree, EffectQuestion()
    signs, contrasts = compute_signs_against_average(tree, question), tabulate_contrasts(tree, question, "ate")
    columns = ["arm", "segment", "p_positive", "p_negative"]
    assert signs[columns].equals(contrasts[columns])
