"""The PyMC model, the text that is shown of it, and the NumPy formulas beside it say the same thing."""

from collections.abc import Iterator

import arviz as az
import numpy as np
import pytest
import xarray as xr
from example_models import beliefs, free_point, run_shown_text
from pymc.stats import compute_log_likelihood, compute_log_prior
from pytensor import config
from scipy import stats

from bayes_hte.criticism.arviz_groups import add_arviz_groups
from bayes_hte.inference.draws import Draws
from bayes_hte.model.long_form import compute_linear_predictor
from bayes_hte.model.priors import freeze_distribution
from bayes_hte.model.problem import Problem, build_problem, list_stated_priors
from bayes_hte.model.pymc.build import build_pymc_model
from bayes_hte.spec.fit_tree import FitRecord

FAMILY_CELLS = {"binomial": "counts", "normal": "moments", "mean": "means", "estimate": "schools"}


@pytest.fixture(autouse=True)
def _interpreted() -> Iterator[None]:
    """A few evaluations of each model: interpreting them is faster than compiling."""
    with config.change_flags(mode="FAST_COMPILE"):
        yield


CASES = [
    (family, pooling, baseline)
    for family in FAMILY_CELLS
    for pooling in ("partial", "none", "complete")
    for baseline in (("partial", "none") if family != "estimate" else ("partial",))
]


@pytest.fixture(params=CASES, ids="-".join)
def task(request: pytest.FixtureRequest) -> Problem:
    family, pooling, baseline = request.param
    return build_problem(request.getfixturevalue(FAMILY_CELLS[family]), beliefs(family, pooling, baseline))


@pytest.fixture(params=[case for case in CASES if case[1] == "partial"], ids="-".join)
def partial(request: pytest.FixtureRequest) -> Problem:
    """The structures whose likelihoods and priors differ; pooling is covered by the whole text."""
    family, pooling, baseline = request.param
    return build_problem(request.getfixturevalue(FAMILY_CELLS[family]), beliefs(family, pooling, baseline))


def test_shown_pymc_text_is_the_model_that_is_fitted(task: Problem) -> None:
    ours, shown = build_pymc_model(task), run_shown_text(task)
    point = free_point(ours, seed=1)
    assert ours.compile_logp()(point) == pytest.approx(float(shown.compile_logp()(point)), rel=1e-12)


def random_posterior(task: Problem, draws: int = 3) -> xr.Dataset:
    """Constrained values of every variable at random unconstrained points."""
    model = build_pymc_model(task)
    function = model.compile_fn(model.unobserved_value_vars, inputs=model.value_vars, on_unused_input="ignore")
    dims = {**model.named_vars_to_dims}
    values: dict[str, list[np.ndarray]] = {}
    for seed in range(draws):
        for variable, value in zip(model.unobserved_value_vars, function(free_point(model, seed)), strict=True):
            values.setdefault(str(variable.name), []).append(np.asarray(value))
    return xr.Dataset(
        {
            name: (("chain", "draw", *dims.get(name, ())), np.stack(found)[None])
            for name, found in values.items()
            if not name.endswith("__")
        },
        coords={**task.coords, "chain": [0], "draw": np.arange(draws)},
    )


def test_numpy_log_likelihood_equals_pymc(partial: Problem) -> None:
    posterior = random_posterior(partial)
    parameters = {name: posterior[name] for name in ("effect", "baseline", "sigma") if name in posterior}
    ours = partial.family.compute_log_likelihood(
        partial.long_cells, compute_linear_predictor(partial.long_cells, parameters), parameters
    ).sum("cell")
    tree = xr.DataTree.from_dict({"posterior": posterior})
    theirs = compute_log_likelihood(
        tree, model=build_pymc_model(partial), extend_inferencedata=False, progressbar=False
    )
    total = sum(theirs[name].sum([d for d in theirs[name].dims if d not in ("chain", "draw")]) for name in theirs)
    # For the normal family PyMC sees the density of (mean, SS), ours is that of the units: they differ by a constant.
    difference = (ours - total).values.ravel()
    slack = 1e-9 * np.abs(ours.values).max()
    assert np.ptp(difference) < slack
    if partial.family.name != "normal":
        assert np.abs(difference).max() < slack


def test_numpy_priors_equal_pymc(partial: Problem) -> None:
    posterior = random_posterior(partial)
    tree = xr.DataTree.from_dict({"posterior": posterior})
    names = list(list_stated_priors(partial.model))
    theirs = compute_log_prior(
        tree, var_names=names, model=build_pymc_model(partial), extend_inferencedata=False, progressbar=False
    )
    for name, law in list_stated_priors(partial.model).items():
        # PyTensor holds some constants of these densities in single precision.
        np.testing.assert_allclose(
            freeze_distribution(law).logpdf(posterior[name].values), theirs[name].values, rtol=1e-6, atol=1e-6
        )


def completed(task: Problem, posterior: xr.Dataset, *, seed: int) -> xr.DataTree:
    """Every group that follows from some draws."""
    record = FitRecord(model=task.model, seed=seed)
    return add_arviz_groups(Draws(posterior, xr.Dataset()).to_fit_tree(task.cell_statistics, record))


def test_every_group_that_arviz_asks_for_is_there(partial: Problem) -> None:
    posterior = random_posterior(partial, draws=60)
    tree = completed(partial, posterior, seed=3)
    assert set(tree.children) >= {
        "posterior", "sample_stats", "log_likelihood", "log_prior", "posterior_predictive", "prior",
        "prior_predictive", "observed_data", "constant_data", "cells",
    }  # fmt: skip
    observed = set(tree["observed_data"].data_vars)
    assert set(tree["posterior_predictive"].data_vars) == observed == set(tree["prior_predictive"].data_vars)
    assert set(tree["prior"].data_vars) == {name for name in posterior.data_vars if not str(name).endswith("_offset")}
    assert tree["log_likelihood"]["y"].sizes["cell"] == partial.long_cells.sizes["cell"]
    assert np.isfinite(az.hdi(tree, prob=0.9)["effect"].values).all()


def test_prior_draws_follow_the_stated_priors(schools: xr.Dataset) -> None:
    task = build_problem(schools, beliefs("estimate", "partial", "partial"))
    tree = completed(task, random_posterior(task, draws=4), seed=11)
    for name, law in list_stated_priors(task.model).items():
        draws = tree["prior"][name].values.ravel()
        empirical = stats.kstest([freeze_distribution(law).ppf(q) for q in np.linspace(0.0005, 0.9995, 1000)], draws)
        # A fixed seed; a right sampler fails this with probability 1e-4.
        assert empirical.pvalue > 1e-4, name
