"""Draws of an engine: with named dims, what certifies them, and probabilities of signs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.model.parameters import collect_variable_dims
from bayes_hte.model.problem import Problem

CHAIN_COUNT = 4
"""R-hat compares chains; four is what Vehtari et al. (2021) recommend."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws of one engine, as three groups of a posterior's DataTree.

    Attributes
    ----------
    posterior : xarray.Dataset
        dims (chain, draw, …).
    sample_stats : xarray.Dataset
        Statistics of the sampler; of the fast engine its certificate, all scalars.
    sign_probabilities : xarray.Dataset or None
        p_positive and p_positive_mcse, dims (segment, arm), where they are known better than by counting draws.
    """

    posterior: xr.Dataset
    sample_stats: xr.Dataset
    sign_probabilities: xr.Dataset | None = None

    @property
    def is_finite(self) -> bool:
        """Whether all draws and probabilities are numbers."""
        checked_groups = [self.posterior] + ([] if self.sign_probabilities is None else [self.sign_probabilities])
        return all(
            bool(np.isfinite(values).all())
            for checked_group in checked_groups
            for values in checked_group.data_vars.values()
        )

    @classmethod
    def from_arrays(
        cls,
        problem: Problem,
        draw_arrays: Mapping[str, NDArray[np.float64]],
        certificate: Mapping[str, float],
        sign_arrays: Mapping[str, NDArray[np.float64]],
    ) -> "Draws":
        """Name the dims of plain arrays whose first axis counts the draws of all chains."""
        # Split into chains, for diagnostics compare chains.
        draws_per_chain = len(next(iter(draw_arrays.values()))) // CHAIN_COUNT
        sample_coords = {"chain": np.arange(CHAIN_COUNT), "draw": np.arange(draws_per_chain)}

        dims_by_name = collect_variable_dims(problem.model)

        def split_chains(name: str, values: NDArray[np.float64]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
            dims = dims_by_name.get(name, ())
            shape = (CHAIN_COUNT, draws_per_chain, *(len(problem.coords[dim]) for dim in dims))
            return ("chain", "draw", *dims), values.reshape(shape)

        named_variables = {name: split_chains(name, values) for name, values in draw_arrays.items()}
        used_dims = {dim for dims, _ in named_variables.values() for dim in dims}
        coords = {dim: labels for dim, labels in problem.coords.items() if dim in used_dims}
        certificate_variables = {name: ((), value) for name, value in certificate.items()}
        posterior = add_mean_outcome(problem, xr.Dataset(named_variables, coords={**sample_coords, **coords}))
        sign_variables = {name: (("segment", "arm"), values) for name, values in sign_arrays.items()}
        segment_arm_coords = {dim: problem.coords[dim] for dim in ("segment", "arm")}
        return cls(
            posterior,
            xr.Dataset(certificate_variables),
            xr.Dataset(sign_variables, coords=segment_arm_coords) if sign_variables else None,
        )


def add_mean_outcome(problem: Problem, posterior: xr.Dataset) -> xr.Dataset:
    """Add effect and baseline of the mean outcome, where an outcome is made of parts."""
    if problem.family.combine_parts is None:
        return posterior
    mean_outcome = problem.family.combine_parts({str(name): values for name, values in posterior.data_vars.items()})
    return posterior.assign({name: values.reset_coords(drop=True) for name, values in mean_outcome.items()})
