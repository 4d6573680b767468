"""`load`: read a saved fit back from its file, or a saved analysis from its folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from bayes_hte._support.validation import check_path
from bayes_hte.analysis.netcdf import read_tree
from bayes_hte.analysis.result import Fit
from bayes_hte.errors import DataError, OutputError
from bayes_hte.spec.fit_tree import check_fit_tree

if TYPE_CHECKING:
    from bayes_hte.analysis.plans.analysis import Analysis


def load(path: str | Path) -> "Fit | Analysis":
    """Read a saved fit, or an analysis of several; runs no code from the file and needs no PyMC.

    Parameters
    ----------
    path : str or Path
        A file that `Fit.save` or the command line wrote; or a folder that `Analysis.save` did.

    Returns
    -------
    Fit or Analysis

    Raises
    ------
    OutputError
        If the file is missing, damaged, or was not written by `Fit.save`.
    """
    fit_path = check_path(path, "the saved fit")
    if fit_path.is_dir():
        # An analysis is made of fits, which this file reads.
        from bayes_hte.analysis.plans.write_analysis import load_analysis

        return load_analysis(fit_path)
    return load_fit(fit_path)


def load_fit(fit_path: Path) -> Fit:
    """Read one saved fit.

    Raises
    ------
    OutputError
        If the file is missing, damaged, or was not written by `Fit.save`.
    """
    if not fit_path.is_file():
        raise OutputError(f"no file {fit_path}")
    try:
        fit_tree = read_tree(fit_path)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"{fit_path} cannot be read as a saved fit: {error}") from error
    # A file of another kind may hold groups of the same names: it is refused here, not guessed at later.
    try:
        check_fit_tree(fit_tree, str(fit_path))
    except DataError as error:
        raise OutputError(str(error)) from error
    return Fit(fit_tree)
