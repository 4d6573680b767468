"""Sample weighted points of the coordinates by adaptive importance sampling with mixtures of normals and t.

Every point is weighted by the mixture of all proposals (Owen & Zhou 2000, JASA 95:135), and the weights are
Pareto-smoothed (Vehtari et al. 2024, JMLR 25:72). Where their tail alone is too long, points are added around the
heaviest one (Raftery & Bao 2010, Biometrics 66:1162).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from bayes_hte.inference.exact.latent.density import LatentDensity
from bayes_hte.inference.exact.latent.maps import CoordinateMaps, build_linear_maps, fit_maps
from bayes_hte.inference.exact.latent.peaks import Landscape
from bayes_hte.inference.exact.latent.requests import Steps, WeighPoints
from bayes_hte.inference.exact.latent.weights import LatentDraws, join_draws
from bayes_hte.inference.exact.smooth import smooth
from bayes_hte.model.normal_scores import Array

FIRST_POINTS = 512
LEAST_POINTS = 128
"""Of later rounds."""
NOISE_OF_PLAIN_SITES = 0.05
"""Variance of log weights at a point up to which sites need not be moved to it."""
NOISE_OF_ONE_SIGN = 0.01
"""Up to which columns need no antithetic pairs."""
MAX_ROUNDS = 12
GROWTH = 2.0
"""Points of a round for every point before it, at most."""
MAX_POINTS_PER_WANTED = 25.0
TRUSTED_POINTS_PER_DIM = 25.0
"""Effective points per coordinate from which a learnt mean and covariance are trusted wholly."""
LEAST_SHARE = 0.1
"""Of the points that a peak keeps, so that it goes on being looked at; and of effective ones that a round hopes for."""
NORMAL_SHARE, NORMAL_SPREAD = 0.75, 1.25
T_SHARE, T_SPREAD, T_FREEDOM = 0.25, 1.5, 5.0
"""Of a proposal's components: most of it near the posterior, some with tails that no map can miss."""
GOOD_PARETO_K = 0.5
"""Below it weights have a variance. Sampling goes on until then; up to 0.7 is accepted."""
FAIR_PARETO_K, EVEN_SHARE = 0.65, 0.5
"""Where this share of the points is effective, a longer tail is one of weights that are nearly the same."""
POINTS_PER_DIM = 12.0
"""Effective points per coordinate from which mean and covariance are learnt."""
VISITED_SHARE = 0.005
"""Of the weight that a scanned point would have had, above which points are drawn around it."""
MAX_VISITS, MAX_PLACES = 3, 4
HOPELESS_SHARE = 0.02
"""Effective points per point after two rounds below which no more are drawn."""


@dataclass(frozen=True, slots=True)
class Component:
    """A normal (infinite freedom) or Student's t in straight coordinates, and its share of the points."""

    share: float
    mean: Array
    root: Array
    freedom: float

    def draw(self, count: int, rng: np.random.Generator) -> Array:
        """Draw points, (point, coordinate)."""
        normal = rng.standard_normal((count, len(self.mean)))
        if np.isfinite(self.freedom):
            normal *= np.sqrt(self.freedom / rng.chisquare(self.freedom, count))[:, np.newaxis]
        return np.asarray(self.mean + normal @ self.root.T)

    def compute_log_density(self, straight: Array) -> Array:
        """Compute the log density of points, without the share."""
        dim = len(self.mean)
        standard = np.linalg.solve(self.root, (straight - self.mean).T) if dim else np.zeros((0, len(straight)))
        squares = (standard**2).sum(0)
        log_det = float(np.log(np.diag(self.root)).sum())
        if not np.isfinite(self.freedom):
            return np.asarray(-0.5 * squares - 0.5 * dim * np.log(2 * np.pi) - log_det)
        nu = self.freedom
        constant = special.gammaln((nu + dim) / 2) - special.gammaln(nu / 2) - 0.5 * dim * np.log(nu * np.pi)
        return np.asarray(constant - log_det - 0.5 * (nu + dim) * np.log1p(squares / nu))


@dataclass(frozen=True, slots=True)
class WeightedPoints:
    """Weighted points of the coordinates with a joint draw at each.

    Attributes
    ----------
    points : ndarray
        u, (point, coordinate).
    draws : LatentDraws
    weights : ndarray
        Pareto-smoothed, they sum to 1.
    pareto_k : float
    log_evidence : float
    effective : float
        Points that the worst of all SDs, means, levels and effects is worth.
    uncovered : float
        Largest share of the weight that a point of the scan would have had, had it been drawn.
    """

    points: Array
    draws: LatentDraws
    weights: Array
    pareto_k: float
    log_evidence: float
    effective: float
    uncovered: float = 0.0


@dataclass(slots=True)
class _Exploration:
    """All points so far: their straight coordinates, their draws, and the proposals that they came from."""

    density: LatentDensity
    maps: CoordinateMaps
    rng: np.random.Generator
    straight: Array
    points: Array
    log_jacobian: Array
    draws: LatentDraws | None
    components: list[Component]
    counts: list[float]
    log_ratio: Array | None = None

    def extend(self, proposal: list[Component], count: int) -> Steps[None]:
        """Draw points from a mixture and weigh them."""
        fresh = _draw_from(proposal, count, self.rng)
        points, log_jacobian = self.maps.evaluate(fresh)
        draws = yield WeighPoints(self.density, points, self.rng)
        self.draws = draws if self.draws is None else join_draws([self.draws, draws])
        self.straight = np.concatenate([self.straight, fresh])
        self.points = np.concatenate([self.points, points])
        self.log_jacobian = np.concatenate([self.log_jacobian, log_jacobian])
        self.components += proposal
        self.counts += [component.share * count for component in proposal]
        self.log_ratio = None

    def measure_noise(self) -> float:
        """Measure the variance of the log weight of a point, averaged over the points by weight."""
        weights, _ = smooth(self.compute_log_ratio())
        return float(weights @ np.nan_to_num(self.require_draws().noise, posinf=1e3))

    def require_draws(self) -> LatentDraws:
        """Return the draws, of which there are some once the first round is over."""
        if self.draws is None:
            raise AssertionError("no point has been drawn yet")
        return self.draws

    def compute_log_ratio(self) -> Array:
        """Compute the log of density over proposal at every point; kept until there are more points."""
        if self.log_ratio is None:
            log_proposal = _mix_densities(self.components, self.counts, self.straight) - self.log_jacobian
            self.log_ratio = np.asarray(self.require_draws().log_weight - log_proposal)
        return self.log_ratio


def sample_points(landscape: Landscape, *, wanted: float, seed: int) -> Steps[WeightedPoints]:
    """Sample weighted points until `wanted` are effective and their tail is short.

    Sites stay as they are at the peak where this leaves weights even, and are moved to every point where not.
    """
    peaks = landscape.peaks
    maps = (yield from fit_maps(peaks[0])) if len(peaks) == 1 else build_linear_maps(peaks[0])
    rng = np.random.default_rng(seed)
    density = peaks[0].density
    plain_density = density if density.is_gaussian or density.is_defensive else replace(density, site_steps=0)
    centres, covariances = _start_components(landscape, maps)
    shares = np.full(len(centres), 1 / len(centres))
    exploration = _start_exploration(plain_density, maps, rng)
    yield from exploration.extend(_propose(centres, covariances, shares), FIRST_POINTS)
    noise = exploration.measure_noise()
    if plain_density is not density and noise > NOISE_OF_PLAIN_SITES:
        exploration = _start_exploration(density, maps, rng)
        yield from exploration.extend(_propose(centres, covariances, shares), FIRST_POINTS)
        noise = exploration.measure_noise()
    if noise < NOISE_OF_ONE_SIGN and not density.is_defensive:
        exploration.density = replace(exploration.density, draws_both_signs=False)
    rounds = 1
    while True:
        sample = _summarise_points(exploration)
        point_count = len(sample.points)
        is_enough = sample.effective >= wanted and has_short_tail(sample.weights, sample.pareto_k)
        is_hopeless = rounds >= 2 and sample.effective < HOPELESS_SHARE * point_count
        if is_enough or is_hopeless or rounds >= MAX_ROUNDS or point_count >= MAX_POINTS_PER_WANTED * wanted:
            break
        log_ratio = exploration.compute_log_ratio()
        centres, covariances, shares = _learn_components(exploration.straight, log_ratio, centres, covariances)
        share = max(sample.effective / point_count, LEAST_SHARE)
        # What a few hundred points say of the worst quantity is rough: a round at most multiplies what there is.
        count = int(np.clip(1.1 * (wanted - sample.effective) / share, LEAST_POINTS, GROWTH * point_count))
        proposal = _propose(centres, covariances, shares)
        if sample.effective >= wanted:
            # Only the tail is too long: points are lacking where weights are largest.
            heaviest = exploration.straight[np.argmax(log_ratio)]
            proposal, count = _propose([heaviest], [np.mean(covariances, axis=0)], np.ones(1)), FIRST_POINTS
        yield from exploration.extend(proposal, count)
        rounds += 1
    uncovered = _measure_uncovered(landscape, exploration, sample)
    for _ in range(MAX_VISITS):
        missed = np.flatnonzero(uncovered > VISITED_SHARE)
        if not len(missed):
            break
        # What the scan saw and no point did is looked at: either it has mass, or the sites were wrong about it.
        places = maps.invert(landscape.scanned[missed[np.argsort(-uncovered[missed])[:MAX_PLACES]]])
        spread = covariances[0] if len(centres) == 1 else np.mean(covariances, axis=0)
        visit = _propose(list(places), [spread] * len(places), np.full(len(places), 1 / len(places)))
        yield from exploration.extend(visit, FIRST_POINTS)
        sample = _summarise_points(exploration)
        uncovered = _measure_uncovered(landscape, exploration, sample)
    return replace(sample, uncovered=float(uncovered.max(initial=0.0)))


def _start_exploration(density: LatentDensity, maps: CoordinateMaps, rng: np.random.Generator) -> _Exploration:
    nowhere = np.empty((0, len(density.structure.coordinates)))
    return _Exploration(density, maps, rng, nowhere, nowhere, np.empty(0), None, [], [])


def _summarise_points(exploration: _Exploration) -> WeightedPoints:
    """Weigh all points so far, and average their weights to the evidence."""
    log_ratio = exploration.compute_log_ratio()
    weights, pareto_k = smooth(log_ratio)
    top = float(log_ratio.max())
    log_evidence = top + float(np.log(np.mean(np.exp(log_ratio - top))))
    points, draws = exploration.points, exploration.require_draws()
    effective = measure_worst_effective(exploration.density, points, draws, weights)
    return WeightedPoints(points, draws, weights, pareto_k, log_evidence, effective)


def has_short_tail(weights: Array, pareto_k: float) -> bool:
    """Tell whether weights have so short a tail that more points or more care would not change them."""
    is_even = 1 / float((weights**2).sum()) >= EVEN_SHARE * len(weights)
    return not pareto_k > (FAIR_PARETO_K if is_even else GOOD_PARETO_K)


def measure_worst_effective(density: LatentDensity, points: Array, draws: LatentDraws, weights: Array) -> float:
    """Measure effective points of the worst of all hyperparameters, means, levels and effects: (SD / MCSE)²."""
    natural = density.structure.compute_natural(points)
    values = [np.concatenate([natural[name] for name in natural], axis=1)] if natural else []
    values.append(draws.columns * draws.column_scales)
    effects = draws.predictors - draws.predictors[:1] if density.structure.has_baseline else draws.predictors
    values.append(effects[density.structure.has_baseline :].reshape(-1, len(points)).T)
    squares = weights**2
    worst = 1 / float(squares.sum())
    for block in values:
        if not block.size:
            continue
        distance = (block - weights @ block) ** 2
        # Where a value is the same at all points there is nothing to be uncertain of.
        variance, error = weights @ distance, squares @ distance
        varies = variance > 1e-24 * np.maximum(np.abs(block).max(0) ** 2, 1e-300)
        if varies.any():
            worst = min(worst, float((variance[varies] / error[varies]).min()))
    return worst


def _start_components(landscape: Landscape, maps: CoordinateMaps) -> tuple[list[Array], list[Array]]:
    """Start with a component around every peak: its place in straight coordinates, and its covariance there."""
    peaks = landscape.peaks
    dim = len(peaks[0].point)
    if len(peaks) == 1:
        sds = np.sqrt(np.diag(peaks[0].covariance))
        correlation = peaks[0].covariance / np.outer(sds, sds)
        return [np.zeros(dim)], [0.8 * correlation + 0.2 * np.eye(dim)]
    base = np.sqrt(np.diag(peaks[0].covariance))
    centres = [maps.invert(peak.point[np.newaxis])[0] for peak in peaks]
    return centres, [peak.covariance / np.outer(base, base) * 1.3 for peak in peaks]


def _propose(centres: list[Array], covariances: list[Array], shares: Array) -> list[Component]:
    """Make the mixture: around every centre a normal, and a t that is wider."""
    components = []
    for centre, covariance, share in zip(centres, covariances, shares, strict=True):
        root = np.linalg.cholesky(covariance) if len(centre) else np.empty((0, 0))
        components.append(Component(share * NORMAL_SHARE, centre, root * NORMAL_SPREAD**0.5, np.inf))
        components.append(Component(share * T_SHARE, centre, root * T_SPREAD**0.5, T_FREEDOM))
    return components


def _draw_from(components: list[Component], count: int, rng: np.random.Generator) -> Array:
    """Draw from a mixture, as many points of each component as its share says, to one."""
    exact = np.array([component.share for component in components]) * count
    numbers = np.floor(np.cumsum(exact) + 0.5).astype(int)
    numbers = np.diff(np.concatenate([[0], numbers]))
    drawn = [component.draw(number, rng) for component, number in zip(components, numbers, strict=True)]
    return np.concatenate(drawn)


def _mix_densities(components: list[Component], counts: list[float], straight: Array) -> Array:
    """Compute the log density of the mixture of all proposals so far."""
    total = float(np.sum(counts))
    parts = [np.log(count / total) + component.compute_log_density(straight)
             for component, count in zip(components, counts, strict=True)]  # fmt: skip
    return np.asarray(special.logsumexp(np.stack(parts), axis=0))


def _learn_components(
    straight: Array, log_ratio: Array, centres: list[Array], covariances: list[Array]
) -> tuple[list[Array], list[Array], Array]:
    """Learn centre, covariance and share of every component from all weighted points."""
    dim = straight.shape[1]
    weights = _temper(log_ratio, POINTS_PER_DIM * max(dim, 1))
    # Every point belongs to the component that is nearest to it.
    distances = np.stack([
        (np.linalg.solve(np.linalg.cholesky(covariance), (straight - centre).T) ** 2).sum(0)
        if dim else np.zeros(len(straight))
        for centre, covariance in zip(centres, covariances, strict=True)
    ])  # fmt: skip
    owner = distances.argmin(0)
    found: tuple[list[Array], list[Array], list[float]] = ([], [], [])
    for number, (centre, covariance) in enumerate(zip(centres, covariances, strict=True)):
        mine = weights * (owner == number)
        mass = float(mine.sum())
        effective = mass**2 / float((mine**2).sum()) if mass > 0 else 0.0
        trust = min(1.0, effective / (TRUSTED_POINTS_PER_DIM * max(dim, 1)))
        if mass > 0:
            mean = mine @ straight / mass
            centred = straight - mean
            learnt = (mine[:, np.newaxis] * centred).T @ centred / mass
            found[0].append(trust * mean + (1 - trust) * centre)
            found[1].append(trust * learnt + (1 - trust) * covariance + 1e-9 * np.eye(dim))
        else:
            found[0].append(centre)
            found[1].append(covariance)
        found[2].append(max(mass / float(weights.sum()), LEAST_SHARE))
    shares = np.array(found[2])
    return found[0], found[1], shares / shares.sum()


def _temper(log_ratio: Array, least: float) -> Array:
    """Flatten weights until enough of them count."""
    shifted = log_ratio - log_ratio.max()
    for power in (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1):
        weights = np.exp(power * shifted)
        if weights.sum() ** 2 / (weights**2).sum() >= least:
            break
    return np.asarray(weights)


def _measure_uncovered(landscape: Landscape, exploration: _Exploration, sample: WeightedPoints) -> Array:
    """Measure the share of weight that each point of the scan would have had among the drawn ones."""
    if not len(landscape.scanned):
        return np.empty(0)
    straight = exploration.maps.invert(landscape.scanned)
    _, log_jacobian = exploration.maps.evaluate(straight)
    log_proposal = _mix_densities(exploration.components, exploration.counts, straight) - log_jacobian
    log_ratio = landscape.scanned_density - log_proposal
    # A weight of the sample is ratio / (count × evidence). Far below all peaks even a large ratio is no mass.
    log_share = np.nan_to_num(log_ratio, nan=-np.inf) - sample.log_evidence - np.log(len(sample.points))
    depth = landscape.scanned_density - max(peak.log_height for peak in landscape.peaks)
    return np.asarray(np.minimum(special.expit(log_share), np.exp(np.minimum(depth, 0.0))))
