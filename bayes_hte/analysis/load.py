"""`load`: read a saved fit back from its file."""

from pathlib import Path

from bayes_hte._support.validation import check_path
from bayes_hte.analysis.netcdf import read_tree
from bayes_hte.analysis.result import Fit
from bayes_hte.errors import DataError, OutputError
from bayes_hte.spec.fit_tree import check_fit_tree


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
    fit_path = check_path(path, "the saved fit")
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
