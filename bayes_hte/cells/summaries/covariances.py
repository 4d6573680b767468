"""Read a covariance matrix between estimates, and check it before a model trusts it."""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import quote_names
from bayes_hte.cells.reading.engines import fetch_rows, name_table, open_table, pick_columns
from bayes_hte.cells.reading.labels import format_label
from bayes_hte.cells.reading.text_numbers import NumberKind
from bayes_hte.cells.summaries.small_tables import FloatValues, require_numbers
from bayes_hte.errors import DataError

SE_ROUNDING_RTOL = 0.005
"""Standard errors may be printed with three digits, and are off by half a unit in the third then: 0.5 % at most."""

SYMMETRY_TOLERANCE = 1e-8
"""Asymmetry that inverting a matrix in float64 leaves, relative to the standard deviations."""


def read_covariance(path: str | os.PathLike[str], segment_labels: Sequence[str]) -> FloatValues:
    """Read a square matrix from a file whose header, and first column if there is one more, name the segments.

    Parameters
    ----------
    path
        A .csv, .csv.gz, .tsv or .parquet file.
    segment_labels
        The segment of each estimate: the order of rows and columns of what is returned. In a file without a column of
        labels rows have the order of the header.

    Raises
    ------
    DataError
        If the file cannot be read, or its labels are not the segments.
    """
    file_name, segment_count = name_table(path), len(segment_labels)
    segment_labels = [label.strip() for label in segment_labels]  # as headers are read
    if len(set(segment_labels)) < segment_count:
        raise DataError("some segments have the same label; give the covariance as a matrix in the order of the rows")
    with open_table(path, label_columns=()) as source:
        column_names = source.frame.collect_schema().names()
    if len(column_names) not in {segment_count, segment_count + 1}:
        raise DataError(
            f"the covariance in {file_name} has {len(column_names)} columns; {segment_count} estimates need one for "
            "each, with the segment as its header, and at most one before these that names the segment of each row"
        )
    label_columns, number_columns = column_names[:-segment_count], column_names[-segment_count:]
    # Numbers are read as text, too: which column is wrong is said once the labels are known to be right.
    with open_table(path, label_columns=column_names) as source:
        file_columns = list(zip(*fetch_rows(pick_columns(source, column_names), source.table_name), strict=True))
    header_labels = [(format_label(column) or "").strip() for column in number_columns]
    row_labels = [(format_label(value) or "").strip() for value in file_columns[0]] if label_columns else header_labels
    for file_labels, label_place in (
        (header_labels, "header"),
        (row_labels, f"column {label_columns[0]!r}" if label_columns else ""),
    ):
        _check_labels(file_labels, segment_labels, label_place, file_name)
    number_kind: NumberKind | None = None if str(path).lower().endswith(".parquet") else "point"
    number_values = file_columns[len(label_columns) :]
    matrix = np.array([require_numbers("covariance", values, number_kind) for values in number_values]).T
    if len(matrix) != segment_count:
        raise DataError(
            f"the covariance in {file_name} has {len(matrix)} rows; {segment_count} estimates need {segment_count}"
        )
    # Rows and columns in the order of the segments, whatever the order of the file.
    return matrix[
        np.ix_(
            [row_labels.index(label) for label in segment_labels],
            [header_labels.index(label) for label in segment_labels],
        )
    ]


def _check_labels(file_labels: Sequence[str], segment_labels: Sequence[str], label_place: str, file_name: str) -> None:
    """Raise DataError unless a file has the labels of the segments, in whatever order."""
    if sorted(file_labels) != sorted(segment_labels):
        missing_labels = [label for label in segment_labels if label not in file_labels]
        unknown_labels = [label for label in file_labels if label not in segment_labels]
        complaint = (
            f"lacks {quote_names(missing_labels)}"
            if missing_labels
            else f"has {quote_names([*dict.fromkeys(file_labels)])}, some of them twice"
        )
        instead_text = f" and has {quote_names(unknown_labels)}" if missing_labels and unknown_labels else ""
        raise DataError(
            f"the {label_place} of the covariance in {file_name} {complaint}{instead_text}; it must name the segments "
            "as the estimates do"
        )


def check_covariance(
    covariance: npt.ArrayLike, segment_labels: Sequence[str], standard_errors: npt.NDArray[np.float64] | None
) -> npt.NDArray[np.float64]:
    """Check a covariance, and return it as a symmetric positive definite array.

    Parameters
    ----------
    covariance
        Square, rows and columns in the order of `segment_labels`.
    segment_labels
        The segment of each estimate.
    standard_errors
        Standard errors the diagonal must agree with, if there are any.

    Raises
    ------
    DataError
        If it is not such a matrix.
    """
    _check_label_order(covariance, segment_labels)
    try:
        matrix = np.asarray(covariance, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the covariance is no matrix of numbers: {error}") from error
    segment_count = len(segment_labels)
    if matrix.shape != (segment_count, segment_count):
        raise DataError(
            f"the covariance has shape {matrix.shape}; {segment_count} estimates need ({segment_count}, "
            f"{segment_count})"
        )
    if not np.isfinite(matrix).all():
        raise DataError(f"the covariance has {int((~np.isfinite(matrix)).sum())} entries that are not finite")
    variances = np.diag(matrix)
    if not (variances > 0).all():
        raise DataError(f"the covariance has a variance of {variances.min():g}; variances must be greater than 0")
    standard_deviations = np.sqrt(variances)
    # On the scale of correlations, ρ = Σ / (σ σ'), one tolerance fits estimates in any unit.
    correlations = matrix / np.outer(standard_deviations, standard_deviations)
    _check_symmetric(correlations, segment_labels)
    smallest_eigenvalue = float(np.linalg.eigvalsh(correlations).min())
    # Eigenvalues in float64 are off by about their number times ε.
    if smallest_eigenvalue <= segment_count * np.finfo(np.float64).eps:
        raise DataError(
            "the covariance is not positive definite (smallest eigenvalue of the correlations "
            f"{smallest_eigenvalue:.3g}); some estimate is a combination of others: leave it out"
        )
    if standard_errors is not None:
        _check_standard_errors(standard_deviations, standard_errors, segment_labels)
    return np.asarray((matrix + matrix.T) / 2)


def _check_label_order(covariance: object, segment_labels: Sequence[str]) -> None:
    """Raise DataError if a data frame labels its rows or columns in another order than the table's."""
    for axis_name in ("index", "columns"):
        axis_labels = getattr(covariance, axis_name, None)
        # Lists and tuples have a method `index`.
        if axis_labels is None or callable(axis_labels):
            continue
        label_texts = [str(name) for name in axis_labels]
        if label_texts != list(segment_labels) and sorted(label_texts) == sorted(segment_labels):
            raise DataError(
                f"the covariance's {axis_name} have another order than the table's rows; reorder one of them"
            )


def _check_symmetric(correlations: npt.NDArray[np.float64], segment_labels: Sequence[str]) -> None:
    """Raise DataError if a matrix is not symmetric; the message names the pair that differs most."""
    asymmetry = np.abs(correlations - correlations.T)
    if asymmetry.max() > SYMMETRY_TOLERANCE:
        row_index, column_index = divmod(int(asymmetry.argmax()), len(segment_labels))
        raise DataError(
            f"the covariance is not symmetric: {segment_labels[row_index]!r} with {segment_labels[column_index]!r} "
            "differs from the reverse; check that it was read whole"
        )


def _check_standard_errors(
    standard_deviations: npt.NDArray[np.float64],
    standard_errors: npt.NDArray[np.float64],
    segment_labels: Sequence[str],
) -> None:
    """Raise DataError if standard errors differ from the roots of the variances by more than rounding."""
    # Not the opposite comparison: NaN disagrees too.
    disagrees = ~(np.abs(standard_deviations - standard_errors) <= SE_ROUNDING_RTOL * standard_deviations)
    if disagrees.any():
        segment_index = int(disagrees.argmax())
        raise DataError(
            f"the standard error of {segment_labels[segment_index]!r} is {standard_errors[segment_index]:g}, but its "
            f"variance in the covariance gives {standard_deviations[segment_index]:g}; "
            "check the order of the rows, or leave out se"
        )
