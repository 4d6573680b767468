"""Say how precise a test was by itself, and how precise one of another size would be."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from bayes_hte._support.validation import check_number, describe_value, list_mapping_items
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.estimands.effects import compute_effects, estimate_without_pooling
from bayes_hte.estimands.pooling_factor import average_pooling
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM, SEGMENT, EffectScale
from bayes_hte.spec.fit_tree import get_fitted_cells

SecondTestSize = float | Mapping[str, float] | pd.Series
"""Units of the second test: in all, or of each segment by its label."""


def measure_standard_errors(fit_tree: xr.DataTree, scale: EffectScale) -> xr.DataArray:
    """Measure the standard error of each segment's own estimate on a scale; dims (segment, arm), infinite untested.

    Where the estimate alone has none (no event in an arm, a mean of 0) it is the model's, at its posterior.
    """
    raw_se = estimate_without_pooling(fit_tree, scale)["raw_se"].transpose(SEGMENT, ARM)
    is_usable = np.isfinite(raw_se) & (raw_se > 0)
    if bool(is_usable.all()):
        return raw_se
    link_draws, scale_draws = compute_effects(fit_tree, "link"), compute_effects(fit_tree, scale)
    # Δ scale / Δ link, as the posterior moves: the delta method around the posterior mean
    slope = scale_draws.std(("chain", "draw")) / link_draws.std(("chain", "draw"))
    model_se = average_pooling(fit_tree)["sampling_variance"] ** 0.5 * slope
    return raw_se.where(is_usable, model_se.transpose(SEGMENT, ARM))


def count_units(fit_tree: xr.DataTree) -> xr.DataArray:
    """Count the units behind each effect, those of its arm and of the control; dims (segment, arm).

    Raises
    ------
    DataError
        If nobody has said how large the cells are.
    """
    cells = get_fitted_cells(fit_tree)
    sizes = cells["n"].astype(float) if "n" in cells else cell_table.get_cell_sizes(cells)
    if sizes is None:
        raise DataError(
            "how many units these estimates come from is not known, so no number of further units can be given: add "
            "n= to the cells"
        )
    treated_sizes = sizes.sel({ARM: cell_table.list_treated_arms(cells)}).transpose(SEGMENT, ARM)
    if not cells.attrs["control"]:
        return treated_sizes
    return treated_sizes + sizes.sel({ARM: cells.attrs["control"]}, drop=True)


def compute_size_ratios(fit_tree: xr.DataTree, n: SecondTestSize | None) -> xr.DataArray:
    """Compute how many times as large as this test the second one is in each segment; dims (segment,).

    Parameters
    ----------
    fit_tree : xarray.DataTree
    n : number, mapping or pandas.Series, optional
        Units of the second test, divided among segments as in this one; or those of each segment by its label. By
        default as many as here.

    Raises
    ------
    ArgumentError
        If it is no number above 0, or does not name every segment.
    DataError
        If nobody has said how large the cells are.
    """
    cells = get_fitted_cells(fit_tree)
    labels = [str(label) for label in cells[SEGMENT].values]
    if n is None:
        return xr.DataArray(np.ones(len(labels)), dims=SEGMENT, coords={SEGMENT: labels})
    sizes = cells["n"].astype(float) if "n" in cells else cell_table.get_cell_sizes(cells)
    if sizes is None:
        raise DataError("how large this test was is not known, so n of the second says nothing: leave n out, or add n=")
    segment_sizes = sizes.sum(ARM).values
    if isinstance(n, Mapping | pd.Series):
        ratios = _read_segment_sizes(n, labels) / np.maximum(segment_sizes, 1e-300)
    else:
        ratios = np.full(len(labels), check_number(n, "n, the units of the second test") / segment_sizes.sum())
    if not (np.isfinite(ratios) & (ratios > 0)).all():
        raise ArgumentError(
            f"n is {describe_value(n)}, which is no number of units; give a number above 0, or one for each segment"
        )
    return xr.DataArray(ratios, dims=SEGMENT, coords={SEGMENT: labels})


def _read_segment_sizes(n: Mapping[str, float] | pd.Series, labels: list[str]) -> np.ndarray:
    """Read the units of every segment, in their order."""
    size_by_label = {
        format_level(label): check_number(size, f"n of {label!r}")
        for label, size in list_mapping_items("n", n, str(dict.fromkeys(labels[:2], 1000)))
    }
    wrong_labels = sorted(set(labels) ^ set(size_by_label))
    if wrong_labels:
        raise ArgumentError(f"n must have one number for each of the segments {labels[:5]}; check {wrong_labels[:5]}")
    return np.array([size_by_label[label] for label in labels])
