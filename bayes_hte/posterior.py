"""From a problem to draws by NUTS, and from draws to the core of a result: one DataTree.

posterior, sample_stats   as the engine hands them over
sign                      P(effect > 0) where the engine knows it better than by counting draws
cells                     the cell table itself, so that a saved fit needs nothing else
"""

import platform
from functools import cache
from importlib.metadata import version
from typing import Any

import xarray as xr

from bayes_hte import compiled, schema
from bayes_hte.drawn import CHAINS, Drawn
from bayes_hte.errors import FitError
from bayes_hte.model import Problem, build


def sample(task: Problem, *, draws: int, seed: int, target_accept: float, tune: int, progress: bool) -> Drawn:
    """Run NUTS (nutpie) on the PyMC model, compiled now or for an earlier problem of the same structure.

    Draws do not depend on what was fitted before.

    Raises
    ------
    FitError
        If the sampler cannot start or breaks down.
    """
    import nutpie
    from pymc.progress_bar import NutpieProgressBarManager
    from threadpoolctl import threadpool_limits

    per_chain = -(-draws // CHAINS)
    bar = NutpieProgressBarManager(chains=CHAINS, draws=per_chain, progressbar="combined" if progress else False)
    try:
        machine = compiled.machine(build(task, reusable=True))
        with bar, threadpool_limits(limits=1, user_api="blas"):  # chains run side by side already
            running = nutpie.sample(
                machine,
                blocking=False,
                draws=per_chain,
                tune=tune,
                chains=CHAINS,
                seed=seed,
                target_accept=target_accept,
                save_warmup=False,
                progress_bar=False,  # the one of PyMC looks the same in terminals and notebooks
                progress_callback=bar.update if progress else None,
            )
            tree = _finished(running)
    except RuntimeError as problem:
        said = str(problem).partition("\n")[0].rpartition("value: ")[2]  # the rest is the way through nutpie's code
        raise FitError(f"the sampler broke down: {said}; look at the data with `bayes-hte check`") from problem
    stats = tree["sample_stats"].to_dataset().drop_vars("divergence_message", errors="ignore")
    return Drawn(_tidy(tree["posterior"].to_dataset()), stats)


def _finished(running: Any) -> xr.DataTree:
    """What a sampler in the background answers; left to itself, nutpie answers Ctrl-C with the draws it has."""
    try:
        tree: xr.DataTree = running.wait()
    except KeyboardInterrupt:
        running.cancel()
        raise
    except BaseException as problem:
        if type(problem).__module__ != "pyo3_runtime":  # a panic in Rust is no Exception
            raise
        raise RuntimeError(problem) from problem
    return tree


def _tidy(posterior: xr.Dataset) -> xr.Dataset:
    """Plain coordinates, and only what has a meaning outside the sampler."""
    # Offsets are in coordinates of the sampler's own (`informed`), and a half is a correlation by another name.
    kept = [name for name in map(str, posterior.data_vars) if not name.endswith(("__", "_offset", "_half"))]
    as_text = {dim: posterior[dim].astype(str) for dim in ("segment", "arm", "variant") if dim in posterior.coords}
    return (
        posterior[kept].assign_coords(as_text).transpose("chain", "draw", "segment", "arm", ..., missing_dims="ignore")
    )


def core(cells: xr.Dataset, drawn: Drawn) -> xr.DataTree:
    """The draws and the cells: all that tables, figures and the report need."""
    groups = {"posterior": drawn.posterior, "sample_stats": drawn.sample_stats, "cells": cells}
    if drawn.sign is not None:
        groups["sign"] = drawn.sign
    return xr.DataTree.from_dict(groups)


def provenance(task: Problem, cells: xr.Dataset, *, seed: int) -> dict[str, Any]:
    """What it takes to get the same numbers again, as netCDF attributes."""
    return {
        "seed": seed,
        "versions": versions(),
        "data_sha256": schema.fingerprint(cells),
        "resolved_model": task.model.model_dump_json(exclude_none=True),
    }


@cache
def versions() -> str:
    """The versions that matter to the numbers, as JSON."""
    packages = ("bayes_hte", "pymc", "nutpie", "arviz", "numpy", "xarray", "pandas", "scipy")
    return schema.encode([f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in packages)])
