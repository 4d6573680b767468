"""Choose who gets what: allocations of groups to arms under costs and a budget, and the best one in every draw.

A group is what a policy treats alike: a segment, or a level of a dimension. With the share w_g of group g in the
population, the net gain v_ga of treating one of its units with arm a, and the part x_ga of its units that get it,

    gain(x) = Σ_g w_g Σ_a x_ga v_ga,      Σ_a x_ga ≤ 1,      Σ_g w_g Σ_a x_ga ≤ budget.

Groups are divisible: the last one is treated in part, by chance, as far as the budget reaches. A unit costs the
budget the same in every arm, so each group's best arm comes first, and groups are filled in the order of its net gain:
the greedy answer to a fractional knapsack, which is the best one (Dantzig 1957, Operations Research 5:266).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.inference.draw_blocks import SAMPLE_DIMS
from bayes_hte.spec.cell_table import ARM

GROUP: Final = "group"
"""Dim of what a policy treats alike."""
MAX_BLOCK_NUMBERS: Final = 4_000_000
"""Numbers of one block of draws: 32 megabytes, of which a few copies are held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceProblem:
    """Joint draws of what treating each group is worth, and how much may be treated.

    Attributes
    ----------
    net_gain : xarray.DataArray
        Dims (chain, draw, group, arm): per treated unit, cost taken off; above 0 is better than no treatment.
    shares : xarray.DataArray
        Dims (group,): of the population; they sum to 1.
    budget : float
        The largest share of the population that may be treated.
    """

    net_gain: xr.DataArray
    shares: xr.DataArray
    budget: float = 1.0

    @property
    def expected_net_gain(self) -> xr.DataArray:
        """The posterior mean of the net gain per treated unit, dims (group, arm)."""
        expected: xr.DataArray = self.net_gain.mean(SAMPLE_DIMS)
        return expected.transpose(GROUP, ARM)

    def allocate_nobody(self) -> xr.DataArray:
        """Build the allocation in which nobody is treated, dims (group, arm)."""
        return xr.zeros_like(self.net_gain.isel(chain=0, draw=0, drop=True)).transpose(GROUP, ARM)

    def allocate_everybody(self, arm: str) -> xr.DataArray:
        """Build the allocation in which everybody gets an arm; under a budget as many as it allows, by chance."""
        allocation = self.allocate_nobody()
        allocation.loc[{ARM: arm}] = self.budget
        return allocation

    def allocate_best(self, allowed: xr.DataArray | None = None) -> xr.DataArray:
        """Allocate by posterior expected net gain: the policy that is worth most under what is known.

        Parameters
        ----------
        allowed : xarray.DataArray, optional
            Dims (group, arm): which arms a group may get; by default all.

        Returns
        -------
        xarray.DataArray
            Dims (group, arm): the part of the group's units that get the arm.
        """
        # E[gain(x)] is linear in x, so the posterior means decide, whatever depends on what.
        expected = self.expected_net_gain
        usable = expected if allowed is None else expected.where(allowed, -np.inf)
        allocation = self.allocate_nobody()
        allocation.data = fill_budget(usable.values[None], self.shares.values, self.budget)[0]
        return allocation

    def compute_gain(self, allocation: xr.DataArray) -> xr.DataArray:
        """Compute the gain of an allocation over no treatment, per unit of the population; dims (chain, draw)."""
        # gain = Σ_g w_g Σ_a x_ga v_ga
        gain: xr.DataArray = xr.dot(self.net_gain, allocation * self.shares, dim=[GROUP, ARM])
        return gain

    def compute_treated_share(self, allocation: xr.DataArray) -> float:
        """Compute the share of the population that an allocation treats."""
        return float((allocation.sum(ARM) * self.shares).sum())


@dataclass(frozen=True, slots=True, eq=False)
class BestAllocations:
    """What would be best if the effects were known, over the draws of the posterior.

    Attributes
    ----------
    gain : xarray.DataArray
        Dims (chain, draw): gain of the best allocation of each draw, which no policy can exceed.
    mean_allocation : xarray.DataArray
        Dims (group, arm): the posterior mean of the best allocation: without a budget the probability that giving the
        group this arm is best.
    agreement : xarray.DataArray
        Dims (group,): the expected part of the group's units that the best allocation and the one it is compared with
        treat alike.
    """

    gain: xr.DataArray
    mean_allocation: xr.DataArray
    agreement: xr.DataArray


def fill_budget(net_gain: NDArray[np.float64], shares: NDArray[np.float64], budget: float) -> NDArray[np.float64]:
    """Fill a budget with the groups whose best arm gains most per treated unit, sample by sample.

    Parameters
    ----------
    net_gain : array, axes (sample, group, arm)
        −inf where an arm is not allowed.
    shares : array, axis (group,)
    budget : float

    Returns
    -------
    array, axes (sample, group, arm)
        Parts of groups that get an arm. Nobody is treated at a loss, nor where it gains nothing.

    Examples
    --------
    >>> fill_budget(np.array([[[3.0], [-1.0], [2.0]]]), np.array([0.3, 0.3, 0.4]), 0.5)[0, :, 0].round(3).tolist()
    [1.0, 0.0, 0.5]
    """
    # A unit costs the budget the same in every arm: no other arm of the group can be worth its place.
    best_arms = net_gain.argmax(axis=2)
    best_gains = np.take_along_axis(net_gain, best_arms[:, :, None], axis=2)[:, :, 0]
    treated_parts = (best_gains > 0).astype(float)
    if budget < 1:
        # Stable, so that groups that gain the same are filled in the order of the data.
        filling_order = np.argsort(-best_gains, axis=1, kind="stable")
        wanted_parts = np.take_along_axis(treated_parts, filling_order, axis=1)
        wanted_shares = wanted_parts * shares[filling_order]
        # part = (budget − what those before it took) / share, between 0 and 1
        remaining_shares = np.clip(budget - (np.cumsum(wanted_shares, axis=1) - wanted_shares), 0.0, None)
        filled_parts = np.divide(
            np.minimum(wanted_shares, remaining_shares),
            shares[filling_order],
            out=wanted_parts,  # a group without anybody takes nothing of the budget
            where=wanted_shares > 0,
        )
        np.put_along_axis(treated_parts, filling_order, filled_parts, axis=1)
    allocation = np.zeros_like(net_gain)
    np.put_along_axis(allocation, best_arms[:, :, None], treated_parts[:, :, None], axis=2)
    return allocation


def find_best_allocations(problem: ChoiceProblem, compared_allocation: xr.DataArray) -> BestAllocations:
    """Find the best allocation of every draw, and how far one allocation agrees with it.

    Parameters
    ----------
    problem : ChoiceProblem
    compared_allocation : xarray.DataArray
        Dims (group, arm).
    """
    net_gain = problem.net_gain.transpose(*SAMPLE_DIMS, GROUP, ARM)
    chain_count, draw_count, group_count, arm_count = net_gain.shape
    samples = net_gain.values.reshape(chain_count * draw_count, group_count, arm_count)
    shares, compared = problem.shares.values, compared_allocation.transpose(GROUP, ARM).values
    compared_untreated = 1 - compared.sum(axis=1)
    best_gains, allocation_sum, agreement_sum = [], np.zeros((group_count, arm_count)), np.zeros(group_count)
    # In blocks: allocations of all draws at once would be as large as the draws.
    block_size = max(1, MAX_BLOCK_NUMBERS // (group_count * arm_count))
    for start in range(0, len(samples), block_size):
        block = samples[start : start + block_size]
        best = fill_budget(block, shares, problem.budget)
        best_gains.append(np.einsum("nga,nga,g->n", block, best, shares))
        allocation_sum += best.sum(axis=0)
        # Units treated alike = Σ_a min(x_ga, y_ga) + min(untreated, untreated)
        untreated_alike = np.minimum(1 - best.sum(axis=2), compared_untreated)
        agreement_sum += (np.minimum(best, compared).sum(axis=2) + untreated_alike).sum(axis=0)
    template = problem.allocate_nobody()
    return BestAllocations(
        net_gain.isel({GROUP: 0, ARM: 0}, drop=True).copy(
            data=np.concatenate(best_gains).reshape(chain_count, draw_count)
        ),
        template.copy(data=allocation_sum / len(samples)),
        template.isel({ARM: 0}, drop=True).copy(data=agreement_sum / len(samples)),
    )
