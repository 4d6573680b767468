"""Go through draws in blocks: of many segments they are gigabytes, and what is computed on the way need not be kept.

A block fits the processor's cache and the memory that is at hand. Whole arrays of 4,000 draws of 5,000 segments take
three times as long, most of it to get memory for results that are summed right after.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.model.long_form import ParameterDraws

SAMPLE_DIMS: Final = ("chain", "draw")
VALUES_PER_BLOCK: Final = 1 << 20
"""Eight megabytes: below what the C library gets from, and gives back to, the system each time."""


def split_draws(parameter_draws: ParameterDraws) -> Iterator[tuple[slice, ParameterDraws]]:
    """Split the draws of all parameters into blocks of consecutive draws of every chain, without copying.

    Yields
    ------
    slice
        Positions along the dim draw.
    mapping
        The parameters at these draws; one without a dim draw stays whole.
    """
    effect = parameter_draws["effect"]
    # All chains at once: a block of one chain would be as many calls for the same numbers.
    values_per_draw = max(effect.size // max(effect.sizes["draw"], 1), 1)
    draws_per_block = max(VALUES_PER_BLOCK // values_per_draw, 1)
    for start in range(0, effect.sizes["draw"], draws_per_block):
        block_slice = slice(start, start + draws_per_block)
        yield (
            block_slice,
            {
                name: draws.isel(draw=block_slice) if "draw" in draws.dims else draws
                for name, draws in parameter_draws.items()
            },
        )


def compute_by_draw(
    compute_block: Callable[[ParameterDraws], xr.DataArray], draws_by_name: ParameterDraws
) -> xr.DataArray:
    """Compute what each draw gives on its own, such as a sum over segments, a block of draws at a time.

    Parameters
    ----------
    compute_block : callable
        From arrays like those given, with fewer draws, to their results, which have a dim draw.
    draws_by_name : mapping
        With the largest one as ``effect``: it decides how many draws a block has.
    """
    block_results = [compute_block(block_draws) for _, block_draws in split_draws(draws_by_name)]
    return block_results[0] if len(block_results) == 1 else xr.concat(block_results, "draw")


def summarise_rows(
    draws: xr.DataArray, summarise_block: Callable[[NDArray[np.float64]], list[NDArray[np.float64]]]
) -> list[xr.DataArray]:
    """Summarise the draws of every element, some elements at a time.

    Parameters
    ----------
    draws : xarray.DataArray
        Dims chain, draw and any others.
    summarise_block : callable
        From an array of elements by draws, contiguous and its own, to one number for each element and statistic.

    Returns
    -------
    list of xarray.DataArray
        One for each statistic; dims are the others.
    """
    element_dims = [dim for dim in draws.dims if dim not in SAMPLE_DIMS]
    # The longest dim goes first: it is what blocks are cut from.
    ordered_dims = sorted(element_dims, key=lambda dim: -draws.sizes[dim])
    element_major = draws.transpose(*ordered_dims, *SAMPLE_DIMS).values
    draw_count = draws.sizes["chain"] * draws.sizes["draw"]
    if not ordered_dims:
        element_major = element_major[np.newaxis]
    values_per_slice = max(element_major[:1].size, 1)
    slices_per_block = max(VALUES_PER_BLOCK // values_per_slice, 1)
    # np.array copies, and so turns strided columns of draws into rows that fit the cache.
    block_statistics = [
        summarise_block(np.array(element_major[start : start + slices_per_block], dtype=float).reshape(-1, draw_count))
        for start in range(0, len(element_major), slices_per_block)
    ]
    # Coordinates of the elements come from the draws themselves.
    ordered_template = draws.isel(chain=0, draw=0, drop=True).transpose(*ordered_dims)
    return [
        ordered_template.copy(
            data=np.concatenate(blocks).reshape([draws.sizes[dim] for dim in ordered_dims])
        ).transpose(*element_dims)
        for blocks in zip(*block_statistics, strict=True)
    ]
