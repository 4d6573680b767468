"""Posteriors of many small one-way problems at once, by a random walk that shares nothing with the engines.

Every problem has eight chains, all problems and chains move in one array. The walk knows each cell's log likelihood
and the priors, nothing else: no modes, no integrals, no Gaussian approximations, no convergence to be believed.
It is slow to mix only where its own Monte-Carlo error says so, because every block is moved both with the offsets
fixed and with the coefficients fixed (Yu & Meng 2011, interweaving), by steps of random length.

Dims: problem, chain, segment; hyperparameters have (problem, chain). Segments that a problem lacks have weight 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CHAINS, BLOCKS = 8, 5
SD_PRIORS = ("HalfNormal", "HalfStudentT", "Exponential", "Uniform", "LogNormal", "InverseGamma")


@dataclass(frozen=True)
class Priors:
    """Laws of a mean, Student's t (nu = inf: normal), and of a between-segment SD, by SD_PRIORS; each (problem, 1)."""

    nu: Array
    location: Array
    scale: Array
    kind: NDArray[np.intp]
    first: Array
    second: Array

    def of_mean(self, mean: Array) -> Array:
        z2 = ((mean - self.location) / self.scale) ** 2
        finite = np.where(np.isinf(self.nu), 1.0, self.nu)
        return np.where(np.isinf(self.nu), -0.5 * z2, -0.5 * (finite + 1) * np.log1p(z2 / finite))

    def of_log_sd(self, log_sd: Array) -> Array:
        """Log density of log SD: log p(SD) + log SD."""
        sd = np.exp(np.clip(log_sd, -300, 300))
        laws = [
            -0.5 * (sd / self.first) ** 2,
            -0.5 * (self.second + 1) * np.log1p((sd / self.first) ** 2 / self.second),
            -sd / self.first,
            np.where(sd < self.first, 0.0, -np.inf),
            -0.5 * ((log_sd - np.log(self.first)) / self.second) ** 2 - log_sd,
            -(self.second + 1) * log_sd - self.first / sd,
        ]
        return np.select([self.kind == k for k in range(len(SD_PRIORS))], laws) + log_sd


def pack_priors(specs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Priors:
    """Pack (mean, between) as model files write them."""
    columns = []
    for mean, between in specs:
        kind, second = between["dist"], between.get("nu", between.get("alpha", 1.0))
        first = between.get("sigma", between.get("scale", between.get("beta", between.get("upper", 1.0))))
        if kind == "HalfCauchy":
            kind, first, second = "HalfStudentT", between["beta"], 1.0
        if kind == "LogNormal":
            first, second = np.exp(between["mu"]), between["sigma"]
        nu = mean["nu"] if mean["dist"] == "StudentT" else np.inf
        columns.append((nu, mean.get("mu", 0.0), mean["sigma"], SD_PRIORS.index(kind), first, second))
    nu, location, scale, kinds, first, second = (np.array(each)[:, None] for each in zip(*columns, strict=True))
    return Priors(nu, location, scale, kinds.astype(int), first, second)


CellLogLikelihood = Callable[[int, Array, Array], Array]
"""Arm (0 or 1), eta (problem, chain, segment), nuisance (problem, chain, parameter) -> log density of every cell."""


@dataclass(frozen=True)
class Batch:
    """Problems of one family; `information` is a rough curvature of each arm's cells, (arm, problem, segment)."""

    log_likelihood: CellLogLikelihood
    information: Array
    start: Array
    """First guesses of eta, (arm, problem, segment)."""
    present: NDArray[np.bool_]
    """(problem, segment)"""
    effect: Priors
    baseline: Priors | None
    fixed_baseline_mean: bool = False
    heavy: Array | None = None
    """Degrees of freedom of Student-t effects, (problem, 1); inf where they are normal."""
    nuisance_start: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """(problem, parameter)"""
    nuisance_step: Array = field(default_factory=lambda: np.zeros((0, 0)))
    log_nuisance: Callable[[Array], Array] = field(default=lambda values: np.zeros(values.shape[:2]))
    """Prior and whatever else depends on the nuisance alone, (problem, chain)."""


@dataclass
class _State:
    b: Array
    e: Array
    mean_b: Array
    log_b: Array
    mean_e: Array
    log_e: Array
    log_mix: Array
    nuisance: Array
    fit: Array
    """Log likelihood of both arms' cells, (arm, problem, chain, segment)."""


class Walk:
    """The chains of a batch, and the moves that leave its posteriors as they are."""

    def __init__(self, batch: Batch, seed: int) -> None:
        self.batch, self.rng = batch, np.random.default_rng(seed)
        self.here = batch.present[:, None, :]
        self.count = batch.present.sum(1)[:, None]
        problems, segments = batch.present.shape
        shape = (problems, CHAINS)
        # Chains start at SDs from a hundredth of the prior's scale to thrice of it: none must find the other mode.
        spread = np.log(np.broadcast_to(np.geomspace(0.01, 3.0, CHAINS), shape))
        raw = np.repeat(batch.start[:, :, None, :], CHAINS, axis=2)
        weight = self.here / self.count[..., None]
        pooled = batch.baseline is not None
        b = raw[0] if pooled else np.zeros_like(raw[0])
        e = raw[1] - b
        nuisance = np.repeat(batch.nuisance_start[:, None, :], CHAINS, axis=1)
        scale_b = batch.baseline.first if batch.baseline else np.ones((problems, 1))
        mean_b = np.zeros(shape) if batch.fixed_baseline_mean or not pooled else (b * weight).sum(-1)
        self.state = _State(
            b, e, mean_b, spread + np.log(scale_b), (e * weight).sum(-1), spread + np.log(batch.effect.first),
            np.zeros((*shape, segments)), nuisance, np.zeros((2, *shape, segments)),
        )  # fmt: skip
        self.state.fit = self.both(b, e, nuisance)

    # ------------------------------------------------------------------ pieces

    def arm(self, arm: int, eta: Array, nuisance: Array) -> Array:
        return np.where(self.here, self.batch.log_likelihood(arm, eta, nuisance), 0.0)

    def both(self, b: Array, e: Array, nuisance: Array) -> Array:
        control = self.arm(0, b, nuisance) if self.batch.baseline else np.zeros_like(b)
        return np.stack([control, self.arm(1, b + e, nuisance)])

    def length(self, shape: tuple[int, ...]) -> Array:
        """Lengths of steps over two orders of magnitude: whatever the posterior's width, some fit it."""
        return 2.4 * 10 ** self.rng.uniform(-1.2, 0.5, shape)

    def accept(self, log_ratio: Array) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            return np.log(self.rng.random(log_ratio.shape)) < np.nan_to_num(log_ratio, nan=-np.inf)

    def spread_e(self, log_e: Array) -> Array:
        return np.exp(log_e)[..., None] * np.exp(0.5 * self.state.log_mix)

    # ------------------------------------------------------------------- moves

    def move_coefficients(self) -> None:
        """Both coefficients of every segment, given the hyperparameters: segments are independent."""
        s = self.state
        sd_e, sd_b = self.spread_e(s.log_e), np.exp(s.log_b)[..., None]
        info0, info1 = (self.batch.information[arm][:, None, :] for arm in (0, 1))
        # Precision of (b, e): [[1/sd_b² + i0 + i1, i1], [i1, 1/sd_e² + i1]], and its Cholesky factor by hand.
        p_ee = 1 / sd_e**2 + info1
        noise = self.rng.standard_normal((2, *s.e.shape)) * self.length((*s.e.shape[:2], 1))
        if self.batch.baseline:
            p_bb = 1 / sd_b**2 + info0 + info1
            root = np.sqrt(np.maximum(p_bb - info1**2 / p_ee, 1e-12 * p_bb))
            db = noise[0] / root
            de = noise[1] / np.sqrt(p_ee) - db * info1 / p_ee
        else:
            db, de = np.zeros_like(s.e), noise[1] / np.sqrt(p_ee)
        b, e = s.b + db, s.e + de
        fit = self.both(b, e, s.nuisance)
        m_b, m_e = s.mean_b[..., None], s.mean_e[..., None]
        prior = -0.5 * (((e - m_e) / sd_e) ** 2 - ((s.e - m_e) / sd_e) ** 2)
        if self.batch.baseline:
            prior = prior - 0.5 * (((b - m_b) / sd_b) ** 2 - ((s.b - m_b) / sd_b) ** 2)
        taken = self.accept(prior + (fit - s.fit).sum(0)) & self.here
        s.b, s.e, s.fit = np.where(taken, b, s.b), np.where(taken, e, s.e), np.where(taken, fit, s.fit)

    def move_mixture(self) -> None:
        """Squared local scales of Student-t effects, inverse gamma a priori; effects stay, then offsets."""
        if self.batch.heavy is None:
            return
        s, nu = self.state, self.batch.heavy[..., None]
        is_heavy = np.isfinite(nu) & self.here
        half = np.where(np.isfinite(nu), nu, 4.0) / 2
        tau, mean = np.exp(s.log_e)[..., None], s.mean_e[..., None]
        for keep_effect in (True, False):
            log_mix = s.log_mix + self.rng.standard_normal(s.e.shape) * self.length((*s.e.shape[:2], 1))
            # p(log v) = v^(-nu/2) exp(-nu / (2 v))
            change = -half * (log_mix - s.log_mix) - half * (np.exp(-log_mix) - np.exp(-s.log_mix))
            if keep_effect:
                z2 = ((s.e - mean) / tau) ** 2
                change += -0.5 * (log_mix - s.log_mix) - 0.5 * z2 * (np.exp(-log_mix) - np.exp(-s.log_mix))
                taken = self.accept(change) & is_heavy
            else:
                e = mean + (s.e - mean) * np.exp(0.5 * (log_mix - s.log_mix))
                fit = self.arm(1, s.b + e, s.nuisance)
                taken = self.accept(change + fit - s.fit[1]) & is_heavy
                s.e, s.fit[1] = np.where(taken, e, s.e), np.where(taken, fit, s.fit[1])
            s.log_mix = np.where(taken, log_mix, s.log_mix)

    def move_effect_hyperparameters(self) -> None:
        s, law = self.state, self.batch.effect
        weight = np.exp(-s.log_mix) * self.here  # segments of heavy tails count less where their scale is large
        # With the coefficients fixed.
        step = self.rng.standard_normal(s.mean_e.shape) * self.length(s.mean_e.shape)
        mean = s.mean_e + step * np.exp(s.log_e) / np.sqrt(self.count)
        squares = lambda m: ((s.e - m[..., None]) ** 2 * weight).sum(-1)  # noqa: E731
        ratio = law.of_mean(mean) - law.of_mean(s.mean_e)
        taken = self.accept(ratio - 0.5 * (squares(mean) - squares(s.mean_e)) * np.exp(-2 * s.log_e))
        s.mean_e = np.where(taken, mean, s.mean_e)
        log_e = s.log_e + self.rng.standard_normal(s.log_e.shape) * self.length(s.log_e.shape)
        ratio = law.of_log_sd(log_e) - law.of_log_sd(s.log_e) - self.count * (log_e - s.log_e)
        total = squares(s.mean_e)
        taken = self.accept(ratio - 0.5 * total * (np.exp(-2 * log_e) - np.exp(-2 * s.log_e)))
        s.log_e = np.where(taken, log_e, s.log_e)
        # With the offsets fixed: every effect moves along.
        information = (self.batch.information[1] * self.batch.present).sum(1)[:, None]
        step = self.rng.standard_normal(s.mean_e.shape) * self.length(s.mean_e.shape)
        mean = s.mean_e + step / np.sqrt(information + 1 / law.scale**2)
        self.try_effects(mean, s.log_e)
        log_e = s.log_e + self.rng.standard_normal(s.log_e.shape) * self.length(s.log_e.shape)
        self.try_effects(s.mean_e, log_e)

    def try_effects(self, mean: Array, log_e: Array) -> None:
        s, law = self.state, self.batch.effect
        e = mean[..., None] + (s.e - s.mean_e[..., None]) * np.exp(log_e - s.log_e)[..., None]
        fit = self.arm(1, s.b + e, s.nuisance)
        ratio = law.of_mean(mean) - law.of_mean(s.mean_e) + law.of_log_sd(log_e) - law.of_log_sd(s.log_e)
        taken = self.accept(ratio + (fit - s.fit[1]).sum(-1))
        s.mean_e, s.log_e = np.where(taken, mean, s.mean_e), np.where(taken, log_e, s.log_e)
        s.e, s.fit[1] = np.where(taken[..., None], e, s.e), np.where(taken[..., None], fit, s.fit[1])

    def move_baseline_hyperparameters(self) -> None:
        s, law = self.state, self.batch.baseline
        if law is None:
            return
        squares = lambda m: ((s.b - m[..., None]) ** 2 * self.here).sum(-1)  # noqa: E731
        if not self.batch.fixed_baseline_mean:
            step = self.rng.standard_normal(s.mean_b.shape) * self.length(s.mean_b.shape)
            mean = s.mean_b + step * np.exp(s.log_b) / np.sqrt(self.count)
            ratio = law.of_mean(mean) - law.of_mean(s.mean_b)
            taken = self.accept(ratio - 0.5 * (squares(mean) - squares(s.mean_b)) * np.exp(-2 * s.log_b))
            s.mean_b = np.where(taken, mean, s.mean_b)
        log_b = s.log_b + self.rng.standard_normal(s.log_b.shape) * self.length(s.log_b.shape)
        ratio = law.of_log_sd(log_b) - law.of_log_sd(s.log_b) - self.count * (log_b - s.log_b)
        total = squares(s.mean_b)
        taken = self.accept(ratio - 0.5 * total * (np.exp(-2 * log_b) - np.exp(-2 * s.log_b)))
        s.log_b = np.where(taken, log_b, s.log_b)
        information = (self.batch.information.sum(0) * self.batch.present).sum(1)[:, None]
        shape = s.mean_b.shape
        if not self.batch.fixed_baseline_mean:
            step = self.rng.standard_normal(shape) * self.length(shape)
            self.try_baselines(s.mean_b + step / np.sqrt(information + 1 / law.scale**2), s.log_b)
            # Baselines down and effects up by as much: the treated cells stay where they are.
            control = (self.batch.information[0] * self.batch.present).sum(1)[:, None]
            step = self.rng.standard_normal(shape) * self.length(shape) / np.sqrt(control + 1 / law.scale**2)
            self.try_exchange(step)
        self.try_baselines(s.mean_b, s.log_b + self.rng.standard_normal(shape) * self.length(shape))

    def try_baselines(self, mean: Array, log_b: Array) -> None:
        s, law = self.state, self.batch.baseline
        assert law is not None
        b = mean[..., None] + (s.b - s.mean_b[..., None]) * np.exp(log_b - s.log_b)[..., None]
        fit = self.both(b, s.e, s.nuisance)
        ratio = law.of_log_sd(log_b) - law.of_log_sd(s.log_b)
        if not self.batch.fixed_baseline_mean:
            ratio = ratio + law.of_mean(mean) - law.of_mean(s.mean_b)
        taken = self.accept(ratio + (fit - s.fit).sum((0, -1)))
        s.mean_b, s.log_b = np.where(taken, mean, s.mean_b), np.where(taken, log_b, s.log_b)
        s.b, s.fit = np.where(taken[..., None], b, s.b), np.where(taken[..., None], fit, s.fit)

    def try_exchange(self, step: Array) -> None:
        s, law = self.state, self.batch.baseline
        assert law is not None
        b, mean_b, mean_e = s.b - step[..., None], s.mean_b - step, s.mean_e + step
        fit = self.arm(0, b, s.nuisance)
        ratio = law.of_mean(mean_b) - law.of_mean(s.mean_b)
        ratio = ratio + self.batch.effect.of_mean(mean_e) - self.batch.effect.of_mean(s.mean_e)
        taken = self.accept(ratio + (fit - s.fit[0]).sum(-1))
        wide = taken[..., None]
        s.mean_b, s.mean_e = np.where(taken, mean_b, s.mean_b), np.where(taken, mean_e, s.mean_e)
        s.b, s.e = np.where(wide, b, s.b), np.where(wide, s.e + step[..., None], s.e)
        s.fit[0] = np.where(wide, fit, s.fit[0])

    def move_nuisance(self) -> None:
        s = self.state
        for parameter in range(s.nuisance.shape[-1]):
            step = self.rng.standard_normal(s.nuisance.shape[:2]) * self.length(s.nuisance.shape[:2])
            values = s.nuisance.copy()
            values[..., parameter] += step * self.batch.nuisance_step[:, None, parameter]
            fit = self.both(s.b, s.e, values)
            ratio = self.batch.log_nuisance(values) - self.batch.log_nuisance(s.nuisance)
            taken = self.accept(ratio + (fit - s.fit).sum((0, -1)))
            s.nuisance = np.where(taken[..., None], values, s.nuisance)
            s.fit = np.where(taken[..., None], fit, s.fit)

    def sweep(self) -> None:
        self.move_coefficients()
        self.move_mixture()
        self.move_effect_hyperparameters()
        self.move_baseline_hyperparameters()
        self.move_nuisance()


def walk(batch: Batch, *, sweeps: int, seed: int, kept: int = 400) -> dict[str, Array]:
    """Draws of effects, baselines, hyperparameters and nuisance; dims (draw, problem, chain, …), a fifth discarded."""
    chains = Walk(batch, seed)
    thin = max(1, sweeps // kept)
    names = ("e", "b", "mean_e", "log_e", "nuisance")
    found: dict[str, list[Array]] = {name: [] for name in names}
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        for sweep in range(-sweeps // 4, thin * kept):
            chains.sweep()
            if sweep >= 0 and sweep % thin == 0:
                for name in names:
                    found[name].append(getattr(chains.state, name).astype(np.float32))
    return {name: np.array(each) for name, each in found.items()}


def summarise(draws: Array, quantiles: Sequence[float]) -> dict[str, Array]:
    """Quantiles, P(> 0), and the standard error of the share of draws below each; draws (draw, problem, chain, …).

    The error is the larger of that of chains and that of blocks of chains: chains that have settled in different
    places say so.
    """
    flat = np.moveaxis(draws, 2, 1).reshape(-1, draws.shape[1], *draws.shape[3:])
    at = np.concatenate([np.quantile(flat, quantiles, axis=0), np.zeros((1, *flat.shape[1:]))])
    below = (draws[None] < at[:, None, :, None]).astype(np.float32)  # (value, draw, problem, chain, …)
    blocks, chains = below.reshape(len(at), BLOCKS, -1, *below.shape[2:]).mean(2), draws.shape[2]
    by_chain = blocks.mean(1)
    error = by_chain.std(2, ddof=1) / np.sqrt(chains)
    spread = np.moveaxis(blocks, 3, 2).reshape(len(at), BLOCKS * chains, *by_chain.shape[1:2], *by_chain.shape[3:])
    error = np.maximum(error, spread.std(1, ddof=1) / np.sqrt(BLOCKS * chains))
    return {"at": at[:-1], "p_positive": 1 - by_chain[-1].mean(1), "error": error}


def softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))
