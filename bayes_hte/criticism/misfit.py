"""List what the data, or the means of the draws, say against a result, however well its posterior was drawn.

family     what a family knows of its own assumptions, such as the log-normal shape of amounts
means      a posterior mean outside of its own central 95 %: a few draws decide it
"""

import xarray as xr

from bayes_hte.cells.checks.wording import list_first
from bayes_hte.estimands.effects import compute_effects, get_fitted_family, select_parameters
from bayes_hte.estimands.tables import is_mean_unsettled
from bayes_hte.estimands.weights import average_over_segments, compute_population_shares
from bayes_hte.model.families import select_model_statistics
from bayes_hte.spec.fit_tree import get_fitted_cells, get_fitted_model, is_from_posterior


def list_misfits(fit_tree: xr.DataTree) -> tuple[str, ...]:
    """List the sentences why a result misleads although its draws may be sound; empty where there is no reason.

    Parameters
    ----------
    fit_tree : xarray.DataTree
        A posterior with the groups posterior and cells.

    Returns
    -------
    tuple of str
        Sentences with the way out. Draws of a model of the caller's own are not judged.
    """
    if is_from_posterior(fit_tree):
        return ()
    family = get_fitted_family(fit_tree)
    cell_statistics = select_model_statistics(get_fitted_cells(fit_tree), get_fitted_model(fit_tree))
    return (*family.list_misfits(cell_statistics, select_parameters(fit_tree)), *_describe_unsettled_means(fit_tree))


def _describe_unsettled_means(fit_tree: xr.DataTree) -> list[str]:
    """Describe the averages and segments whose effect has a posterior mean that a few draws decide."""
    if get_fitted_family(fit_tree).link != "log":  # other links have bounded means, or draws with normal tails
        return []
    effect_draws = compute_effects(fit_tree, "absolute")
    segment_shares = compute_population_shares(get_fitted_cells(fit_tree))
    named_draws = [("the average effect", average_over_segments(effect_draws, segment_shares))]
    named_draws += [
        (f"the effect in {label}", effect_draws.isel(segment=index))
        for index, label in enumerate(map(str, effect_draws["segment"].values))
    ]
    unsettled_names = [
        f"{name} of {arm}"
        for name, draws in named_draws
        for arm, is_unsettled in zip(effect_draws["arm"].values, is_mean_unsettled(draws).values, strict=True)
        if is_unsettled
    ]
    if not unsettled_names:
        return []
    return [
        f"The mean of the draws of {list_first(unsettled_names)} lies outside of their own central 95 %: a few extreme "
        "draws decide it. Read the interval or the relative scale, or state narrower priors."
    ]
