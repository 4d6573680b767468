"""What an engine hands over: draws with named dims and what it knows of them, or a refusal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.errors import FitError
from bayes_hte.inference.certificate import Certificate
from bayes_hte.model.parameters import collect_variable_dims
from bayes_hte.model.problem import Problem
from bayes_hte.spec.fit_tree import FitRecord, build_fit_tree

CHAIN_COUNT = 4
"""R-hat compares chains; four is what Vehtari et al. (2021) recommend."""


class EngineRefusalError(FitError):
    """An engine found out, while it drew, that it cannot vouch for the result.

    Attributes
    ----------
    reason : str
        A clause without a full stop; it follows "the … engine cannot solve this:".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Draws:
    """Draws of one engine, as three groups of a posterior's DataTree, and what the engine says of them.

    Attributes
    ----------
    posterior : xarray.Dataset
        dims (chain, draw, …).
    sample_stats : xarray.Dataset
        Statistics of the sampler. Where they hold a `Certificate`, it is what the draws are judged by; else the
        draws count as chains, which R-hat and effective sample sizes judge.
    sign_probabilities : xarray.Dataset or None
        p_positive and p_positive_mcse, dims (segment, arm), where they are known better than by counting draws.
    description : str
        How they were drawn: the beginning of a sentence, without a full stop.
    library : str
        What the engine samples with, where it is not its own code.
    retry : callable or None
        Draws once more, with more care, where these do not pass their diagnosis.
    """

    posterior: xr.Dataset
    sample_stats: xr.Dataset
    sign_probabilities: xr.Dataset | None = None
    description: str = ""
    library: str = ""
    retry: Callable[[], "Draws"] | None = None

    def require_certificate(self) -> Certificate:
        """Read what vouches for draws that are no chains.

        Raises
        ------
        LookupError
            If the engine left none.
        """
        certificate = Certificate.from_sample_stats(self.sample_stats)
        if certificate is None:
            raise LookupError(f"the statistics {sorted(map(str, self.sample_stats))} hold no certificate")
        return certificate

    @property
    def is_finite(self) -> bool:
        """Whether all draws and probabilities are numbers."""
        checked_groups = [self.posterior] + ([] if self.sign_probabilities is None else [self.sign_probabilities])
        return all(
            bool(np.isfinite(values).all())
            for checked_group in checked_groups
            for values in checked_group.data_vars.values()
        )

    def to_fit_tree(self, cells: xr.Dataset, record: FitRecord) -> xr.DataTree:
        """Build the tree of a fit from these draws, the cells that they are given, and what is known of both."""
        groups = {
            "posterior": self.posterior,
            "sample_stats": self.sample_stats,
            "cells": cells,
            "sign": self.sign_probabilities,
        }
        return build_fit_tree(groups, record)

    @classmethod
    def from_arrays(
        cls,
        problem: Problem,
        draw_arrays: Mapping[str, NDArray[np.float64]],
        statistics: Mapping[str, float],
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
        statistic_variables = {name: ((), value) for name, value in statistics.items()}
        posterior = add_mean_outcome(problem, xr.Dataset(named_variables, coords={**sample_coords, **coords}))
        sign_variables = {name: (("segment", "arm"), values) for name, values in sign_arrays.items()}
        segment_arm_coords = {dim: problem.coords[dim] for dim in ("segment", "arm")}
        return cls(
            posterior,
            xr.Dataset(statistic_variables),
            xr.Dataset(sign_variables, coords=segment_arm_coords) if sign_variables else None,
        )


def add_mean_outcome(problem: Problem, posterior: xr.Dataset) -> xr.Dataset:
    """Add effect and baseline of the mean outcome, where an outcome is made of parts."""
    if problem.family.combine_parts is None:
        return posterior
    mean_outcome = problem.family.combine_parts({str(name): values for name, values in posterior.data_vars.items()})
    return posterior.assign({name: values.reset_coords(drop=True) for name, values in mean_outcome.items()})
