"""Rank segments and compare arms: questions about several effects at once, answered draw by draw."""

from typing import Literal

import pandas as pd
import xarray as xr

from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.estimands.effects import compute_effects
from bayes_hte.estimands.tables import EffectQuestion, build_effect_table, compute_mcse, select_sign_probabilities
from bayes_hte.spec.fit_tree import get_fitted_cells

SAMPLE_DIMS = ("chain", "draw")
RankDirection = Literal["highest", "lowest"]
"""The end of the effects where the best segment stands."""


def rank_segments(
    fit_tree: xr.DataTree, question: EffectQuestion, rank_direction: RankDirection | None = None
) -> pd.DataFrame:
    """Rank every segment's effect among all segments', one row per segment and arm; see `Fit.ranks`.

    Raises
    ------
    DataError
        If there is one segment.
    ArgumentError
        If `rank_direction` is neither end.
    """
    from scipy.stats import rankdata  # half a second

    rank_direction = rank_direction or ("highest" if question.higher_is_better else "lowest")
    if rank_direction not in ("highest", "lowest"):
        raise ArgumentError(f'best is "highest" or "lowest", not {rank_direction!r}')
    effect_draws = compute_effects(fit_tree, question.scale).transpose(*SAMPLE_DIMS, "arm", "segment")
    if effect_draws.sizes["segment"] < 2:
        raise DataError("one segment has nothing to be compared with")
    benefit_draws = effect_draws if rank_direction == "highest" else -effect_draws
    # Rank 1 is the best; ties, as under complete pooling, share their ranks.
    rank_draws = effect_draws.copy(data=rankdata(-benefit_draws.values, axis=-1))
    tail_prob = (1 - question.ci_prob) / 2
    rank_bounds = rank_draws.quantile([tail_prob, 1 - tail_prob], dim=SAMPLE_DIMS)
    table_columns = {
        "rank_mean": rank_draws.mean(SAMPLE_DIMS),
        "rank_low": rank_bounds.isel(quantile=0, drop=True),
        "rank_high": rank_bounds.isel(quantile=1, drop=True),
        "p_best": _mark_maxima(benefit_draws, "segment").mean(SAMPLE_DIMS),
        "p_worst": _mark_maxima(-benefit_draws, "segment").mean(SAMPLE_DIMS),
    }
    return build_effect_table(table_columns, get_fitted_cells(fit_tree))


def _mark_maxima(benefit_draws: xr.DataArray, dim_name: str) -> xr.DataArray:
    """Mark the largest value along a dim with 1; values that tie share it."""
    is_maximum = benefit_draws == benefit_draws.max(dim_name)
    return is_maximum / is_maximum.sum(dim_name)


def compare_arms(fit_tree: xr.DataTree, question: EffectQuestion) -> pd.DataFrame:
    """Compare the arms of every segment, one row per segment and arm, control included; see `Fit.best_arm`."""
    cells = get_fitted_cells(fit_tree)
    # The same numbers on every scale decide which arm is best: links are monotone, and the control's effect is 0.
    effect_draws = compute_effects(fit_tree, question.scale)
    control_label = str(cells.attrs["control"]) or "control"
    control_effect = xr.zeros_like(effect_draws.isel(arm=[0])).assign_coords(arm=[control_label])
    all_effects = xr.concat(
        [control_effect, effect_draws], dim="arm", join="outer", coords="minimal", compat="override"
    )
    benefit_draws = all_effects if question.higher_is_better else -all_effects
    best_shares = _mark_maxima(benefit_draws, "arm")
    table_columns = {
        "effect": all_effects.mean(SAMPLE_DIMS),
        "p_best": best_shares.mean(SAMPLE_DIMS),
        "p_mcse": compute_mcse(fit_tree, benefit_draws == benefit_draws.max("arm")),
        "expected_loss": (benefit_draws.max("arm") - benefit_draws).mean(SAMPLE_DIMS),
    }
    sign_probabilities = select_sign_probabilities(fit_tree)
    # A single arm is the best exactly when its effect is good, and the engine may know signs better than draws do.
    if sign_probabilities and effect_draws.sizes["arm"] == 1:
        better_sign = "p_positive" if question.higher_is_better else "p_negative"
        p_better = sign_probabilities[better_sign].isel(arm=0, drop=True)
        table_columns["p_best"] = xr.concat([1 - p_better, p_better], dim="arm").assign_coords(arm=all_effects["arm"])
    return build_effect_table(table_columns, cells)
