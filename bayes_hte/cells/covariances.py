"""Read a covariance matrix between estimates, and check it before a model trusts it."""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bayes_hte.cells.labels import text_of
from bayes_hte.cells.records import Floats, floats
from bayes_hte.cells.sources import fetch, listed, name_of, opened, pick
from bayes_hte.errors import DataError

ROUNDING = 0.005
"""A standard error printed with three digits is off by at most half a unit in the third: 0.5 %."""

SYMMETRY = 1e-8
"""Asymmetry that inverting a matrix in float64 leaves, relative to the standard deviations."""


def covariance_of(path: str | os.PathLike[str], labels: Sequence[str]) -> Floats:
    """Read a square matrix from a file whose header, and first column if there is one more, name the segments.

    Parameters
    ----------
    path
        A .csv, .csv.gz, .tsv or .parquet file.
    labels
        The segment of each estimate: the order of rows and columns of what is returned. In a file without a column of
        labels rows have the order of the header.

    Raises
    ------
    DataError
        If the file cannot be read, or its labels are not the segments.
    """
    name, size = name_of(path), len(labels)
    labels = [label.strip() for label in labels]  # as headers are read
    if len(set(labels)) < size:
        raise DataError("some segments have the same label; give the covariance as a matrix in the order of the rows")
    with opened(path, labels=()) as source:
        names = source.frame.collect_schema().names()
    if len(names) not in {size, size + 1}:
        raise DataError(
            f"the covariance in {name} has {len(names)} columns; {size} estimates need one for each, with the segment "
            "as its header, and at most one before these that names the segment of each row"
        )
    own, columns = names[:-size], names[-size:]
    with opened(path, labels=own, numbers=columns) as source:
        answer = list(zip(*fetch(pick(source, names), source.name), strict=True))
    header = [(text_of(column) or "").strip() for column in columns]
    index = [(text_of(value) or "").strip() for value in answer[0]] if own else header
    for found, where in ((header, "header"), (index, f"column {own[0]!r}" if own else "")):
        _check_labels(found, labels, where, name)
    matrix = np.array([floats("covariance", values) for values in answer[len(own) :]]).T
    if len(matrix) != size:
        raise DataError(f"the covariance in {name} has {len(matrix)} rows; {size} estimates need {size}")
    return matrix[np.ix_([index.index(label) for label in labels], [header.index(label) for label in labels])]


def _check_labels(found: Sequence[str], labels: Sequence[str], where: str, name: str) -> None:
    """Raise DataError unless the same labels are there, in whatever order."""
    if sorted(found) != sorted(labels):
        missing = [label for label in labels if label not in found]
        odd = [label for label in found if label not in labels]
        what = f"lacks {listed(missing)}" if missing else f"has {listed([*dict.fromkeys(found)])}, some of them twice"
        instead = f" and has {listed(odd)}" if missing and odd else ""
        raise DataError(
            f"the {where} of the covariance in {name} {what}{instead}; it must name the segments as the estimates do"
        )


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
