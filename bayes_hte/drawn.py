"""What an engine hands over: draws with named dims, what certifies them, and probabilities of signs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.families import two_part
from bayes_hte.model import Problem
from bayes_hte.structure import dims_of

CHAINS = 4
"""R-hat compares chains; four is what Vehtari et al. (2021) recommend."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Three groups of a posterior's DataTree.

    Attributes
    ----------
    posterior : xarray.Dataset
        dims (chain, draw, …).
    sample_stats : xarray.Dataset
        What the sampler says of itself; of the fast engine its certificate, all scalars.
    sign : xarray.Dataset or None
        p_positive and p_positive_mcse, dims (segment, arm), where they are known better than by counting draws.
    """

    posterior: xr.Dataset
    sample_stats: xr.Dataset
    sign: xr.Dataset | None = None

    @property
    def finite(self) -> bool:
        """Whether all draws and probabilities are numbers."""
        groups = [self.posterior] + ([] if self.sign is None else [self.sign])
        return all(bool(np.isfinite(values).all()) for group in groups for values in group.data_vars.values())

    @classmethod
    def of(
        cls,
        task: Problem,
        draws: Mapping[str, NDArray[np.float64]],
        certificate: Mapping[str, float],
        sign: Mapping[str, NDArray[np.float64]],
    ) -> "Drawn":
        """Name the dims of plain arrays whose first axis counts draws."""
        per_chain = len(next(iter(draws.values()))) // CHAINS
        leading = {"chain": np.arange(CHAINS), "draw": np.arange(per_chain)}

        dims_by_name = dims_of(task.model)

        def laid_out(name: str, values: NDArray[np.float64]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
            dims = dims_by_name.get(name, ())
            shape = (CHAINS, per_chain, *(len(task.coords[dim]) for dim in dims))
            return ("chain", "draw", *dims), values.reshape(shape)

        named = {name: laid_out(name, values) for name, values in draws.items()}
        used = {dim for dims, _ in named.values() for dim in dims}
        coords = {dim: labels for dim, labels in task.coords.items() if dim in used}
        stats = {name: ((), value) for name, value in certificate.items()}
        posterior = headlined(task, xr.Dataset(named, coords={**leading, **coords}))
        signs = {name: (("segment", "arm"), values) for name, values in sign.items()}
        both = {dim: task.coords[dim] for dim in ("segment", "arm")}
        return cls(
            posterior,
            xr.Dataset(stats),
            xr.Dataset(signs, coords=both) if signs else None,
        )


def headlined(task: Problem, posterior: xr.Dataset) -> xr.Dataset:
    """With effect and baseline of the mean outcome, for a family that is made of two parts."""
    if task.model.amount is None:
        return posterior
    found = two_part.headline({str(name): values for name, values in posterior.data_vars.items()})
    return posterior.assign({name: values.reset_coords(drop=True) for name, values in found.items()})
