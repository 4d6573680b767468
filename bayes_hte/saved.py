"""How a saved fit is read back."""

from pathlib import Path

from bayes_hte import schema
from bayes_hte.asked import path_of
from bayes_hte.effects import cells_of
from bayes_hte.errors import DataError, OutputError
from bayes_hte.netcdf import read_tree
from bayes_hte.result import FORMAT, Fit


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
    source = path_of(path, "the saved fit", OutputError)
    if not source.is_file():
        raise OutputError(f"no file {source}")
    try:
        tree = read_tree(source)
    except (OSError, ValueError, KeyError) as problem:
        raise OutputError(f"{source} cannot be read as a saved fit: {problem}") from problem
    if tree.attrs.get("format") != FORMAT:
        raise OutputError(
            f"{source} is no saved fit of this version (format {tree.attrs.get('format')!r}, not {FORMAT!r})"
        )
    lacking = [group for group in ("posterior", "sample_stats", "cells") if group not in tree.children]
    lacking += [name for name in ("model", "diagnosis", "seed") if name not in tree.attrs]
    if lacking:
        raise OutputError(f"{source} is damaged: it lacks {', '.join(lacking)}; save the fit again")
    try:
        schema.check(cells_of(tree))
    except DataError as problem:
        raise OutputError(f"{source} is damaged: {problem}") from problem
    return Fit(tree)
