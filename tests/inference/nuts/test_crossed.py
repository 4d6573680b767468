"""Crossed dimensions by NUTS: levels, means and SDs leave neither a ridge nor a funnel to the sampler."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte import read_model
from bayes_hte.inference.nuts.sample import NutsSettings, sample_with_nuts
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import cell_table


def crossed_counts(level_counts: Sequence[int], *, units: int, seed: int) -> xr.Dataset:
    """Every combination of levels, in two arms; baselines and effects differ by SDs of .1 to .3 per dimension."""
    rng = np.random.default_rng(seed)
    levels = np.array(list(itertools.product(*map(range, level_counts))))
    eta = np.stack([np.full(len(levels), -2.0), np.full(len(levels), -1.9)], axis=1)
    for dimension, level_count in enumerate(level_counts):
        spread = rng.uniform(0.1, 0.3) * rng.standard_normal((level_count, 1))
        eta += spread[levels[:, dimension]] * [1.0, 1.0]
        eta += (rng.uniform(0.1, 0.2) * rng.standard_normal((level_count, 1)))[levels[:, dimension]] * [0.0, 1.0]
    eta += 0.15 * rng.standard_normal((len(levels), 1)) + 0.1 * rng.standard_normal(eta.shape) * [0.0, 1.0]
    n = np.repeat(rng.multinomial(units // 2, rng.dirichlet(np.full(len(levels), 2.0)))[:, None] + 1, 2, axis=1)
    names = [f"d{dimension}" for dimension in range(len(level_counts))]
    cells = xr.Dataset(
        {"n": (("segment", "arm"), n), "events": (("segment", "arm"), rng.binomial(n, 1 / (1 + np.exp(-eta))))},
        coords={"segment": ["-".join(map(str, each)) for each in levels], "arm": ["old", "new"]}
        | {name: ("segment", [f"l{each}" for each in levels[:, i]]) for i, name in enumerate(names)},
        attrs={
            "outcome": "visit",
            "control": "old",
            "notes": "[]",
            "dimensions": cell_table.encode_text_list(names),
        },
    )
    return cell_table.check_cell_table(cells)


@pytest.mark.slow  # compiles the whitened model, which takes a minute
def test_a_step_among_crossed_levels_takes_few_gradients() -> None:
    """Without whitened levels it takes 160, for the SDs of a dozen levels and the ridges between them."""
    problem = build_problem(crossed_counts([3, 2], units=40_000, seed=1), read_model("conversion-by-dimension"))
    drawn = sample_with_nuts(problem, draws=400, seed=1, settings=NutsSettings(0.9, 300), progress=False)
    assert float(drawn.sample_stats["n_steps"].mean()) < 40
    assert drawn.posterior["effect_d0"].dims == ("chain", "draw", "arm", "d0")
    names = ["baseline", "baseline_between", "baseline_d0", "baseline_d0_between", "baseline_mean"]
    assert {*names, *(name.replace("baseline", "effect") for name in names)} <= set(drawn.posterior.data_vars)


@pytest.mark.slow
def test_four_crossed_dimensions_pass_their_diagnosis_at_the_default_settings() -> None:
    cells = crossed_counts([4, 4, 4, 3], units=400_000, seed=3)
    fit = hte.fit(cells, "conversion-by-dimension", sampler="nuts")
    assert fit.diagnosis.ok, fit.diagnosis
    assert not fit.diagnosis.refitted
