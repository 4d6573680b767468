"""`prior_predictive` and `plot_prior`: what a model's priors say about data and effects before any are fitted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayes_hte._support.validation import check_seed, describe_value, to_int
from bayes_hte.analysis.result import Fit
from bayes_hte.criticism.arviz_groups import draw_prior_groups
from bayes_hte.errors import ArgumentError
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Model, read_model
from bayes_hte.spec.cell_table import EffectScale
from bayes_hte.spec.fit_tree import FitRecord, build_fit_tree

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


def prior_predictive(cells: xr.Dataset, model: Model | str | Path, *, draws: int = 1000, seed: int = 1) -> xr.DataTree:
    """Draw parameters and data that the prior of a model holds possible, for the sizes of these cells.

    Parameters
    ----------
    cells : xarray.Dataset
        Their sizes are used; under ``units = "control_sd"`` the control's spread as well, never an effect.
    model : Model, str or Path
        What is believed; a name or path is read with `read_model`.
    draws : int
        How many.
    seed : int
        The only source of randomness.

    Returns
    -------
    xarray.DataTree
        Groups prior, prior_predictive, observed_data and cells: ArviZ's predictive checks work on it.

    Raises
    ------
    ArgumentError
        If draws or seed are no whole numbers.
    DataError, ModelError
        If the model does not fit the cells.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> tree = hte.prior_predictive(hte.example_cells(), "conversion", draws=500)
    >>> dict(tree["prior"]["effect"].sizes)
    {'chain': 1, 'draw': 500, 'segment': 6, 'arm': 1}
    """
    model = model if isinstance(model, Model) else read_model(model)
    problem = build_problem(cells, model)
    draw_count, seed = to_int(draws), check_seed(seed)
    if draw_count is None or draw_count < 1:
        raise ArgumentError(f"draws={describe_value(draws)} is no number of draws; give a whole number, 1 or more")
    prior_groups = draw_prior_groups(problem, draw_count, np.random.default_rng(seed))
    # The model as stated: `Fit` reads it from here, as from the tree of a fit.
    return build_fit_tree({**prior_groups, "cells": cells}, FitRecord(model=model, seed=seed))


def plot_prior(
    cells: xr.Dataset,
    model: Model | str | Path,
    scale: EffectScale = "absolute",
    *,
    draws: int = 4000,
    seed: int = 1,
    **options: Any,
) -> "Figure | SubFigure":
    """Draw what the prior allows a segment's effect to be, with the raw estimates as ticks.

    Parameters
    ----------
    cells, model, draws, seed
        As for `prior_predictive`.
    scale : {"absolute", "relative", "link"}
        Of the effects.
    **options
        Those of `bayes_hte.plot.prior`.

    Returns
    -------
    Figure or SubFigure

    Raises
    ------
    DataError, ModelError
        If the model does not fit the cells, or the scale not the model.
    """
    from bayes_hte.plot import from_fit

    # No posterior is in this tree; a `Fit` of it serves only to fill in scale and interval as for a real one.
    prior_tree = prior_predictive(cells, model, draws=draws, seed=seed)
    return from_fit.plot_prior_and_posterior(prior_tree, Fit(prior_tree).question(scale), **options)
