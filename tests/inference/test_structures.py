"""How effects are shared by segments, against quadrature: every structure, and a new segment.

The oracle shares no code with the package. Given the between-segment SDs (and a correlation) a model of normal
estimates is linear in independent normal variables z:

    y = B z + error,   effects = E z,   z ~ Normal(m, diag(d²))

so that its posterior is a mixture of normal distributions over a grid of the SDs, by Gauss and Legendre on the
scale of their prior probabilities. Student's t and the horseshoe need one more integral per segment.

Monte-Carlo tolerance: means within 4 MCSE and a thousandth of an SD for the grid, probabilities within 4 MCSE and a
thousandth, SDs within 4 standard errors at the 400 effective draws that a diagnosis guarantees.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from quadrature_oracle import (
    AGE,
    DEVICE,
    PLAN,
    SAMPLE,
    SE,
    STRATUM,
    WIDE,
    Array,
    Mixture,
    Y,
    agrees,
    columns,
    estimates,
    grid_of,
    matches,
    measured,
    posterior,
    stated,
    tied,
)
from scipy import stats

import bayes_hte as hte
from bayes_hte.estimands.new_segment import draw_new_segment_effect

LAWS = {0.6: stats.halfnorm(scale=0.6), 0.9: stats.halfnorm(scale=0.9)}


def indicator(levels: list[str]) -> Array:
    """(segment, level), levels in order of appearance."""
    known = list(dict.fromkeys(levels))
    return np.array([[float(level == each) for each in known] for level in levels])


# Linear structures around a common mean


def linear(
    blocks: list[tuple[Array, Any]], *, slopes: Array | None = None, points: int = 32
) -> tuple[Mixture, list[Array], dict[str, NDArray[np.intp]]]:
    """effect = mean + covariates · slopes + Σ SD_k · Z_k z_k, for the data above; blocks are (Z, law of its SD).

    The functions are effects, mean, slopes, and the levels of each block but the last, which is the residual.
    """
    scales, prior = grid_of([law for _, law in blocks], points)
    fixed = np.ones((9, 1)) if slopes is None else np.column_stack([np.ones(9), slopes])
    k, size = fixed.shape[1], sum(z.shape[1] for z, _ in blocks)
    observed = np.zeros((len(prior), 9, k + size))
    observed[:, :, :k] = fixed
    levels, at = [np.broadcast_to(np.eye(k, k + size), (len(prior), k, k + size))], k
    sizes = {"effect": 9, "effect_mean": 1} | ({} if slopes is None else {"effect_slope": k - 1})
    for i, ((z, _), scale) in enumerate(zip(blocks, scales, strict=True)):
        span = slice(at, at + z.shape[1])
        observed[:, :, span] = scale[:, None, None] * z
        if i < len(blocks) - 1:
            level = np.zeros((len(prior), z.shape[1], k + size))
            level[:, :, span] = scale[:, None, None] * np.eye(z.shape[1])
            levels.append(level)
            sizes[f"term {i}"] = z.shape[1]
        at += z.shape[1]
    functions = np.concatenate([observed, *levels], axis=1)
    centre = np.zeros(k + size)
    centre[0] = 0.2
    d = np.concatenate([[1.1], np.full(k - 1, 0.7), np.ones(size)])
    return posterior(Y, SE, prior, observed, functions, centre, d), scales, columns(sizes)


def test_the_grid_is_fine_enough() -> None:
    blocks = [(indicator(DEVICE), LAWS[0.9]), (indicator(PLAN), LAWS[0.9]), (np.eye(9), LAWS[0.6])]
    coarse, fine = (linear(blocks, points=points)[0].moments() for points in (20, 32))
    assert (np.abs(coarse["mean"] - fine["mean"]) < 1e-3 * fine["sd"]).all()
    assert coarse["sd"] == pytest.approx(fine["sd"], rel=1e-3)


@pytest.mark.slow
def test_crossed_dimensions_equal_quadrature() -> None:
    blocks = [(indicator(DEVICE), LAWS[0.9]), (indicator(PLAN), LAWS[0.9]), (np.eye(9), LAWS[0.6])]
    found, scales, place = linear(blocks)
    cells = estimates(Y, SE, {"device": DEVICE, "plan": PLAN})
    fit = hte.fit(cells, stated(by=["*"], by_between=WIDE), sampler="nuts", draws=8000, seed=1)
    names = {"effect": "effect", "effect_mean": "effect_mean", "effect_device": "term 0", "effect_plan": "term 1"}
    matches(
        fit, {name: place[column] for name, column in names.items()}, found,
        {"effect_device_between": scales[0], "effect_plan_between": scales[1], "effect_between": scales[2]},
    )  # fmt: skip
    # A new plan on a known device: its device's effect is as fitted, that of its plan and its own are drawn.
    drawn = draw_new_segment_effect(fit.posterior, "link", 1, where={"device": "d1"})
    spread = scales[1] ** 2 + scales[2] ** 2
    level = place["term 0"][1]
    both = of_sum(blocks, place, level)
    weights, mean = found.weights, found.mean[:, place["effect_mean"][0]] + found.mean[:, level]
    average = weights @ mean
    variance = weights @ (both + spread + (mean - average) ** 2)
    agrees(drawn.squeeze("arm"), average, np.sqrt(variance))


def of_sum(blocks: list[tuple[Array, Any]], place: dict[str, NDArray[np.intp]], level: int) -> Array:
    """Variance of mean + a level's effect at every point: from that of a segment without an own estimate."""
    scales, prior = grid_of([law for _, law in blocks], 32)
    size = 1 + sum(z.shape[1] for z, _ in blocks)
    observed, at = np.zeros((len(prior), 9, size)), 1
    observed[:, :, 0] = 1.0
    for (z, _), scale in zip(blocks, scales, strict=True):
        observed[:, :, at : at + z.shape[1]] = scale[:, None, None] * z
        at += z.shape[1]
    function = np.zeros((len(prior), 1, size))
    which = int(level - place["term 0"][0])
    function[:, 0, 0], function[:, 0, 1 + which] = 1.0, scales[0]
    d = np.concatenate([[1.1], np.ones(size - 1)])
    found = posterior(Y, SE, prior, observed, function, np.concatenate([[0.2], np.zeros(size - 1)]), d)
    return found.variance[:, 0]


@pytest.mark.slow
def test_nested_dimensions_equal_quadrature() -> None:
    district = ["x", "x", "y", "y", "x", "y", "y", "x", "x"]  # names repeat in other regions, and are others there
    pairs = [f"{region} | {name}" for region, name in zip(PLAN, district, strict=True)]
    blocks = [(indicator(PLAN), LAWS[0.9]), (indicator(pairs), LAWS[0.9]), (np.eye(9), LAWS[0.6])]
    found, scales, place = linear(blocks)
    cells = estimates(Y, SE, {"region": PLAN, "district": district, "device": DEVICE})
    model = stated(by=["region", "region:district"], by_between=WIDE)
    fit = hte.fit(cells, model, sampler="nuts", draws=8000, seed=2)
    draws = fit.posterior["posterior"].to_dataset()
    nested = next(
        str(name) for name in draws.data_vars if "region:district" in draws[name].dims and "offset" not in str(name)
    )
    assert draws["region:district"].values.tolist() == list(dict.fromkeys(pairs))
    matches(
        fit, {"effect": place["effect"], "effect_region": place["term 0"], nested: place["term 1"]}, found,
        {"effect_region_between": scales[0], f"{nested}_between": scales[1], "effect_between": scales[2]},
    )  # fmt: skip


def test_a_covariate_equals_quadrature() -> None:
    z = (AGE - AGE.mean()) / AGE.std(ddof=1)
    found, scales, place = linear([(np.eye(9), LAWS[0.6])], slopes=z[:, None], points=80)
    cells = estimates(Y, SE, {"device": DEVICE, "plan": PLAN}, {"age": AGE})
    model = stated(covariates=["age"], slope={"dist": "Normal", "sigma": 0.7})
    fit = hte.fit(cells, model, sampler="exact", draws=8000, seed=3)
    names = {name: place[name] for name in ("effect", "effect_mean", "effect_slope")}
    matches(fit, names, found, {"effect_between": scales[0]})


def new_at(age: float) -> tuple[float, float]:
    """Mean and SD of the effect in a new segment of this age: one more segment whose estimate says nothing."""
    z = (AGE - AGE.mean()) / AGE.std(ddof=1)
    (scale,), prior = grid_of([LAWS[0.6]], 80)
    observed = np.concatenate(
        [np.broadcast_to(np.column_stack([np.ones(9), z]), (80, 9, 2)), scale[:, None, None] * np.eye(9, 10)], axis=-1
    )
    function = np.zeros((80, 1, 12))
    function[:, 0, :2], function[:, 0, 11] = [1.0, (age - AGE.mean()) / AGE.std(ddof=1)], scale
    centre, d = np.zeros(12), np.concatenate([[1.1, 0.7], np.ones(10)])
    centre[0] = 0.2
    moments = posterior(Y, SE, prior, observed, function, centre, d).moments()
    return float(moments["mean"][0]), float(moments["sd"][0])


def test_a_new_segment_is_where_its_covariate_says() -> None:
    cells = estimates(Y, SE, {"device": DEVICE, "plan": PLAN}, {"age": AGE})
    model = stated(covariates=["age"], slope={"dist": "Normal", "sigma": 0.7})
    fit = hte.fit(cells, model, sampler="exact", draws=8000, seed=3)
    for given, age in (({}, AGE.mean()), ({"age": 70.0}, 70.0), ({"age": 25.0}, 25.0)):
        agrees(draw_new_segment_effect(fit.posterior, "link", 4, covariates=given).squeeze("arm"), *new_at(age))


def test_strata_equal_quadrature() -> None:
    first = np.array(STRATUM) == "a"
    (low, high), prior = grid_of([LAWS[0.6]] * 2, 40)
    observed = np.zeros((len(prior), 9, 12))
    observed[:, :, 0] = 1.0
    observed[:, np.arange(9), np.arange(1, 10)] = np.where(first, low[:, None], high[:, None])
    functions = np.concatenate([observed, np.zeros((len(prior), 3, 12))], axis=1)
    functions[:, 9:, 0] = 1.0
    functions[:, 10, 10], functions[:, 11, 11] = low, high  # new segments, one of each stratum
    centre, d = np.zeros(12), np.concatenate([[1.1], np.ones(11)])
    centre[0] = 0.2
    found = posterior(Y, SE, prior, observed, functions, centre, d)
    cells = estimates(Y, SE, {"device": DEVICE, "stratum": STRATUM})
    fit = hte.fit(cells, stated(strata="stratum"), sampler="exact", draws=8000, seed=5)
    matches(fit, {"effect": np.arange(9), "effect_mean": np.array([9])}, found, {})
    between = fit.posterior["posterior"]["effect_between"].squeeze("arm")
    moments = found.moments()
    for column, (stratum, values) in enumerate({"a": low, "b": high}.items(), start=10):
        agrees(between.sel(stratum=stratum, drop=True), *found.average(values))
        drawn = draw_new_segment_effect(fit.posterior, "link", 6, where={"stratum": stratum}).squeeze("arm")
        agrees(drawn, moments["mean"][column], moments["sd"][column])


def test_one_sd_for_all_arms_equals_quadrature() -> None:
    y = np.array([[1.5, 0.2], [0.9, 1.4], [0.1, -0.6], [0.8, 0.3], [-0.4, 0.9]])
    se = np.array([[0.3, 0.4], [0.4, 0.5], [0.5, 0.3], [0.25, 0.3], [0.35, 0.6]])
    (scale,), prior = grid_of([LAWS[0.6]], 80)
    observed = np.zeros((80, 10, 12))
    observed[:, ::2, 0] = observed[:, 1::2, 1] = 1.0  # segments outermost
    observed[:, :, 2:] = scale[:, None, None] * np.eye(10)
    functions = np.concatenate([observed, np.broadcast_to(np.eye(2, 12), (80, 2, 12))], axis=1)
    centre, d = np.concatenate([[0.2, 0.2], np.zeros(10)]), np.concatenate([[1.1, 1.1], np.ones(10)])
    found = posterior(y.ravel(), se.ravel(), prior, observed, functions, centre, d)
    cells = estimates(y, se, {"device": ["u", "v", "w", "x", "y"]})
    fit = hte.fit(cells, stated(shared_between=True), sampler="exact", draws=8000, seed=7)
    assert fit.posterior["posterior"]["effect_between"].dims == SAMPLE
    matches(fit, {"effect": np.arange(10), "effect_mean": np.array([10, 11])}, found, {"effect_between": scale})


def test_a_correlation_of_baseline_and_effect_equals_quadrature() -> None:
    mean = np.array([[0.2, 1.6], [1.1, 2.9], [-0.8, -0.7], [0.5, 1.2], [1.9, 4.1], [-0.4, 0.3]])
    se = np.array([[0.3, 0.4], [0.2, 0.3], [0.3, 0.3], [0.5, 0.3], [0.35, 0.4], [0.2, 0.25]])
    law = stats.beta(2.0, 2.0, loc=-1.0, scale=2.0)  # what LKJ(2) is for one correlation
    (low, high, rho), prior = grid_of([LAWS[0.9], LAWS[0.6], law], 28)
    size, points = 6, len(prior)
    base = np.zeros((points, size, 2 + 2 * size))  # z: both means, offsets of baselines, offsets of effects
    base[:, :, 0] = 1.0
    base[:, :, 2 : 2 + size] = low[:, None, None] * np.eye(size)
    effect = np.zeros_like(base)
    effect[:, :, 1] = 1.0
    effect[:, :, 2 : 2 + size] = (high * rho)[:, None, None] * np.eye(size)
    effect[:, :, 2 + size :] = (high * np.sqrt(1 - rho**2))[:, None, None] * np.eye(size)
    observed = np.concatenate([base, base + effect], axis=1)
    centre, d = np.zeros(14), np.concatenate([[1.1, 1.1], np.ones(12)])
    centre[:2] = 0.2
    y, error = mean.T.ravel(), se.T.ravel()
    found = posterior(y, error, prior, observed, np.concatenate([effect, base], axis=1), centre, d)
    cells, model = measured(mean, se), tied({"dist": "LKJ", "eta": 2.0})
    fit = hte.fit(cells, model, sampler="exact", draws=8000, seed=8)
    hyper = {"baseline_between": low, "effect_between": high, "effect_correlation": rho}
    matches(fit, {"effect": np.arange(6), "baseline": np.arange(6, 12)}, found, hyper)


# Heavy tails: one more integral per segment

OUTLIER = np.array([0.3, 0.1, 0.45, 0.2, 3.2, 0.35, 0.0, 0.25])
OUTLIER_SE = np.array([0.2, 0.25, 0.3, 0.2, 0.4, 0.25, 0.3, 0.2])


def heavy(kernel: Callable[[float, float], tuple[Array, Array, Array]], points: int = 60) -> dict[str, Array]:
    """Moments of effects, given for (mean, between) each segment's integrals of 1, effect and effect²."""
    (between,), weight = grid_of([LAWS[0.6]], points)
    centres = np.linspace(-1.2, 1.7, 88)  # the posterior of the mean has an SD near 0.15
    mean, between = np.repeat(centres, points), np.tile(between, len(centres))
    prior = np.repeat(stats.norm.pdf(centres, 0.2, 1.1), points) * np.tile(weight, len(centres))
    told = [kernel(m, t) for m, t in zip(mean, between, strict=True)]
    zero, one, two = (np.stack(each) for each in zip(*told, strict=True))
    log = np.log(zero).sum(1)
    weights = prior * np.exp(log - log.max())
    weights /= weights.sum()
    first = weights @ (one / zero)
    tau = weights @ between
    return {
        "mean": first, "sd": np.sqrt(weights @ (two / zero) - first**2),
        "between": np.array([tau, np.sqrt(weights @ (between - tau) ** 2)]),
    }  # fmt: skip


def student_kernel(nu: float) -> Callable[[float, float], tuple[Array, Array, Array]]:
    e = np.linspace(-4.0, 7.0, 2201)
    likelihood = stats.norm.pdf(OUTLIER[:, None], e, OUTLIER_SE[:, None])

    def kernel(mean: float, between: float) -> tuple[Array, Array, Array]:
        # The prior's mass within each step, so that a narrow one is not missed between two points.
        edges = np.concatenate([e - 0.0025, [e[-1] + 0.0025]])
        mass = np.diff(stats.t.cdf((edges - mean) / between, nu))
        return likelihood @ mass, likelihood @ (mass * e), likelihood @ (mass * e**2)

    return kernel


def horseshoe_kernel(slab: float) -> Callable[[float, float], tuple[Array, Array, Array]]:
    nodes, weights = np.polynomial.legendre.leggauss(300)
    local, weights = stats.halfcauchy.ppf((nodes + 1) / 2), weights / 2

    def kernel(mean: float, between: float) -> tuple[Array, Array, Array]:
        variance = (slab * between * local) ** 2 / (slab**2 + (between * local) ** 2)
        own = OUTLIER_SE[:, None] ** 2
        density = weights * stats.norm.pdf(OUTLIER[:, None], mean, np.sqrt(own + variance))
        centre = mean + variance / (variance + own) * (OUTLIER[:, None] - mean)
        square = centre**2 + variance * own / (variance + own)
        return density.sum(1), (density * centre).sum(1), (density * square).sum(1)

    return kernel


def test_students_t_equals_brute_force() -> None:
    expected = heavy(student_kernel(4.0), points=48)
    cells = estimates(OUTLIER, OUTLIER_SE, {"device": [f"d{i}" for i in range(8)]})
    fit = hte.fit(cells, stated(shape="student_t", nu=4.0), sampler="exact", draws=8000, seed=9)
    assert fit.diagnosis.ok, fit.diagnosis
    draws = fit.posterior["posterior"].to_dataset().squeeze("arm")
    agrees(draws["effect"], expected["mean"], expected["sd"])
    agrees(draws["effect_between"], *expected["between"])


@pytest.mark.slow
def test_the_horseshoe_equals_brute_force() -> None:
    expected = heavy(horseshoe_kernel(2.0))
    cells = estimates(OUTLIER, OUTLIER_SE, {"device": [f"d{i}" for i in range(8)]})
    model = stated(shape="horseshoe", slab=2.0)
    fit = hte.fit(cells, model, sampler="nuts", draws=8000, seed=10)
    draws = fit.posterior["posterior"].to_dataset().squeeze("arm")
    agrees(draws["effect"], expected["mean"], expected["sd"])
    # The outlier keeps more of its estimate than under a normal distribution, and the others keep less of theirs.
    normal = heavy(gaussian)
    assert expected["mean"][4] > normal["mean"][4] + 0.05
    assert np.delete(draws["effect"].mean(SAMPLE).values, 4).std() < 0.8 * np.delete(normal["mean"], 4).std()


def gaussian(mean: float, between: float) -> tuple[Array, Array, Array]:
    variance, own = between**2, OUTLIER_SE**2
    density = stats.norm.pdf(OUTLIER, mean, np.sqrt(own + variance))
    centre = mean + variance / (variance + own) * (OUTLIER - mean)
    return density, density * centre, density * (centre**2 + variance * own / (variance + own))
