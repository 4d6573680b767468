"""Lay the densities of several problems side by side: rows of one array belong to different problems.

What differs between points, (segment, row), may as well differ between problems: data, references and sites of each
are repeated for its rows.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bayes_hte.inference.exact.latent.density import LatentDensity
from bayes_hte.inference.exact.latent.gaussian import Sites
from bayes_hte.inference.exact.latent.likelihood import CellData
from bayes_hte.model.normal_scores import Array


def join_densities(densities: Sequence[LatentDensity], counts: Sequence[int]) -> LatentDensity:
    """Join the densities of problems with the same structure.

    Parameters
    ----------
    densities : sequence of LatentDensity
        With as many steps each.
    counts : sequence of int
        Rows of each.

    Returns
    -------
    LatentDensity
        For `approximate_rows` and `settled_rows`, whose rows are those of the first problem, then of the second, …
    """
    first, cell_data = densities[0], [density.cells for density in densities]
    cell_range = range(len(first.cells.arms))
    repeats = np.asarray(counts)

    def spread(columns: list[Array]) -> Array:
        # (segment,) or (segment, 1) of every problem -> (segment, row)
        return np.repeat(np.stack([np.ravel(column) for column in columns], axis=1), repeats, axis=1)

    # Likelihoods take (row, segment): a view of (segment, row), whose rows are contiguous.
    arms = tuple(
        {name: spread([cells.arms[j][name] for cells in cell_data]).T for name in first.cells.arms[j]}
        for j in cell_range
    )
    references = tuple(spread([cells.references[j] for cells in cell_data]) for j in cell_range)
    sites = Sites(
        tuple(spread([density.sites.linear[j] for density in densities]) for j in cell_range),
        tuple(spread([density.sites.precision[j] for density in densities]) for j in cell_range),
    )
    return replace(
        first,
        cells=CellData(first.cells.likelihood, arms, references),
        sites=sites,
        row_counts=tuple((density.problem, count) for density, count in zip(densities, counts, strict=True)),
    )


def split_density(joint: LatentDensity, originals: Sequence[LatentDensity]) -> list[LatentDensity]:
    """Split a joint density with one row for each problem into the densities of the problems."""
    return [
        replace(
            original,
            cells=replace(
                original.cells, references=tuple(each[:, row : row + 1].copy() for each in joint.cells.references)
            ),
            sites=Sites(
                tuple(each[:, row : row + 1].copy() for each in joint.sites.linear),
                tuple(each[:, row : row + 1].copy() for each in joint.sites.precision),
            ),
        )
        for row, original in enumerate(originals)
    ]


def is_joinable(cells: CellData) -> bool:
    """Tell whether data are one number per cell, so that those of several problems can stand in one array."""
    return all(np.ndim(values) == 1 for arm in cells.arms for values in arm.values())
