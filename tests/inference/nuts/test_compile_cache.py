"""Machine code that was compiled for other data answers for these data."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
import xarray as xr
from example_cells import table
from numpy.typing import NDArray

from bayes_hte import Model, read_model
from bayes_hte.inference.nuts import compile_cache
from bayes_hte.inference.nuts.sample import NutsSettings, sample_with_nuts
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.model.pymc.build import build_pymc_model

HALF = {"dist": "HalfNormal", "sigma": 0.5}


def counts(seed: int, segments: int = 5, prefix: str = "s", arms: tuple[str, ...] = ("control", "email")) -> xr.Dataset:
    """Cells whose numbers, and nothing else, depend on the seed."""
    rng = np.random.default_rng(seed)
    n = rng.integers(20, 400, (segments, len(arms)))
    cells = table({"n": n, "events": rng.binomial(n, 0.2)}, arms=arms, control="control")
    labels = [f"{prefix}{i}" for i in range(segments)]
    return cells.assign_coords(segment=labels, device=("segment", labels))


def believed(mu: float = 0.0, sigma: float = 1.0, between: dict[str, Any] = HALF) -> Model:
    """A binomial model with these priors."""
    return Model.model_validate(
        {
            "family": "binomial",
            "effect": {"mean": {"dist": "Normal", "mu": 0.0, "sigma": sigma}, "between": between},
            "baseline": {"mean": {"dist": "Normal", "mu": mu, "sigma": 2.5}, "between": HALF},
        }
    )


FIRST, SECOND = (counts(1), believed()), (counts(2, prefix="other "), believed(mu=-3.0, sigma=0.3))


def task_of(pair: tuple[xr.Dataset, Model]) -> Problem:
    return build_problem(*pair)


@pytest.fixture(scope="module")
def reused() -> Iterator[Any]:
    """Compiled for the first data and priors, used with the second."""
    compile_cache.clear_cache()
    compile_cache.compile_or_reuse(build_pymc_model(task_of(FIRST), reusable=True))
    yield compile_cache.compile_or_reuse(build_pymc_model(task_of(SECOND), reusable=True))
    compile_cache.clear_cache()


def called(machine: Any, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The log density and gradient that the sampler sees."""
    arguments = [ctypes.c_uint64, *[ctypes.c_void_p] * 4]
    function = ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(machine.compiled_logp_func.address)
    point, gradient, density = np.ascontiguousarray(point), np.zeros_like(point), np.zeros(())
    data = machine.user_data.ctypes.data
    assert function(len(point), point.ctypes.data, gradient.ctypes.data, density.ctypes.data, data) == 0
    return float(density), gradient


def unravelled(machine: Any, point: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """A point of the sampler as PyMC's value variables."""
    size = len(point)
    return {
        name: point[place].reshape(shape)
        for name, place, shape in zip(*machine.shape_info, strict=True)
        if place.stop <= size
    }


def test_reused_code_gives_the_log_density_of_the_data_at_hand(reused: Any) -> None:
    # The oracle is built for the second data set and compiled by PyMC itself, as a whole.
    oracle = build_pymc_model(task_of(SECOND), reusable=True).compile_logp(mode="FAST_COMPILE")
    rng = np.random.default_rng(0)
    for _ in range(20):
        point = rng.normal(size=reused.n_dim)
        density, _ = called(reused, point)
        assert density == pytest.approx(float(oracle(unravelled(reused, point))), rel=1e-9)


def test_gradient_is_that_of_the_log_density(reused: Any) -> None:
    point, step = np.random.default_rng(1).normal(size=reused.n_dim), 1e-5
    _, gradient = called(reused, point)
    for i, each in enumerate(np.eye(reused.n_dim) * step):
        slope = (called(reused, point + each)[0] - called(reused, point - each)[0]) / (2 * step)
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-5)  # error of the difference: step² × curvature


def test_labels_are_those_of_the_data_at_hand(reused: Any) -> None:
    assert list(reused.coords["segment"]) == [f"other {i}" for i in range(5)]


def test_chains_start_where_the_data_are_whatever_was_compiled_first(reused: Any) -> None:
    again = compile_cache.compile_or_reuse(build_pymc_model(task_of((FIRST[0], believed(mu=1000.0))), reusable=True))
    assert again.compiled_logp_func is reused.compiled_logp_func
    before, elsewhere, after = (machine.initial_point_func(7) for machine in (reused, again, reused))
    assert (before == after).all()
    for machine, start in ((reused, before), (again, elsewhere)):
        assert np.isfinite(called(machine, start)[0])
        offsets = {name: each for name, each in unravelled(machine, start).items() if name.endswith("_offset")}
        assert offsets
        assert all(np.abs(each).max() <= 1 for each in offsets.values())  # 0, and nutpie jitters by U(-1, 1)


def test_nothing_of_the_data_alone_is_computed_at_every_step(reused: Any) -> None:
    said = str(reused.logp_func.maker.fgraph)
    assert "gammaln" not in said
    assert [var.name for var in reused.logp_func.get_shared()] == [compile_cache.HOISTED_VECTOR_NAME]


def signature(cells: xr.Dataset, model: Model | None = None) -> Any:
    return compile_cache.build_signature(build_pymc_model(build_problem(cells, model or believed()), reusable=True))


def test_numbers_and_labels_are_no_part_of_the_structure() -> None:
    assert signature(*FIRST) == signature(*SECOND)
    assert hash(signature(*FIRST)) == hash(signature(*SECOND))


def test_everything_else_is() -> None:
    gap = counts(1)
    gap["n"][2, 1] = gap["events"][2, 1] = 0
    cauchy = believed(between={"dist": "HalfCauchy", "beta": 0.5})
    unpooled = believed().model_copy(update={"baseline": read_model("conversion").baseline})
    others = [
        signature(counts(1, segments=6)),
        signature(counts(1, arms=("control", "email", "sms"))),
        signature(gap),
        signature(counts(1), cauchy),
        signature(counts(1), Model.model_validate(believed().model_dump() | {"pooling": "complete"})),
    ]
    assert len({signature(counts(1)), *others}) == 1 + len(others)
    assert signature(counts(1), unpooled) == signature(counts(1))  # the shipped baseline differs in numbers only


def test_bounds_and_transforms_are_part_of_the_structure() -> None:
    def model(**options: Any) -> pm.Model:
        with pm.Model() as made:
            x = pm.Data("x__data", 1.0)
            pm.Normal("y", x, **options)
        return made

    interval, other = (pm.distributions.transforms.Interval(0.0, upper) for upper in (1.0, 2.0))
    plain = compile_cache.build_signature(model())
    assert plain == compile_cache.build_signature(model())
    assert len({plain, *(compile_cache.build_signature(model(transform=each)) for each in (interval, other))}) == 3
    assert compile_cache.build_signature(model(initval=0.5)) != plain


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compilation replaced by a list of what was compiled."""
    made: list[str] = []

    def compile_(model: pm.Model) -> Any:
        made.append(str(model.free_RVs[0].name))
        return object()

    monkeypatch.setattr(compile_cache, "_compile_structure", compile_)
    monkeypatch.setattr(compile_cache, "_exchange_data", lambda entry, values, model: (entry, values["x__data"].item()))
    compile_cache.clear_cache()
    return made


def named(name: str, value: float = 0.0) -> pm.Model:
    with pm.Model() as made:
        pm.Normal(name, pm.Data("x__data", value))
    return made


@pytest.mark.usefixtures("reused")
def test_the_structure_that_was_used_longest_ago_is_dropped(counted: list[str]) -> None:
    names = ["a", "b", "c", "d"]
    for name in [*names, "a", "e", "a"]:
        compile_cache.compile_or_reuse(named(name))
    assert counted == [*names, "e"]
    compile_cache.compile_or_reuse(named("b"))
    assert counted[-1] == "b"
    compile_cache.clear_cache()


def test_threads_share_code_and_not_data(counted: list[str]) -> None:
    found: dict[int, Any] = {}

    def ask(i: int) -> None:
        found[i] = compile_cache.compile_or_reuse(named("a", float(i)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert counted == ["a"]
    assert {i: value for i, (_, value) in found.items()} == {i: float(i) for i in range(8)}
    compile_cache.clear_cache()


@pytest.mark.slow
def test_data_that_change_a_shape_are_compiled_anew() -> None:
    def model(mask: list[int]) -> pm.Model:
        with pm.Model() as made:
            kept = pt.nonzero(pm.Data("mask__data", np.array(mask)))[0]
            x = pm.Normal("x", shape=3)
            pm.Potential("p", -(x[kept] ** 2).sum())
        return made

    compile_cache.clear_cache()
    for mask in ([1, 0, 1], [1, 1, 1], [0, 1, 0]):
        machine = compile_cache.compile_or_reuse(model(mask))
        point = np.array([1.0, 2.0, 3.0])
        normal = -0.5 * (point**2).sum() - 1.5 * np.log(2 * np.pi)
        assert called(machine, point)[0] == pytest.approx(normal - (point**2 * mask).sum(), rel=1e-12)
    compile_cache.clear_cache()


PAIRS: dict[str, Callable[[int], tuple[xr.Dataset, str]]] = {
    "normal": lambda seed: (moments(seed), "continuous"),
    "mean": lambda seed: (moments(seed), "metric"),
    "estimate": lambda seed: (estimates(seed), "published-estimates"),
}


def moments(seed: int) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    n = rng.integers(20, 90, (4, 2))
    data = {"n": n, "mean": 10 * seed + rng.normal(size=n.shape), "ss": rng.gamma(9, 10, n.shape)}
    return table(data, arms=("control", "email"), control="control")


def estimates(seed: int) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return table({"estimate": rng.normal(size=(4, 1)), "se": rng.gamma(9, 0.1, (4, 1))}, arms=("x",), control="")


@pytest.mark.slow
@pytest.mark.parametrize("family", PAIRS)
def test_every_family_can_be_reused(family: str) -> None:
    compile_cache.clear_cache()
    (first, name), (second, _) = PAIRS[family](1), PAIRS[family](2)
    first_machine = compile_cache.compile_or_reuse(
        build_pymc_model(build_problem(first, read_model(name)), reusable=True)
    )
    machine = compile_cache.compile_or_reuse(build_pymc_model(build_problem(second, read_model(name)), reusable=True))
    assert machine.compiled_logp_func is first_machine.compiled_logp_func
    oracle = build_pymc_model(build_problem(second, read_model(name)), reusable=True).compile_logp(mode="FAST_COMPILE")
    point = np.random.default_rng(3).normal(size=machine.n_dim)
    assert called(machine, point)[0] == pytest.approx(float(oracle(unravelled(machine, point))), rel=1e-9)
    compile_cache.clear_cache()


@pytest.mark.slow
def test_draws_do_not_depend_on_what_was_fitted_before() -> None:
    options: dict[str, Any] = {"draws": 1000, "seed": 3, "settings": NutsSettings(0.9, 400), "progress": False}
    compile_cache.clear_cache()
    fresh = sample_with_nuts(task_of(SECOND), **options)
    compile_cache.clear_cache()
    sample_with_nuts(task_of(FIRST), **options)
    again = sample_with_nuts(task_of(SECOND), **options)
    xr.testing.assert_equal(fresh.posterior, again.posterior)
    compile_cache.clear_cache()
