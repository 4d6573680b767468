"""Families of counts, revenue, ordered answers and survival: every formula against an independent computation.

Tolerances: formulas to rounding error or to the error of a finite difference; simulations within 4.5 standard errors
of the simulated average, which one comparison in 150,000 exceeds; everything else as stated beside it.
"""

from collections.abc import Iterator
from typing import Any

import arviz as az
import numpy as np
import pytest
import xarray as xr
from example_cells import example
from example_revenue import Array, revenue
from example_structures import stated
from pytensor import config
from scipy import special, stats

import bayes_hte as hte
from bayes_hte import Model
from bayes_hte.inference.exact import parts
from bayes_hte.model.families import FAMILIES, two_part
from bayes_hte.model.long_form import build_long_form, compute_linear_predictor
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.model.pymc.build import build_pymc_model

NEW = ["poisson", "negative_binomial", "ordinal", "piecewise_exponential"]
ALL = [*NEW, "two_part"]
NUISANCE: dict[str, Array | None] = {
    "poisson": None,
    "negative_binomial": np.array([[0.7]]),
    "ordinal": np.array([-1.2, 0.1, 1.5]).reshape(3, 1, 1),
    "piecewise_exponential": np.array([-0.4, 0.3]).reshape(2, 1, 1),
}


@pytest.fixture(autouse=True)
def _interpreted() -> Iterator[None]:
    """A few evaluations of each model: interpreting them is faster than compiling."""
    with config.change_flags(mode="FAST_COMPILE"):
        yield


# The curve that the exact engine integrates


@pytest.mark.parametrize("family", NEW)
def test_derivatives_of_the_density_are_those_of_finite_differences(family: str) -> None:
    chosen = FAMILIES[family]
    curve, nuisance = chosen.checked_cell_likelihood, NUISANCE[family]
    data = curve.pack_arrays(build_long_form(chosen.select_statistics(example(family))))
    eta = np.random.default_rng(1).normal(0.0, 1.5, (20, len(data[next(iter(data))].T)))
    step = 1e-4
    slope, curvature = curve.compute_derivatives(data, eta, nuisance)
    up, down = (curve.compute_log_density(data, eta + sign * step, nuisance) for sign in (1, -1))
    # Rounding: densities near 1,000 are known to 1e-13, divided by the step.
    np.testing.assert_allclose((up - down) / (2 * step), slope, rtol=1e-6, atol=1e-5)
    above, below = (curve.compute_derivatives(data, eta + sign * step, nuisance)[0] for sign in (1, -1))
    np.testing.assert_allclose((below - above) / (2 * step), curvature, rtol=1e-6, atol=1e-6)
    assert (np.asarray(curvature) >= 0).all()


@pytest.mark.parametrize("family", NEW)
def test_cells_that_were_never_seen_say_nothing(family: str) -> None:
    chosen = FAMILIES[family]
    statistics = chosen.select_statistics(example(family)).isel(arm=2)
    curve, nuisance = chosen.checked_cell_likelihood, NUISANCE[family]
    data, eta = curve.pack_arrays(statistics), np.linspace(-400.0, 400.0, 9)[:, None] + np.zeros(6)
    assert np.isfinite(curve.compute_log_density(data, eta, nuisance)).all()
    assert not curve.compute_log_density(data, eta, nuisance)[:, -1].any()
    assert not any(each[:, -1].any() for each in curve.compute_derivatives(data, eta, nuisance))


@pytest.mark.parametrize("family", NEW)
def test_the_first_guess_is_near_the_mode_of_a_cell(family: str) -> None:
    chosen = FAMILIES[family]
    data = chosen.checked_cell_likelihood.pack_arrays(chosen.select_statistics(example(family)).isel(arm=0))
    guess = chosen.checked_cell_likelihood.guess_eta(data)
    assert guess.shape == (6,)
    assert np.isfinite(guess).all()
    rough = None if family == "poisson" else NUISANCE[family]
    slope, curvature = chosen.checked_cell_likelihood.compute_derivatives(data, guess[None], rough)
    # A Newton step away from the mode is harmless from three posterior SDs or so; eta's own scale is of order 1.
    assert (np.abs(slope / (1 + curvature)) < 3).all()


# The likelihood, three times: NumPy, PyMC, textbook


def positions(task: Problem, count: int = 3) -> Iterator[tuple[float, xr.Dataset]]:
    """Log likelihood of the PyMC model at random points, with the parameters there."""
    built = build_pymc_model(task)
    outcome = [*built.observed_RVs, *built.potentials]
    logp = built.compile_logp(vars=outcome, jacobian=False)
    values = built.compile_fn(built.unobserved_value_vars, inputs=built.value_vars, on_unused_input="ignore")
    rng = np.random.default_rng(4)
    for _ in range(count):
        point = {name: rng.normal(0, 0.6, np.shape(value)) for name, value in built.initial_point().items()}
        found = {
            str(variable.name): (
                ("chain", "draw", *built.named_vars_to_dims.get(str(variable.name), ())),
                value[None, None],
            )
            for variable, value in zip(built.unobserved_value_vars, values(point), strict=True)
            if not str(variable.name).endswith("__")
        }
        yield float(logp(point)), xr.Dataset(found, coords=task.coords)


def parameters_of(task: Problem, drawn: xr.Dataset) -> dict[str, xr.DataArray]:
    found = {str(name): values for name, values in drawn.data_vars.items()}
    return found | (two_part.combine_parts(found) if task.model.amount is not None else {})


@pytest.mark.parametrize("family", ALL)
def test_numpy_log_likelihood_is_that_of_the_pymc_model_but_for_a_constant(family: str) -> None:
    task = build_problem(example(family), stated(family, {}))
    differences = []
    for theirs, drawn in positions(task):
        given = parameters_of(task, drawn)
        ours = task.family.compute_log_likelihood(
            task.long_cells, compute_linear_predictor(task.long_cells, given), given
        )
        assert ours.dims == ("chain", "draw", "cell")
        differences.append(float(ours.sum()) - theirs)
    assert np.ptp(differences) < 1e-8
    if family in NEW:  # of two parts, PyMC sees how many bought and a sum of squares, ours is that of the units
        assert abs(differences[0]) < 1e-8


def test_negative_binomial_counts_every_unit_once() -> None:
    task = build_problem(example("negative_binomial"), stated("negative_binomial", {}))
    (_, drawn), *_ = positions(task, 1)
    given = parameters_of(task, drawn)
    eta = compute_linear_predictor(task.long_cells, given)
    ours = task.family.compute_log_likelihood(task.long_cells, eta, given).values.ravel()
    for c in range(task.long_cells.sizes["cell"]):
        units = np.repeat(task.long_cells["value"].values, task.long_cells["histogram"].values[c])
        alpha, mean = (
            drawn["alpha"].values.ravel()[task.long_cells["arm_index"].values[c]],
            np.exp(eta.values.ravel()[c]),
        )
        assert ours[c] == pytest.approx(stats.nbinom.logpmf(units, alpha, alpha / (alpha + mean)).sum(), rel=1e-9)


def test_two_parts_count_every_unit_once() -> None:
    rows, cells = revenue(seed=5, segments=2)
    task = build_problem(cells, stated("two_part", {}))
    (_, drawn), *_ = positions(task, 1)
    given = parameters_of(task, drawn)
    ours = task.family.compute_log_likelihood(
        task.long_cells, compute_linear_predictor(task.long_cells, given), given
    ).values.reshape(2, 2)
    for s in (0, 1):
        for a in (0, 1):
            first, second = (
                float(drawn[f"{part}_baseline"][0, 0, s]) + (float(drawn[f"{part}_effect"][0, 0, s, 0]) if a else 0.0)
                for part in ("chance", "amount")
            )
            sigma, bought = float(drawn["sigma"][0, 0, a]), rows[s][a] > 0
            expected = stats.bernoulli.logpmf(bought, special.expit(first)).sum()
            expected += stats.norm.logpdf(np.log(rows[s][a][bought]), second, sigma).sum()
            assert ours[s, a] == pytest.approx(expected, rel=1e-9)


# How much a segment alone would tell


def expected_square(pmf: Array, log_slope: Array) -> float:
    """Fisher information: the mean of the squared score."""
    return float((pmf * log_slope**2).sum())


def of_one_unit(family: str, eta: float, nuisance: Array) -> float:
    """Information of one unit, or one unit of exposure, from probabilities alone."""
    step = 1e-5

    def pmf(x: float) -> Array:
        if family == "poisson":
            return np.asarray(stats.poisson.pmf(np.arange(400), np.exp(x)))
        if family == "negative_binomial":
            return np.asarray(stats.nbinom.pmf(np.arange(4000), nuisance[0], nuisance[0] / (nuisance[0] + np.exp(x))))
        return np.diff(np.concatenate([[0.0], special.expit(nuisance - x), [1.0]]))

    here, slope = pmf(eta), (pmf(eta + step) - pmf(eta - step)) / (2 * step)
    seen = here > 1e-290
    return expected_square(here[seen], slope[seen] / here[seen])


def draws_of(values: Any, *dims: str, **coords: Any) -> xr.DataArray:
    """One draw of a parameter."""
    return xr.DataArray(np.asarray(values, float)[None, None], dims=("chain", "draw", *dims), coords=coords)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "ordinal"])
def test_effect_variance_is_the_inverse_of_the_information_of_both_arms(family: str) -> None:
    cells = example(family, arms=("control", "email"))
    chosen = FAMILIES[family]
    baseline, effect = np.linspace(-0.5, 0.8, 6), np.linspace(0.3, -0.4, 6)
    given = {"baseline": draws_of(baseline, "segment"), "effect": draws_of(effect[:, None], "segment", "arm")}
    nuisance: tuple[Array, Array] = (np.array([0.8]), np.array([1.7]))
    if family == "negative_binomial":
        given["alpha"] = draws_of([0.8, 1.7], "variant")
    if family == "ordinal":
        nuisance = (np.array([-1.2, 0.1, 1.5]),) * 2
        given["cutpoints"] = draws_of(nuisance[0], "cutpoint")
    found = chosen.compute_effect_variance(chosen.select_statistics(cells), given)
    size = cells["exposure" if family == "poisson" else "n"].values.astype(float)
    size[-1, -1] = 0.0
    for s in range(6):
        arms = [
            of_one_unit(family, baseline[s], nuisance[0]),
            of_one_unit(family, baseline[s] + effect[s], nuisance[1]),
        ]
        expected = 1 / (size[s, 0] * arms[0]) + (1 / (size[s, 1] * arms[1]) if size[s, 1] else np.inf)
        assert float(found.squeeze()[s]) == pytest.approx(expected, rel=1e-6)


def test_effect_variance_of_survival_is_one_over_expected_events_of_both_arms() -> None:
    cells = example("piecewise_exponential", arms=("control", "email"))
    baseline, effect, hazards = np.full(6, -2.0), np.linspace(0.3, -0.4, 6), np.array([0.0, -0.4, 0.3])
    given = {
        "baseline": draws_of(baseline, "segment"), "effect": draws_of(effect[:, None], "segment", "arm"),
        "hazards": draws_of(hazards[1:], "later_interval", later_interval=["5-10", "10-20"]),
    }  # fmt: skip
    found = FAMILIES["piecewise_exponential"].compute_effect_variance(cells, given).squeeze()
    with np.errstate(divide="ignore"):
        control, treated = ((cells["at_risk"].values[:, a] * np.exp(hazards)).sum(-1) for a in (0, 1))
        expected = 1 / (control * np.exp(baseline)) + 1 / (treated * np.exp(baseline + effect))
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)


def test_effect_variance_of_two_parts_is_that_of_simulated_estimates() -> None:
    rng, repeats = np.random.default_rng(15), 60_000
    n, log_odds, sigma = np.array([4000, 3000]), np.array([-0.4, 0.1]), np.array([0.9, 1.2])
    positive = rng.binomial(n, special.expit(log_odds), (repeats, 2))
    log_means = np.log(positive / n) + rng.normal(0.0, sigma / np.sqrt(positive))
    cells = xr.Dataset({"n": (("segment", "arm"), n[None])})
    given = {
        "chance_baseline": draws_of(log_odds[:1], "segment"),
        "chance_effect": draws_of([[log_odds[1] - log_odds[0]]], "segment", "arm"),
        "sigma": draws_of(sigma, "variant"),
    }
    found = float(FAMILIES["two_part"].compute_effect_variance(cells, given).squeeze())
    # A simulated variance has a relative standard error of sqrt(2 / repeats); the delta method misses one part in n.
    assert found == pytest.approx(np.var(log_means[:, 1] - log_means[:, 0]), rel=4.5 * np.sqrt(2 / repeats) + 1 / 3000)


# Replicated data, and means on the outcome's own scale

DRAWS = 40_000


def copies(drawn: xr.Dataset) -> xr.Dataset:
    """The same parameters in many draws."""
    return drawn.isel(draw=np.zeros(DRAWS, dtype=int))


def near(simulated: Array, expected: Array) -> None:
    """Averages over draws, which come first, are expected within 4.5 of their standard errors."""
    error = simulated.std(0) / np.sqrt(len(simulated))
    np.testing.assert_array_less(np.abs(simulated.mean(0) - expected), 4.5 * error + 1e-9)


def moments(family: str, cells: xr.Dataset, eta: Array, drawn: xr.Dataset) -> dict[str, tuple[Array, Array]]:
    """Mean and variance of every replicated statistic, from the distribution's definition."""
    arm = cells["arm_index"].values
    if family == "poisson":
        mean = cells["exposure"].values * np.exp(eta)
        return {"events": (mean, mean)}
    if family == "negative_binomial":
        law = stats.nbinom(a := drawn["alpha"].values.ravel()[arm], a / (a + np.exp(eta)))
        n, none = cells["n"].values, law.pmf(0)
        return {"total": (n * law.mean(), n * law.var()), "zeros": (n * none, n * none * (1 - none))}
    if family == "ordinal":
        below = special.expit(drawn["cutpoints"].values.ravel() - eta[:, None])
        share = np.diff(np.pad(below, ((0, 0), (1, 1)), constant_values=(0.0, 1.0)))
        n = cells["n"].values[:, None]
        return {"histogram": (n * share, n * share * (1 - share))}
    if family == "piecewise_exponential":
        relative = np.exp([0.0, *drawn["hazards"].values.ravel()])
        mean = (cells["at_risk"].values * relative).sum(-1) * np.exp(eta)
        return {"events": (mean, mean)}
    first, second = (
        compute_linear_predictor(
            cells, {name: drawn[f"{part}_{name}"] for name in ("effect", "baseline")}
        ).values.ravel()
        for part in ("chance", "amount")
    )
    n, share, sigma = cells["n"].values, special.expit(first), drawn["sigma"].values.ravel()[arm]
    return {
        "positive": (n * share, n * share * (1 - share)),
        "log_mean": (second, sigma**2 / np.maximum(cells["positive"].values, 1)),
    }


@pytest.mark.parametrize("family", ALL)
def test_replicated_data_have_the_mean_and_variance_of_the_distribution(family: str) -> None:
    task = build_problem(example(family), stated(family, {}))
    (_, drawn), *_ = positions(task, 1)
    given = parameters_of(task, copies(drawn))
    eta = compute_linear_predictor(task.long_cells, given)
    found = task.family.simulate_data(task.long_cells, eta, given, np.random.default_rng(16))
    assert set(found) == set(task.family.simulated_names)
    for name, (mean, variance) in moments(family, task.long_cells, eta.values[0, 0], drawn).items():
        assert found[name].dims[:3] == ("chain", "draw", "cell")
        simulated = found[name].values[0].astype(float)
        near(simulated, mean)
        near((simulated - mean) ** 2, variance)


def simulated_outcomes(family: str, baseline: float, drawn: xr.Dataset, rng: np.random.Generator) -> Array:
    """Outcomes of single units of the control, by the model's own story."""
    if family == "poisson":
        return rng.poisson(np.exp(baseline), DRAWS).astype(float)
    if family == "negative_binomial":
        alpha = float(drawn["alpha"].values.ravel()[0])
        return rng.poisson(rng.gamma(alpha, np.exp(baseline) / alpha, DRAWS)).astype(float)
    if family == "ordinal":
        latent = baseline + rng.logistic(0.0, 1.0, DRAWS)
        return np.array([1.0, 2.0, 3.0, 5.0])[np.searchsorted(drawn["cutpoints"].values.ravel(), latent)]
    if family == "piecewise_exponential":  # whether the event comes before time 12: interval by interval
        alive = np.ones(DRAWS, dtype=bool)
        rates = np.exp(baseline + np.array([0.0, *drawn["hazards"].values.ravel()]))
        for rate, length in zip(rates, (5.0, 5.0, 2.0), strict=True):
            alive &= rng.exponential(1 / rate, DRAWS) > length
        return 1.0 - alive
    bought = rng.random(DRAWS) < special.expit(float(drawn["chance_baseline"][0, 0, 0]))
    sigma = float(drawn["sigma"].values.ravel()[0])
    return np.asarray(bought * rng.lognormal(float(drawn["amount_baseline"][0, 0, 0]), sigma, DRAWS))


@pytest.mark.parametrize("family", ALL)
def test_means_are_those_of_simulated_units(family: str) -> None:
    task = build_problem(example(family), stated(family, {}))
    (_, drawn), *_ = positions(task, 1)
    if family == "piecewise_exponential":  # hazards at which an event within the time is neither certain nor rare
        drawn["baseline"] = drawn["baseline"] - 2.5
    given = parameters_of(task, drawn)
    mean = task.family.compute_mean(given["baseline"], given, task.cell_statistics)
    assert mean.dims == ("chain", "draw", "segment")
    baseline = float(given["baseline"][0, 0, 0])
    units = simulated_outcomes(family, baseline, drawn, np.random.default_rng(17))
    near(units[:, None], mean.values[0, 0, :1])


# Two parts are two problems


@pytest.fixture(scope="module")
def bought() -> tuple[hte.Fit, xr.Dataset, Model]:
    _, cells = revenue(seed=18, segments=8)
    model = stated("two_part", {})
    return hte.fit(cells, model, sampler="exact", draws=8000, seed=1), cells, model


def test_each_part_is_what_it_would_be_on_its_own(bought: tuple[hte.Fit, xr.Dataset, Model]) -> None:
    fit, cells, model = bought
    assert model.amount is not None
    chance = Model(family="binomial", effect=model.effect, baseline=model.baseline)
    amount = Model.model_validate(
        {"family": "normal", "effect": model.amount.effect.model_dump(), "baseline": model.amount.baseline,
         "nuisance": model.nuisance}
    )  # fmt: skip
    moments = cells[["positive", "log_mean", "log_ss"]].rename(positive="n", log_mean="mean", log_ss="ss")
    alone = {"chance": (cells[["n"]].assign(events=cells["positive"]), chance), "amount": (moments, amount)}
    posterior = fit.posterior["posterior"].to_dataset()
    for part, (data, belief) in alone.items():
        theirs = hte.fit(data.assign_attrs(cells.attrs), belief, sampler="exact", draws=8000, seed=2)
        other = theirs.posterior["posterior"].to_dataset()
        for name in ("effect", "effect_mean", "effect_between", "baseline", "baseline_mean", "baseline_between"):
            one, two = posterior[f"{part}_{name}"], other[name]
            mcse = [az.mcse(each.to_dataset(name="x"), method="mean")["x"].values for each in (one, two)]
            difference = (one.mean(("chain", "draw")) - two.mean(("chain", "draw"))).values
            assert (np.abs(difference) < 4 * np.hypot(*mcse)).all(), (part, name)


def test_the_effect_of_two_parts_is_the_log_ratio_of_means(bought: tuple[hte.Fit, xr.Dataset, Model]) -> None:
    posterior = bought[0].posterior["posterior"].to_dataset().squeeze("arm")
    half = posterior["sigma"].transpose("variant", "chain", "draw").values ** 2 / 2
    chance = [posterior["chance_baseline"], posterior["chance_baseline"] + posterior["chance_effect"]]
    amount = [posterior["amount_baseline"], posterior["amount_baseline"] + posterior["amount_effect"]]
    means = [
        special.expit(c.values) * np.exp(m.values + h[..., None])
        for c, m, h in zip(chance, amount, half, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(posterior["effect"].values, np.log(means[1] / means[0]), atol=1e-10)
    np.testing.assert_allclose(posterior["baseline"].values, np.log(means[0]), atol=1e-10)


def test_the_two_parts_are_independent_in_the_draws(bought: tuple[hte.Fit, xr.Dataset, Model]) -> None:
    posterior = bought[0].posterior["posterior"].to_dataset()
    one, two = (posterior[f"{part}_effect"].values.reshape(8000, -1) for part in ("chance", "amount"))
    correlation = np.corrcoef(one.T, two.T)[:8, 8:]
    # 64 correlations of independent draws; copies of points halve their number at worst.
    assert np.abs(correlation).max() < 4.5 / np.sqrt(4000)


def test_parts_hold_the_units_they_speak_of(bought: tuple[hte.Fit, xr.Dataset, Model]) -> None:
    chance, amount = parts.split(build_problem(*bought[1:]))
    assert (chance.cell_statistics["events"] == bought[1]["positive"]).all()
    assert (amount.cell_statistics["n"] == bought[1]["positive"]).all()
