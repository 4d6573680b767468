"""One segment given the hyperparameters: its mode, and the integral of its likelihood over its offsets.

I_s(θ) = ∫ φ(u) L0(b(u)) Π_a [ ∫ φ(x) L_a(b(u) + c_a u + e_a(x)) dx ] du       φ: standard normal density

c_a is 0 unless effects are correlated with the baseline; then the effect is c_a u + e_a(x).

Given the baseline the arms are independent, so K arms cost K nested one-dimensional integrals. Gauss–Hermite
nodes are centred at the mode and scaled by the curvature there (adaptive quadrature: Naylor & Smith 1982,
JRSS C 31:214); for Gaussian families one node is exact. Arrays are (point, segment) throughout.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bayes_hte.inference.exact.coefficients import Heavy, Line, Map
from bayes_hte.inference.exact.space import Array
from bayes_hte.model.families.cell_likelihood import ArmCellData, CellLikelihood

Index = NDArray[np.intp]
Quantity = Callable[[Array, Array], Array]
"""Of a baseline and an effect on the link scale."""
STEPS = 12
"""Newton steps after the anchored one, at most."""
SETTLED = 0.01
"""Longest last step, in posterior SDs: a rule centred at its end is as good as one centred at the mode."""
MAX_STEP = 3.0
"""Longest step of an offset: beyond a few prior SDs a quadratic model of a binomial likelihood is worthless."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The cells of some segments, arm by arm, the control first, and how their likelihood is computed.

    Attributes
    ----------
    curve : CellLikelihood
    arms : tuple of ArmCellData
    anchors : tuple of ndarray
        (segment,) linear predictor of every arm at which its likelihood has a quadratic model.
    models : tuple of Quadratic or None
        These models; None where they depend on sigma.
    """

    curve: CellLikelihood
    arms: tuple[ArmCellData, ...]
    anchors: tuple[Array, ...]
    models: "tuple[Quadratic, ...] | None"

    @classmethod
    def at(cls, curve: CellLikelihood, arms: tuple[ArmCellData, ...], anchors: tuple[Array, ...]) -> "Segments":
        """With their models at these anchors."""
        if curve.nuisance_name is not None:
            return cls(curve, arms, anchors, None)
        pairs = zip(arms, anchors, strict=True)
        return cls(
            curve, arms, anchors, tuple(Quadratic.of(curve, arm, anchor[None, :], None) for arm, anchor in pairs)
        )

    @property
    def size(self) -> int:
        """How many segments."""
        return len(self.anchors[0])

    def pick(self, chosen: Index) -> "Segments":
        """Only these segments."""
        arms = tuple({name: values[..., chosen] for name, values in arm.items()} for arm in self.arms)
        return Segments.at(self.curve, arms, tuple(anchor[chosen] for anchor in self.anchors))

    def model(self, arm: int, sigma: Array | None) -> "Quadratic":
        """The quadratic model of an arm's cells."""
        if self.models is not None:
            return self.models[arm]
        at = np.broadcast_to(self.anchors[arm], (1 if sigma is None else sigma.shape[-2], self.size))
        return Quadratic.of(self.curve, self.arms[arm], at, sigma)


@dataclass(frozen=True, slots=True)
class Quadratic:
    """Log likelihood, score and information of one arm's cells at their anchors: (1 or point, segment)."""

    value: Array
    score: Array
    information: Array

    @classmethod
    def of(cls, curve: CellLikelihood, arm: ArmCellData, anchor: Array, sigma: Array | None) -> "Quadratic":
        """By the family's curve."""
        return cls(curve.compute_log_density(arm, anchor, sigma), *curve.compute_derivatives(arm, anchor, sigma))


@dataclass(frozen=True, slots=True)
class Maps:
    """Baseline and effects as functions of offsets at some points.

    Attributes
    ----------
    points : int
    baseline : Map
    effects : tuple of Map
    couplings : tuple of ndarray or None
        Per arm, by how much the effect moves with the baseline's offset: (point, 1) or (point, segment).
    sigma : tuple of ndarray or None
        The nuisance parameter of every arm, the control's first, where the family has one.
    """

    points: int
    baseline: Map
    effects: tuple[Map, ...]
    couplings: tuple[Array | None, ...]
    sigma: tuple[Array | None, ...]

    @property
    def is_heavy(self) -> bool:
        """Whether an effect has heavy tails."""
        return any(isinstance(effect, Heavy) for effect in self.effects)

    def components(self) -> list[tuple[float, "Maps"]]:
        """List maps with normal components in the place of heavy tails, with log weights; without any, itself."""
        found: list[tuple[float, Maps]] = [(0.0, self)]
        for arm, effect in enumerate(self.effects):
            if isinstance(effect, Heavy):
                found = [
                    (weight + own_weight, maps.replace_effect(arm, line))
                    for weight, maps in found
                    for own_weight, line in effect.components()
                ]
        return found

    def replace_effect(self, arm: int, effect: Map) -> "Maps":
        """Put another map in the place of an arm's effect."""
        return replace(self, effects=(*self.effects[:arm], effect, *self.effects[arm + 1 :]))

    @property
    def coupled(self) -> bool:
        """Whether an effect moves with the baseline's offset."""
        return any(coupling is not None for coupling in self.couplings)

    def below(self, arm: int, base: Array, baseline: Array) -> Array:
        """What an arm's own offset is added to: the baseline, and what the baseline's offset says of the effect."""
        coupling = self.couplings[arm]
        return baseline if coupling is None else baseline + coupling * base

    def effect(self, arm: int, offset: Array, base: Array) -> Array:
        """The effect at offsets of its own and of the baseline."""
        value, coupling = self.effects[arm].value(offset), self.couplings[arm]
        return value if coupling is None else value + coupling * base

    def slope(self, arm: int, slope: Array) -> Array:
        """Of an arm's linear predictor along the baseline's offset, given the baseline's own."""
        coupling = self.couplings[arm]
        return slope if coupling is None else slope + coupling

    def zero(self, arm: int, base: Array) -> Array:
        """The offset at which the effect is 0."""
        coupling = self.couplings[arm]
        return self.effects[arm].offset(np.zeros(1) if coupling is None else -coupling * base)


@dataclass(frozen=True, slots=True)
class Mode:
    """Where a segment's posterior given the hyperparameters is highest, and its shape there.

    Attributes
    ----------
    base, base_sd : ndarray
        Offset of the baseline, and its standard deviation with the arms integrated out.
    arms, arm_sd : tuple of ndarray
        Offset of each arm's effect, and its standard deviation given the baseline.
    lean : tuple of ndarray
        By how much the mode of an arm's offset moves when the baseline's offset moves by one.
    """

    base: Array
    base_sd: Array
    arms: tuple[Array, ...]
    arm_sd: tuple[Array, ...]
    lean: tuple[Array, ...]

    def broader(self) -> "Mode":
        """With SDs halfway, on the log scale, between the peak's and the prior's.

        A single unit under a very wide prior makes a step: a sharp peak, and a shoulder as broad as the prior.
        """
        return replace(self, base_sd=self.base_sd**0.5, arm_sd=tuple(spread**0.5 for spread in self.arm_sd))


def locate(segments: Segments, maps: Maps, *, refined: bool = True, settled: float = SETTLED) -> Mode:
    """Gauss–Newton to the mode of every (point, segment).

    The first step starts from a quadratic model of the likelihood at `segments.anchors`, which is where the
    mode was at the most probable hyperparameters: it needs no evaluation, and is exact for Gaussian families.
    Without refinement it is the only one; with it, steps are taken until the longest is `settled`.
    """
    system = _anchored_system(segments, maps)
    zero = np.zeros((maps.points, segments.size))
    base, arms = _moved(system, zero, [zero] * len(maps.effects), limit=np.inf)
    if refined and not (segments.curve.is_quadratic and straight(maps)):
        for _ in range(STEPS):
            system = _system(segments, maps, base, arms)
            before = base, arms
            base, arms = _moved(system, base, arms, limit=MAX_STEP)
            if _short(before, (base, arms), system, settled):
                break
    shape = base.shape
    return Mode(
        base,
        np.broadcast_to(system.precision**-0.5, shape),
        tuple(arms),
        tuple(np.broadcast_to(own**-0.5, shape) for own in system.own),
        tuple(np.broadcast_to(lean, shape) for lean in system.lean),
    )


def _short(
    before: tuple[Array, list[Array]], after: tuple[Array, list[Array]], system: "_System", limit: float
) -> bool:
    """Whether a step was shorter than so many posterior SDs, wherever it has come to a number."""
    moves = zip((before[0], *before[1]), (after[0], *after[1]), (system.precision, *system.own), strict=True)
    return not any(bool(((new - old) ** 2 * precision > limit**2).any()) for old, new, precision in moves)


def straight(maps: Maps) -> bool:
    """Whether baseline and effects are linear in their offsets, or mixtures of such."""
    return all(isinstance(each, Line | Heavy) for each in (maps.baseline, *maps.effects))


def needs_refining(segments: Segments, maps: Maps) -> bool:
    """Whether one step from the anchors may miss the mode by more than its SD.

    Cutpoints, hazards or dispersions that are not those of the anchors move the mode of a precise cell by many of
    its SDs, and heavy tails bend the posterior.
    """
    has_nuisance = segments.curve.nuisance_name is not None and not segments.curve.is_quadratic
    return has_nuisance or not straight(maps)


@dataclass(frozen=True, slots=True)
class _System:
    """The arrow-shaped Gauss–Newton equations of all (point, segment): arms meet only through the baseline.

    Attributes
    ----------
    total : ndarray
        Slope of the log likelihood along the baseline's offset.
    precision : ndarray
        Of the baseline's offset, with the arms integrated out.
    pulls, own, lean : list of ndarray
        Per arm: slope along its offset, precision of it given the baseline, and `Mode.lean`.
    """

    total: Array
    precision: Array
    pulls: list[Array]
    own: list[Array]
    lean: list[Array]


def _assembled(
    control: tuple[Array, Array, Array], cells: Sequence[tuple[Array, Array, Array, Array]], *, coupled: bool
) -> _System:
    """From score, information and slope of the map; for other arms than the control also the slope along the base.

    Unless `coupled`, every arm's slope along the base is the control's, and is multiplied once for all arms.
    """
    # With score g_a, information i_a, slope d_a along an arm's own offset, b_a along the baseline's (a = 0: control):
    #   own_a = 1 + i_a d_a²     lean_a = −i_a d_a b_a / own_a     pull_a = g_a d_a
    #   total = Σ_a g_a b_a      precision = 1 + i_0 b_0² + Σ_a>0 b_a² i_a / own_a
    score, told, slope = control
    total = score * slope if coupled else score
    told = told * (slope * slope) if coupled else told
    pulls, owns, leans = [], [], []
    for score, information, arm_slope, along in cells:
        total = total + (score * along if coupled else score)
        weight = information * arm_slope
        own = weight * arm_slope
        own += 1.0
        # What an arm tells of the baseline once its own offset is free: no difference of large numbers.
        told = told + (information / own * (along * along) if coupled else information / own)
        lean = weight * -along
        lean /= own
        pulls.append(score * arm_slope)
        owns.append(own)
        leans.append(lean)
    precision = told if coupled else told * (slope * slope)
    precision = precision + 1.0
    return _System(total if coupled else total * slope, precision, pulls, owns, leans)


def _anchored_system(segments: Segments, maps: Maps) -> _System:
    """At offsets 0, on the quadratic model of every cell at its anchor."""
    anchors = segments.anchors
    line = maps.baseline.line(anchors[0])
    control = (*_anchored(segments, maps, 0, line.location), line.scale)
    cells = []
    for index, effect in enumerate(maps.effects, start=1):
        tangent = effect.line(anchors[index] - anchors[0])
        eta = line.location + tangent.location
        cells.append((*_anchored(segments, maps, index, eta), tangent.scale, maps.slope(index - 1, line.scale)))
    return _assembled(control, cells, coupled=maps.coupled)


def _anchored(segments: Segments, maps: Maps, arm: int, eta: Array) -> tuple[Array, Array]:
    """Score and information at `eta`, from the quadratic model of an arm's likelihood at its anchor."""
    model = segments.model(arm, maps.sigma[arm])
    # score + information (anchor − η)
    score = segments.anchors[arm] - eta
    score = score * model.information
    score += model.score
    return score, model.information


def _system(segments: Segments, maps: Maps, base: Array, arms: list[Array]) -> _System:
    """At the current offsets."""
    curve, baseline, slope = segments.curve, maps.baseline.value(base), maps.baseline.slope(base)
    control = (*curve.compute_derivatives(segments.arms[0], baseline, maps.sigma[0]), slope)
    cells = []
    for arm, (cell, effect, sigma, offset) in enumerate(
        zip(segments.arms[1:], maps.effects, maps.sigma[1:], arms, strict=True)
    ):
        eta = effect.value(offset)
        eta = eta + maps.below(arm, base, baseline)
        cells.append((*curve.compute_derivatives(cell, eta, sigma), effect.slope(offset), maps.slope(arm, slope)))
    return _assembled(control, cells, coupled=maps.coupled)


def _moved(system: _System, base: Array, arms: list[Array], *, limit: float) -> tuple[Array, list[Array]]:
    """One step to the solution of the equations, no longer than `limit` in any offset."""
    # move = (total − base + Σ_a lean_a (pull_a − x_a)) / precision,   x_a moves by (pull_a − x_a) / own_a + lean_a move
    pulls = [pull - offset for pull, offset in zip(system.pulls, arms, strict=True)]
    move = system.total - base
    for pull, lean in zip(pulls, system.lean, strict=True):
        move = move + lean * pull
    move /= system.precision
    if np.isfinite(limit):
        np.clip(move, -limit, limit, out=move)
    found = []
    for pull, own, lean, offset in zip(pulls, system.own, system.lean, arms, strict=True):
        step = pull / own
        step = step + lean * move
        if np.isfinite(limit):
            np.clip(step, -limit, limit, out=step)
        found.append(offset + step)
    return base + move, found


def mix_log(maps: Maps, compute: Callable[[Maps], Array]) -> Array:
    """Compute the logarithm of an integral from those of its normal components."""
    # log Σ_k exp(log weight_k + value_k)
    total: Array | None = None
    for log_weight, component in maps.components():
        term = compute(component) + log_weight
        total = term if total is None else np.logaddexp(total, term)
    return np.asarray(total)


def weigh_components(maps: Maps, compute: Callable[[Maps], Array]) -> list[tuple[Array, Maps]]:
    """List components with their shares of the integral whose logarithm `compute` gives: (point, segment)."""
    found = [(compute(component) + log_weight, component) for log_weight, component in maps.components()]
    top = np.max([height for height, _ in found], axis=0)
    total = np.sum([np.exp(height - top) for height, _ in found], axis=0)
    return [(np.exp(height - top) / total, component) for height, component in found]


def log_quadratic(segments: Segments, maps: Maps) -> Array:
    """log I_s(θ) if every cell's likelihood were its quadratic model at its anchor: closed form, no evaluation.

    Written with slopes and informations at offsets 0, never with an estimate or a variance: a cell that says
    nothing has information 0.
    """
    line = maps.baseline.line(segments.anchors[0])
    found, slope, told = _quadratic(segments, maps, 0, line.location)
    coupled = maps.coupled
    if coupled:
        slope, told = slope * line.scale, told * (line.scale * line.scale)
    for index, effect in enumerate(maps.effects, start=1):
        tangent = effect.line(segments.anchors[index] - segments.anchors[0])
        value, pull, weight = _quadratic(segments, maps, index, line.location + tangent.location)
        # ∫ over the arm's offset: value + ½ (scale² g² / own − log own),   own = 1 + scale² i
        square = tangent.scale * tangent.scale
        own = square * weight
        own += 1.0
        weight = weight / own
        pulled = pull / own
        pull *= pulled
        pull *= square
        np.log(own, out=own)
        pull -= own
        pull *= 0.5
        found = found + value + pull
        along = maps.slope(index - 1, line.scale)
        slope = slope + (pulled * along if coupled else pulled)
        told = told + (weight * (along * along) if coupled else weight)
    # ∫ over the baseline's: Σ values + ½ (slope² / told − log told), in the offset's units
    square = np.ones(1) if coupled else line.scale * line.scale
    told = square * told
    told += 1.0
    bend = square * (slope * slope)
    bend /= told
    bend -= np.log(told)
    bend *= 0.5
    return np.broadcast_to(found + bend, (maps.points, segments.size))


def _quadratic(segments: Segments, maps: Maps, arm: int, eta: Array) -> tuple[Array, Array, Array]:
    """Log likelihood of an arm's cells at `eta`, its slope and its information, from the quadratic model."""
    model = segments.model(arm, maps.sigma[arm])
    # slope = g − i (η − anchor),   value = v + ½ (g + slope) (η − anchor)
    away = eta - segments.anchors[arm]
    slope = model.information * away
    np.subtract(model.score, slope, out=slope)
    value = slope + model.score
    value *= away
    value *= 0.5
    value += model.value
    return value, slope, model.information


@lru_cache(maxsize=64)
def rule(order: int) -> tuple[Array, Array]:
    """Nodes t and log weights of ∫ f(t) dt ≈ Σ exp(log weight) f(t), for f close to a normal density."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    return nodes, np.log(weights) + 0.5 * nodes**2


def log_integral(segments: Segments, maps: Maps, mode: Mode, order: int) -> Array:
    """log I_s(θ) of every (point, segment), with `order` nodes in each direction."""
    curve, (nodes, weights) = segments.curve, rule(order)
    terms = []
    for node, weight in zip(nodes, weights, strict=True):
        base = mode.base + mode.base_sd * node
        baseline = maps.baseline.value(base)
        total = curve.compute_log_density(segments.arms[0], baseline, maps.sigma[0]) - 0.5 * base**2 + weight
        for index in range(len(maps.effects)):
            log_terms, _ = _arm_terms(segments, maps, mode, (index, baseline, node), order)
            total = total + log_sum(log_terms)
        terms.append(total)
    found = log_sum(terms) + np.log(mode.base_sd)
    for spread in mode.arm_sd:
        found += np.log(spread)
    return np.asarray(found - 0.5 * np.log(2 * np.pi) * (1 + len(mode.arm_sd)))


def _arm_terms(
    segments: Segments, maps: Maps, mode: Mode, at: tuple[int, Array, float], order: int
) -> tuple[Array, Array]:
    """The log of each term of an arm's quadrature at one node of the baseline, and the effect there.

    (node, point, segment).
    """
    index, baseline, node = at
    nodes, weights = (each[:, None, None] for each in rule(order))
    effect, spread = maps.effects[index], mode.arm_sd[index]
    centre = mode.arms[index] + mode.lean[index] * (mode.base_sd * node)
    if maps.couplings[index] is not None:
        baseline = maps.below(index, mode.base + mode.base_sd * node, baseline)
    if isinstance(effect, Line):
        value = effect.scale * spread * nodes
        value += effect.value(centre)
    else:
        value = effect.value(centre + spread * nodes)
    terms = segments.curve.compute_log_density(segments.arms[index + 1], baseline + value, maps.sigma[index + 1])
    # log L − ½ offset² + log weight
    offset = spread * nodes
    offset += centre
    np.multiply(offset, offset, out=offset)
    offset *= 0.5
    terms -= offset
    terms += weights
    return terms, value


def expectation(segments: Segments, maps: Maps, mode: Mode, order: int, of: Quantity) -> Array:
    """Posterior mean of a quantity of (baseline, effect) given the hyperparameters: (point, segment, arm)."""
    curve, (nodes, weights) = segments.curve, rule(order)
    totals, means = [], []
    for node, weight in zip(nodes, weights, strict=True):
        base = mode.base + mode.base_sd * node
        baseline = maps.baseline.value(base)
        total = curve.compute_log_density(segments.arms[0], baseline, maps.sigma[0]) - 0.5 * base**2 + weight
        given = []
        for index in range(len(maps.effects)):
            terms, effects = _arm_terms(segments, maps, mode, (index, baseline, node), order)
            effects = effects + (maps.below(index, base, baseline) - baseline)
            whole = log_sum(terms)
            given.append((np.exp(terms - whole) * of(np.broadcast_to(baseline, effects.shape), effects)).sum(0))
            total = total + whole
        totals.append(total)
        means.append(np.stack(np.broadcast_arrays(*given), axis=-1))
    whole = log_sum(totals)
    return np.sum([np.exp(t - whole)[..., None] * m for t, m in zip(totals, means, strict=True)], axis=0)


def log_sum(terms: Sequence[Array] | Array) -> Array:
    """log Σ exp(term) of a quadrature, relative to the term in its middle, where the integrand is about largest."""
    # middle + log(1 + Σ_others exp(term − middle))
    middle = terms[len(terms) // 2]
    total = np.ones_like(middle)
    for position, term in enumerate(terms):
        if position != len(terms) // 2:
            excess = term - middle
            total += np.exp(np.minimum(excess, 700.0, out=excess), out=excess)
    np.log(total, out=total)
    total += middle
    return total
