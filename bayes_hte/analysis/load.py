"""`load`: read a saved fit back from its file."""

from pathlib import Path

from bayes_hte._support.validation import check_path
from bayes_hte.analysis.netcdf import read_tree
from bayes_hte.analysis.result import FIT_FORMAT, Fit
from bayes_hte.errors import DataError, OutputError
from bayes_hte.estimands.effects import get_fitted_cells
from bayes_hte.spec import cell_table


def load(path: str | Path) -> Fit:
    """Read a saved fit; runs no code from the file and needs no PyMC.

    Parameters
    ----------
    path : str or Path
        A file that `Fit.save` or the command line wrote.

    Returns
    -------
    Fit

    Raises
    ------
    OutputError
        If the file is missing, damaged, or was not written by `Fit.save`.
    """
    fit_path = check_path(path, "the saved fit", OutputError)
    if not fit_path.is_file():
        raise OutputError(f"no file {fit_path}")
    try:
        fit_tree = read_tree(fit_path)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{fit_path} cannot be read as a saved fit: {error}") from error
    if fit_tree.attrs.get("format") != FIT_FORMAT:
        raise OutputError(
            f"{fit_path} is no saved fit of this version (format {fit_tree.attrs.get('format')!r}, not {FIT_FORMAT!r})"
        )
    # All that tables, figures and the report need; every other group is computed from these.
    missing_parts = [group for group in ("posterior", "sample_stats", "cells") if group not in fit_tree.children]
    missing_parts += [name for name in ("model", "diagnosis", "seed") if name not in fit_tree.attrs]
    if missing_parts:
        raise OutputError(f"{fit_path} is damaged: it lacks {', '.join(missing_parts)}; save the fit again")
    # A file that was edited by hand may hold cells that no reader of data would have let through.
    try:
        cell_table.check_cell_table(get_fitted_cells(fit_tree))
    except DataError as error:
        raise OutputError(f"{fit_path} is damaged: {error}") from error
    return Fit(fit_tree)
