"""Predict what a second test would show: the same sign, a clear one, the same decision; and how far raw estimates err.

Of each joint draw θ of all segments' effects, a second test's own estimates are

    y[s] ~ Normal(θ[s], se[s]² / r),      r = its units / those of this test

so that probabilities of their signs are means of normal probabilities over draws, without noise of simulation.

The second test is decided on its own, as this one was: see `bayes_hte.decisions.repetition.second_analysis`.

References
----------
Gelman & Carlin (2014), Perspectives on Psychological Science 9:641 (errors of sign and magnitude).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte.decisions.decide import decide_segments
from bayes_hte.decisions.repetition.between_tests import draw_next_test
from bayes_hte.decisions.repetition.second_analysis import decide_second_tests
from bayes_hte.decisions.repetition.standard_errors import (
    SecondTestSize,
    compute_size_ratios,
    measure_standard_errors,
)
from bayes_hte.decisions.verdicts import find_tested_cells
from bayes_hte.estimands.effects import compute_effects, estimate_without_pooling
from bayes_hte.estimands.tables import EffectQuestion, build_effect_table
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.spec import Rule
from bayes_hte.spec.cell_table import ARM, SEGMENT
from bayes_hte.spec.fit_tree import get_fitted_cells, list_test_names


def tabulate_replication(
    fit_tree: xr.DataTree, question: EffectQuestion, rule: Rule, n: SecondTestSize | None = None
) -> pd.DataFrame:
    """Tabulate what a second test would show, one row per segment and arm; see `Fit.replication`."""
    design = build_second_test(fit_tree, question, n)
    is_tested = find_tested_cells(get_fitted_cells(fit_tree)).transpose(SEGMENT, ARM)
    columns = {"raw": design.raw, "raw_se": design.first_se, "next_se": design.second_se}
    columns |= predict_signs(design, question.ci_prob)
    columns |= compute_sign_and_magnitude_errors(design, question.ci_prob)
    columns = {name: values.where(is_tested) for name, values in columns.items()}
    table = build_effect_table(columns, get_fitted_cells(fit_tree))
    decisions = decide_segments(fit_tree, question, rule)["decision"].to_numpy(str)
    second_decisions = decide_second_tests(fit_tree, question, rule, compute_size_ratios(fit_tree, n))
    # (segment, arm) row by row, as tables are
    flat_decisions = second_decisions.transpose("sample", SEGMENT, ARM).values.reshape(-1, len(table))
    p_same = (flat_decisions == decisions).mean(0)
    table.insert(len(table.columns), "decision", decisions)
    table["p_same_decision"] = np.where(is_tested.values.ravel(), p_same, np.nan)
    return table


@dataclass(frozen=True, slots=True)
class SecondTest:
    """What a second test is predicted from; dims (segment, arm), and (chain, draw, segment, arm) of draws.

    Attributes
    ----------
    posterior_draws : xarray.DataArray
        Effects of this test.
    effect_draws : xarray.DataArray
        Effects of the second test: the same, unless tests are known to differ.
    raw, first_se, second_se : xarray.DataArray
        This test's own estimates, their standard errors and those of the second.
    """

    posterior_draws: xr.DataArray
    effect_draws: xr.DataArray
    raw: xr.DataArray
    first_se: xr.DataArray
    second_se: xr.DataArray


def build_second_test(fit_tree: xr.DataTree, question: EffectQuestion, n: SecondTestSize | None = None) -> SecondTest:
    """Build the second test that a fit predicts, on the question's scale.

    Raises
    ------
    ArgumentError, DataError
        If `n` makes no sense, or nobody knows how large this test was.
    """
    posterior_draws = compute_effects(fit_tree, question.scale).transpose("chain", "draw", SEGMENT, ARM)
    # Where two tests have shown how much tests differ, the next one differs, too.
    effect_draws = draw_next_test(fit_tree, question.scale) if list_test_names(fit_tree) else posterior_draws
    first_se = measure_standard_errors(fit_tree, question.scale)
    raw = estimate_without_pooling(fit_tree, question.scale)["raw"].transpose(SEGMENT, ARM)
    # se₂ = se₁ / √r
    second_se = first_se / compute_size_ratios(fit_tree, n) ** 0.5
    return SecondTest(posterior_draws, effect_draws.transpose("chain", "draw", SEGMENT, ARM), raw, first_se, second_se)


def predict_signs(design: SecondTest, ci_prob: float) -> dict[str, xr.DataArray]:
    """Predict the sign of the second test's own estimate, and that its interval leaves 0 out on the same side."""
    from scipy import special

    critical = float(special.ndtri((1 + ci_prob) / 2))
    # The sign that this test shows: of its own estimate, or of the posterior mean where there is none
    shown = design.raw.fillna(design.posterior_draws.mean(("chain", "draw")))
    z: xr.DataArray = shown.copy(data=np.where(shown.values < 0, -1.0, 1.0)) * design.effect_draws / design.second_se
    z = z.transpose("chain", "draw", SEGMENT, ARM)
    return {
        # P(y same sign | θ) = Φ(± θ / se₂),   P(y clear, same sign | θ) = Φ(± θ / se₂ − z)
        "p_same_sign": _average_over_draws(special.ndtr(z.values), z),
        "p_significant": _average_over_draws(special.ndtr(z.values - critical), z),
    }


def _average_over_draws(values: FloatArray, like: xr.DataArray) -> xr.DataArray:
    return like.copy(data=values).mean(("chain", "draw"))


def compute_sign_and_magnitude_errors(design: SecondTest, ci_prob: float) -> dict[str, xr.DataArray]:
    """Compute the power of a test of this size, and of its clear raw estimates the errors of sign and magnitude.

    type_s is the probability that an estimate whose interval leaves 0 out has the wrong sign; type_m the factor by
    which it exaggerates, |estimate| over |effect| among such estimates: Σ over draws of both, so that draws near 0 do
    not blow it up.
    """
    from scipy import special

    critical = float(special.ndtri((1 + ci_prob) / 2))
    size = abs(design.effect_draws / design.second_se)
    z = size.values
    # With t = |θ| / se: P(y > c se) = Φ(t − c), and on the wrong side Φ(−t − c)
    right, wrong = special.ndtr(z - critical), special.ndtr(-z - critical)
    # E[|y| 1(|y| > c se)] / se = t (Φ(t − c) − Φ(−t − c)) + φ(c − t) + φ(c + t)
    shown_size = z * (right - wrong) + _normal_density(critical - z) + _normal_density(critical + z)
    power = _average_over_draws(right + wrong, size)
    return {
        "power": power,
        "type_s": _average_over_draws(wrong, size) / power,
        "type_m": _average_over_draws(shown_size, size) / _average_over_draws(z * (right + wrong), size),
    }


def _normal_density(z: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
