"""Draws from posteriors of crossed and nested models, by two methods that share nothing with the engines.

Normal likelihoods: everything but the SDs integrates out, so that a walk moves log SDs alone (differential
evolution, ter Braak 2006: steps are differences between other chains, which learns scales and correlations), and
coefficients are drawn exactly given them.

Counts, and whatever has a density of its predictor: Hamiltonian steps for offsets and log SDs together, with the
gradient written out, in coordinates that the tuning's covariance whitens; between them log SDs move with the
coefficients in place of the offsets fixed (Yu & Meng 2011), so that neither weak nor strong data make a funnel.

What is returned are draws (draw, 1, chain, quantity) for `metropolis_reference.summarise`: the functions of the
design, then log SDs. Chains, or groups of them, start far apart and know nothing of each other: their disagreement
is in the error that is stated.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from metropolis_reference import Array
from mixed_design import MixedDesign
from numpy.typing import NDArray
from scipy import special

GROUPS, CHAINS_PER_GROUP = 8, 20
HMC_CHAINS = 16
MAX_SCALE_RATIO = 1e3
"""SDs in scales of their prior beyond which a covariance cannot be factored; data leave less than 1e-5 there."""
DIAGONAL_FROM = 250
"""Coordinates above which a covariance of the tuning's draws is not to be trusted, its diagonal is."""


@dataclass(frozen=True)
class MixedData:
    """Cells in the order of the design's rows; what is not used by the family is empty."""

    family: str
    seen: NDArray[np.bool_]
    statistics: Mapping[str, Array]
    variant: NDArray[np.intp]
    """Arm of every cell, the control 0."""


def spread_out_starts(design: MixedDesign, chains: int) -> Array:
    """Log SDs from a hundredth of the prior's scale to thrice of it, (scale, chain): no start may find the peak."""
    factors = np.geomspace(0.01, 3.0, chains)
    orders = [np.roll(factors, 3 * k) for k in range(len(design.scale_keys))]
    return np.asarray(np.log(design.log_prior.first) + np.log(np.array(orders)))


# --------------------------------------------------------------------------------- normal likelihoods


class CollapsedWalk:
    """A walk over log SDs, and log sigma of the normal family; groups of chains learn steps from their own group."""

    def __init__(self, design: MixedDesign, data: MixedData, sigma_scale: float, seed: int) -> None:
        self.design, self.data, self.rng = design, data, np.random.default_rng(seed)
        self.law, self.sigma_scale = design.log_prior, sigma_scale
        rows = design.cells[data.seen]
        self.residual = data.statistics["mean"][data.seen] - rows @ design.centre
        scales = [*range(len(design.scale_keys)), -1]
        parts = [rows[:, design.scale_index == k] * design.fixed_scale[design.scale_index == k] for k in scales]
        self.squares = np.array([(part @ part.T).ravel() for part in parts])
        self.sigmas = int(data.variant.max()) + 1 if data.family == "normal" else 0
        starts = spread_out_starts(design, GROUPS * CHAINS_PER_GROUP)
        if self.sigmas:
            sigma = np.sqrt(
                sum_by_arm(data, "ss", self.sigmas) / np.maximum(sum_by_arm(data, "freedom", self.sigmas), 1)
            )
            guess = np.log(np.where(sigma > 0, sigma, sigma_scale))[:, None]
            starts = np.concatenate([starts, guess + 0.3 * self.rng.standard_normal((self.sigmas, starts.shape[1]))])
        self.at = starts.T.reshape(CHAINS_PER_GROUP, GROUPS, -1).swapaxes(0, 1)
        self.log = self.density(self.at)

    def split(self, at: Array) -> tuple[Array, Array]:
        """SDs (…, scale), and standard errors of the cells that were seen (…, cell)."""
        count = len(self.design.scale_keys)
        sds = np.exp(np.clip(at[..., :count], -300, 300))
        if not self.sigmas:
            return sds, np.broadcast_to(
                self.data.statistics["se"][self.data.seen], (*at.shape[:-1], self.data.seen.sum())
            )
        sigma = np.exp(np.clip(at[..., count:], -300, 300))
        seen = self.data.seen
        return sds, sigma[..., self.data.variant[seen]] / np.sqrt(self.data.statistics["n"][seen])

    def density(self, at: Array) -> Array:
        """Log posterior density of log SDs, without constants: prior + log Normal(y; J centre, J s² J' + se²)."""
        flat = at.reshape(-1, at.shape[-1])
        count = len(self.design.scale_keys)
        prior = self.law.of_log_sd(flat[:, :count].T).sum(0)
        prior[(flat[:, :count] > np.log(MAX_SCALE_RATIO * self.law.first.T)).any(1)] = -np.inf
        sds, se = self.split(flat)
        if self.sigmas:
            prior += self.sigma_density(flat[:, count:])
        found = np.full(len(flat), -np.inf)
        fine = np.isfinite(prior)
        if fine.any():
            found[fine] = prior[fine] + self.log_likelihood(sds[fine], se[fine])
        return found.reshape(at.shape[:-1])

    def log_likelihood(self, sds: Array, se: Array) -> Array:
        """Log density of all cells' means, (point,), without constants."""
        # V = Σ_scale SD² J_scale J_scale' + what has fixed SDs + diag(se²)
        size = len(self.residual)
        weights = np.concatenate([sds**2, np.ones((len(sds), 1))], axis=1)
        bordered = np.zeros((len(sds), size + 1, size + 1))
        bordered[:, :size, :size] = (weights @ self.squares).reshape(len(sds), size, size)
        diagonal = np.arange(size)
        bordered[:, diagonal, diagonal] += se**2
        # The last pivot of [[V, r], [r', c]] is c − r' V^-1 r, and r' V^-1 r <= Σ r² / se².
        largest = (self.residual**2 / se**2).sum(-1) + 1.0
        bordered[:, size, :size], bordered[:, size, size] = self.residual, largest
        pivots = np.diagonal(np.linalg.cholesky(bordered), axis1=1, axis2=2)
        return np.asarray(-0.5 * (largest - pivots[:, -1] ** 2) - np.log(pivots[:, :-1]).sum(-1))

    def sigma_density(self, log_sigma: Array) -> Array:
        """Half-normal prior, and what sums of squares within cells tell: −freedom log sigma − ss / (2 sigma²)."""
        ss, freedom = (sum_by_arm(self.data, name, self.sigmas) for name in ("ss", "freedom"))
        known = ss > 0
        variance = np.exp(2 * log_sigma)
        prior = -0.5 * variance / self.sigma_scale**2 + log_sigma
        told = np.where(known, -freedom * log_sigma - 0.5 * ss / variance, 0.0)
        return np.asarray((prior + told).sum(-1))

    def factor(self, sds: Array, se: Array) -> tuple[Array, Array]:
        """Cholesky factor of the cells' covariance, and J s."""
        seen, design = self.data.seen, self.design
        forward = design.cells[seen] * design.scale_columns(sds)[:, None, :]
        covariance = forward @ forward.transpose(0, 2, 1)
        diagonal = np.arange(covariance.shape[1])
        covariance[:, diagonal, diagonal] += se**2
        return np.linalg.cholesky(covariance), forward

    def move(self) -> None:
        """One step of every chain: the difference of two others of its group, seldom at full length."""
        chains, dim = CHAINS_PER_GROUP, self.at.shape[-1]
        first, second = (self.rng.permuted(np.tile(np.arange(chains), (GROUPS, 1)), axis=1) for _ in range(2))
        groups = np.arange(GROUPS)[:, None]
        length = 2.38 / np.sqrt(2 * dim) * 10 ** self.rng.uniform(-1.0, 0.2, (GROUPS, chains, 1))
        length = np.where(self.rng.random((GROUPS, chains, 1)) < 0.1, 1.0, length)
        # Two halves in turn, each by differences of the other: so that no chain moves by itself.
        own = self.rng.permutation(chains)
        for moving, others in ((own[: chains // 2], own[chains // 2 :]), (own[chains // 2 :], own[: chains // 2])):
            one, two = (others[each[:, : len(moving)] % len(others)] for each in (first, second))
            step = self.at[groups, one] - self.at[groups, two]
            noise = 1e-3 * self.rng.standard_normal(step.shape)
            proposal = self.at[:, moving] + length[:, moving] * step + noise
            log = self.density(proposal)
            taken = np.log(self.rng.random(log.shape)) < log - self.log[:, moving]
            self.at[:, moving] = np.where(taken[..., None], proposal, self.at[:, moving])
            self.log[:, moving] = np.where(taken, log, self.log[:, moving])

    def draw_functions(self) -> Array:
        """Functions given the SDs of every chain, exactly: a draw of everything, moved to what was seen; (chain, f)."""
        design = self.design
        sds, se = self.split(self.at.reshape(-1, self.at.shape[-1]))
        root, forward = self.factor(sds, se)
        z = self.rng.standard_normal((len(sds), forward.shape[-1]))
        imagined = np.einsum("kyz,kz->ky", forward, z) + se * self.rng.standard_normal(se.shape)
        white = np.linalg.solve(root, (self.residual - imagined)[..., None])
        z += np.einsum("kyz,ky->kz", forward, np.linalg.solve(root.transpose(0, 2, 1), white)[..., 0])
        return np.asarray((design.centre + design.scale_columns(sds) * z) @ design.functions.T)


def sum_by_arm(data: MixedData, name: str, arms: int) -> Array:
    """Sum a statistic over the cells of each arm."""
    return np.bincount(data.variant[data.seen], weights=data.statistics[name][data.seen], minlength=arms)


def walk_over_scales(
    design: MixedDesign, data: MixedData, *, sweeps: int, seed: int, sigma_scale: float = 1.0, kept: int = 150
) -> Array:
    """Draws for a normal likelihood, a quarter discarded; groups of chains count as one chain each."""
    walk, found = CollapsedWalk(design, data, sigma_scale, seed), []
    thin = max(1, sweeps // kept)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        for sweep in range(-sweeps // 3, thin * kept):
            walk.move()
            if sweep >= 0 and sweep % thin == 0:
                log_sds = walk.at[..., : len(design.scale_keys)].reshape(GROUPS * CHAINS_PER_GROUP, -1)
                found.append(np.concatenate([walk.draw_functions(), log_sds], axis=1))
    draws = np.array(found).reshape(len(found), GROUPS, CHAINS_PER_GROUP, -1)
    # In order of time within each group: (sweep, member) are its draws.
    return draws.transpose(0, 2, 1, 3).reshape(-1, 1, GROUPS, draws.shape[-1]).astype(np.float32)


# ------------------------------------------------------------------------------------------------- counts


def compute_cell_likelihood(data: MixedData, eta: Array) -> tuple[Array, Array]:
    """Log likelihood of all cells (chain,), and its derivative by eta (chain, cell)."""
    if data.family == "mean":
        y, variance = data.statistics["mean"][data.seen], data.statistics["se"][data.seen] ** 2
        return -0.5 * ((y - eta) ** 2 / variance).sum(-1), (y - eta) / variance
    events = data.statistics["events"][data.seen]
    if data.family == "binomial":
        n = data.statistics["n"][data.seen]
        log = events * eta - n * np.logaddexp(0.0, eta)
        return log.sum(-1), events - n * special.expit(eta)
    mean = data.statistics["exposure"][data.seen] * np.exp(np.minimum(eta, 300.0))
    return (events * eta - mean).sum(-1), events - mean


class HamiltonianWalk:
    """Chains over (z, log SD), dims (chain, coordinate); all chains move in one array, each with its own momentum."""

    def __init__(self, design: MixedDesign, data: MixedData, seed: int) -> None:
        self.design, self.data, self.rng = design, data, np.random.default_rng(seed)
        self.law, self.count = design.log_prior, len(design.scale_keys)
        self.rows = design.cells[data.seen]
        self.members = np.eye(self.count + 1)[:, :-1][np.where(design.scale_index < 0, self.count, design.scale_index)]
        self.sizes = self.members.sum(0)
        dim = self.rows.shape[1] + self.count
        z = 0.3 * self.rng.standard_normal((HMC_CHAINS, self.rows.shape[1]))
        self.at = np.concatenate([z, spread_out_starts(design, HMC_CHAINS).T], axis=1)
        self.root, self.step = np.eye(dim), 0.05
        self.log, self.slope = self.density(self.at)

    def density(self, at: Array) -> tuple[Array, Array]:
        """Log density of (z, log SD), and its gradient."""
        z, log_sds = at[:, : -self.count], at[:, -self.count :]
        s = self.design.scale_columns(np.exp(np.clip(log_sds, -300, 50)))
        log, by_eta = compute_cell_likelihood(self.data, (self.design.centre + s * z) @ self.rows.T)
        by_column = by_eta @ self.rows
        # d/dz = s J'g − z;   d/dlog SD = Σ_columns of the SD s z J'g + that of its prior
        prior, by_log_sd = self.differentiate_prior(log_sds)
        slope = np.concatenate([s * by_column - z, (s * z * by_column) @ self.members + by_log_sd], axis=1)
        return log - 0.5 * (z**2).sum(-1) + prior, slope

    def differentiate_prior(self, log_sds: Array) -> tuple[Array, Array]:
        """Log prior density of log SDs, and its derivative by differences; 0 at the wall of a uniform prior."""
        with np.errstate(invalid="ignore"):
            low, at, high = (self.law.of_log_sd(log_sds.T + h) for h in (-1e-5, 0.0, 1e-5))
            change = np.where(np.isfinite(low) & np.isfinite(high), high - low, 0.0)
        return at.sum(0), change.T / 2e-5

    def leap(self, *, length: float) -> Array:
        """One trajectory of every chain; returns the probability with which each was taken."""
        momentum = self.rng.standard_normal(self.at.shape)
        step = self.step * 10 ** self.rng.uniform(-0.3, 0.1)
        at, log, slope = self.at, self.log, self.slope
        # In white coordinates y = root^-1 at the mass is 1, and the gradient root' slope.
        p = momentum + 0.5 * step * slope @ self.root
        for leap in range(count := max(1, int(length * self.rng.uniform(0.5, 1.5) / step))):
            at = at + step * p @ self.root.T
            log, slope = self.density(at)
            p = p + (step if leap < count - 1 else 0.5 * step) * slope @ self.root
        change = log - self.log + 0.5 * (momentum**2 - p**2).sum(-1)
        chance = np.nan_to_num(np.exp(np.minimum(change, 0.0)), nan=0.0)
        taken = (self.rng.random(len(chance)) < chance)[:, None]
        self.at, self.slope = np.where(taken, at, self.at), np.where(taken, slope, self.slope)
        self.log = np.where(taken[:, 0], log, self.log)
        return chance

    def move_scales(self) -> None:
        """Log SDs with s z fixed: u = s z has density SD^-n exp(−u² / (2 SD²)), and eta stays where it is."""
        z, log_sds = self.at[:, : -self.count], self.at[:, -self.count :]
        squares = z**2 @ self.members  # Σ u² / SD² at the present SD
        change = self.rng.standard_normal(log_sds.shape) * 10 ** self.rng.uniform(-1.2, 0.5, log_sds.shape)
        prior = (self.law.of_log_sd((log_sds + change).T) - self.law.of_log_sd(log_sds.T)).T
        ratio = prior - self.sizes * change - 0.5 * squares * np.expm1(-2 * change)
        taken = np.log(self.rng.random(ratio.shape)) < np.nan_to_num(ratio, nan=-np.inf)
        change = np.where(taken, change, 0.0)
        self.at = np.concatenate([z * np.exp(-change @ self.members.T), log_sds + change], axis=1)
        self.log, self.slope = self.density(self.at)

    def tune(self, rounds: int) -> None:
        """Learn the step length, and the covariance of all chains' draws, in windows of growing length."""
        for window in (rounds // 10, rounds // 5, rounds // 3, rounds // 3):
            draws, since = [], 0.0
            for i in range(window):
                accepted = self.leap(length=1.5).mean()
                since += accepted - 0.8
                self.step *= np.exp((accepted - 0.8) / (1 + i) ** 0.6)
                self.move_scales()
                draws.append(self.at)
            flat = np.concatenate(draws[window // 3 :])
            covariance = np.cov(flat.T)
            dim, weight = len(covariance), len(flat) / (len(flat) + 5 * len(covariance))
            diagonal = np.diag(np.diag(covariance) + 1e-6)
            shrunk = diagonal if dim > DIAGONAL_FROM else weight * covariance + (1 - weight) * diagonal
            self.root = np.linalg.cholesky(shrunk)
        for i in range(rounds // 6):
            self.step *= np.exp((self.leap(length=1.5).mean() - 0.8) / (1 + i) ** 0.6)
            self.move_scales()


def walk_by_gradient(design: MixedDesign, data: MixedData, *, sweeps: int, seed: int, kept: int = 1000) -> Array:
    """Draws for counts; as many steps again for tuning as half of those that are kept."""
    walk, found = HamiltonianWalk(design, data, seed), []
    thin = max(1, sweeps // kept)
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        walk.tune(max(sweeps // 2, 300))
        for sweep in range(thin * kept):
            walk.leap(length=1.5)
            walk.move_scales()
            if sweep % thin == 0:
                found.append(walk.at)
    draws = np.array(found)
    z, log_sds = draws[..., : -walk.count], draws[..., -walk.count :]
    functions = (design.centre + design.scale_columns(np.exp(log_sds)) * z) @ design.functions.T
    return np.concatenate([functions, log_sds], axis=-1)[:, None].astype(np.float32)
