"""Check a covariance matrix between estimates before a model trusts it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bayes_hte.errors import DataError

ROUNDING = 0.005
"""A standard error printed with three digits is off by at most half a unit in the third: 0.5 %."""

SYMMETRY = 1e-8
"""Asymmetry that inverting a matrix in float64 leaves, relative to the standard deviations."""


def checked_covariance(
    covariance: npt.ArrayLike, labels: Sequence[str], se: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """Return the covariance as a symmetric positive definite array.

    Parameters
    ----------
    covariance
        Square, rows and columns in the order of `labels`.
    labels
        The segment of each estimate.
    se
        Standard errors the diagonal must agree with, if there are any.

    Raises
    ------
    DataError
        If it is not such a matrix.
    """
    _check_order(covariance, labels)
    try:
        matrix = np.asarray(covariance, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the covariance is no matrix of numbers: {error}") from error
    size = len(labels)
    if matrix.shape != (size, size):
        raise DataError(f"the covariance has shape {matrix.shape}; {size} estimates need ({size}, {size})")
    if not np.isfinite(matrix).all():
        raise DataError(f"the covariance has {int((~np.isfinite(matrix)).sum())} entries that are not finite")
    variances = np.diag(matrix)
    if not (variances > 0).all():
        raise DataError(f"the covariance has a variance of {variances.min():g}; variances must be greater than 0")
    scale = np.sqrt(variances)
    correlation = matrix / np.outer(scale, scale)
    _check_symmetric(correlation, labels)
    smallest = float(np.linalg.eigvalsh(correlation).min())
    if smallest <= size * np.finfo(np.float64).eps:
        raise DataError(
            f"the covariance is not positive definite (smallest eigenvalue of the correlations {smallest:.3g}); "
            "some estimate is a combination of others: leave it out"
        )
    if se is not None:
        _check_agrees(scale, se, labels)
    return np.asarray((matrix + matrix.T) / 2)


def _check_order(covariance: object, labels: Sequence[str]) -> None:
    """A data frame knows its order: one that differs from the table's would give every estimate a wrong variance."""
    for axis in ("index", "columns"):
        names = getattr(covariance, axis, None)
        if names is None or callable(names):
            continue
        found = [str(name) for name in names]
        if found != list(labels) and sorted(found) == sorted(labels):
            raise DataError(f"the covariance's {axis} have another order than the table's rows; reorder one of them")


def _check_symmetric(correlation: npt.NDArray[np.float64], labels: Sequence[str]) -> None:
    gap = np.abs(correlation - correlation.T)
    if gap.max() > SYMMETRY:
        i, j = divmod(int(gap.argmax()), len(labels))
        raise DataError(
            f"the covariance is not symmetric: {labels[i]!r} with {labels[j]!r} differs from the reverse; "
            "check that it was read whole"
        )


def _check_agrees(scale: npt.NDArray[np.float64], se: npt.NDArray[np.float64], labels: Sequence[str]) -> None:
    far = ~(np.abs(scale - se) <= ROUNDING * scale)
    if far.any():
        i = int(far.argmax())
        raise DataError(
            f"the standard error of {labels[i]!r} is {se[i]:g}, but its variance in the covariance gives {scale[i]:g}; "
            "check the order of the rows, or leave out se"
        )
