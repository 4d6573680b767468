"""Sample the PyMC model of a problem with NUTS (nutpie)."""

import os
from dataclasses import dataclass
from typing import Any

import xarray as xr

from bayes_hte.errors import FitError
from bayes_hte.inference.announcements import announce, describe_duration
from bayes_hte.inference.draws import CHAIN_COUNT, Draws
from bayes_hte.inference.nuts import compile_cache
from bayes_hte.model.problem import Problem
from bayes_hte.model.pymc.build import build_pymc_model


@dataclass(frozen=True, slots=True)
class NutsSettings:
    """How NUTS is tuned.

    Attributes
    ----------
    target_accept : float
        Acceptance rate that step sizes are tuned for: the higher, the smaller the steps.
    tuning_steps : int
        Of each chain, before its draws.
    typical_gradients : int
        Evaluations of the gradient that a draw usually takes, from which people are told how long it will be.
    """

    target_accept: float
    tuning_steps: int
    typical_gradients: int = 30


def sample_with_nuts(problem: Problem, *, draws: int, seed: int, settings: NutsSettings, progress: bool) -> Draws:
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

    # ⌈draws / chains⌉: at least as many draws as were asked for
    draws_per_chain = -(-draws // CHAIN_COUNT)
    progress_bar = NutpieProgressBarManager(
        chains=CHAIN_COUNT, draws=draws_per_chain, progressbar="combined" if progress else False
    )
    try:
        compiled_model = compile_cache.compile_or_reuse(build_pymc_model(problem, reusable=True))
        if progress:
            announce(describe_work(problem, compiled_model, settings, draws_per_chain))
        with progress_bar, threadpool_limits(limits=1, user_api="blas"):  # chains run side by side already
            running_sampler = nutpie.sample(
                compiled_model,
                blocking=False,
                draws=draws_per_chain,
                tune=settings.tuning_steps,
                chains=CHAIN_COUNT,
                seed=seed,
                target_accept=settings.target_accept,
                save_warmup=False,
                progress_bar=False,  # the one of PyMC looks the same in terminals and notebooks
                progress_callback=progress_bar.update if progress else None,
            )
            draws_tree = _wait_for_sampler(running_sampler)
    except RuntimeError as error:
        # The first line's end says what went wrong; the rest is the way through nutpie's code.
        error_text = str(error).partition("\n")[0].rpartition("value: ")[2]
        raise FitError(f"the sampler broke down: {error_text}; look at the data with `bayes-hte check`") from error
    sample_stats = draws_tree["sample_stats"].to_dataset().drop_vars("divergence_message", errors="ignore")
    return Draws(_tidy_posterior(draws_tree["posterior"].to_dataset()), sample_stats)


def describe_work(problem: Problem, compiled_model: Any, settings: NutsSettings, draws_per_chain: int) -> str:
    """Describe how much there is to sample, and for about how long, from the time that one gradient takes."""
    gradient_seconds = compile_cache.time_gradient(compiled_model)
    # Chains run side by side on the cores that there are.
    chain_rounds = CHAIN_COUNT / min(CHAIN_COUNT, os.cpu_count() or 1)
    seconds = chain_rounds * (settings.tuning_steps + draws_per_chain) * settings.typical_gradients * gradient_seconds
    return (
        f"NUTS samples {compiled_model.n_dim} parameters given {problem.long_cells.sizes['cell']} cells, "
        f"{1000 * gradient_seconds:.2g} ms per gradient: {describe_duration(seconds)}."
    )


def _wait_for_sampler(running_sampler: Any) -> xr.DataTree:
    """Wait for a sampler in the background, and stop it at Ctrl-C; a panic becomes a RuntimeError."""
    # Left to itself, nutpie answers Ctrl-C with the draws that it has.
    try:
        draws_tree: xr.DataTree = running_sampler.wait()
    except KeyboardInterrupt:
        running_sampler.cancel()
        raise
    except BaseException as panic_error:
        if type(panic_error).__module__ != "pyo3_runtime":  # a panic in Rust is no Exception
            raise
        raise RuntimeError(panic_error) from panic_error
    return draws_tree


def _tidy_posterior(posterior: xr.Dataset) -> xr.Dataset:
    """Keep variables that have a meaning outside the sampler, with plain coordinates and our order of dims."""
    # Offsets are in coordinates of the sampler's own (`informed`), and a half is a correlation by another name.
    kept_names = [
        name for name in map(str, posterior.data_vars) if not name.endswith(("__", "_offset", "_score", "_half"))
    ]
    text_coords = {dim: posterior[dim].astype(str) for dim in ("segment", "arm", "variant") if dim in posterior.coords}
    return (
        posterior[kept_names]
        .assign_coords(text_coords)
        .transpose("chain", "draw", "segment", "arm", ..., missing_dims="ignore")
    )
