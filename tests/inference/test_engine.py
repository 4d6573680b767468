"""An engine is one file: a toy that is registered here is chosen, recorded, diagnosed, reported and saved."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.inference import engine as engines
from bayes_hte.inference.draws import Draws, EngineRefusalError
from bayes_hte.inference.engine import (
    ENGINES,
    EngineResult,
    draw_posteriors,
    list_sampler_names,
    register_engine,
    remove_engine,
)
from bayes_hte.model.problem import Problem, build_problem
from bayes_hte.spec import fit_tree

PRIOR_SD = 20.0
SCHOOLS = pd.DataFrame({"school": ["A", "B", "C"], "y": [28.0, 8.0, -3.0], "se": [15.0, 10.0, 16.0]})
MODEL = hte.Model(family="estimate", pooling="none", effect={"mean": {"dist": "Normal", "sigma": PRIOR_SD}})


@dataclass(frozen=True)
class Conjugate:
    """Published estimates with a Normal prior each: precision 1/se² + 1/σ², mean y/se² over it."""

    name: str = "toy"
    refusal: str = ""

    def supports(self, problem: Problem) -> str | None:
        return None if problem.model.family == "estimate" else "it knows published estimates only"

    def draw(self, problem: Problem, *, draws: int, seed: int, progress: bool) -> Draws:
        if self.refusal:
            raise EngineRefusalError(self.refusal)
        mean, sd = posterior_moments(problem.cell_statistics)
        noise = np.random.default_rng(seed).standard_normal((draws, *mean.shape))
        return Draws.from_arrays(problem, {"effect": mean + sd * noise}, {}, {})


def posterior_moments(statistics: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    precision = statistics["se"].values ** -2 + PRIOR_SD**-2
    return statistics["estimate"].values * statistics["se"].values ** -2 / precision, precision**-0.5


@pytest.fixture(autouse=True)
def same_engines_afterwards() -> Iterator[None]:
    before = dict(ENGINES)
    yield
    ENGINES.clear()
    ENGINES.update(before)


@pytest.fixture
def schools() -> xr.Dataset:
    return hte.cells.from_estimates(SCHOOLS, segments=["school"], estimate="y", se="se")


def test_a_third_engine_goes_through_table_report_and_file(schools: xr.Dataset, tmp_path: Path) -> None:
    register_engine(Conjugate())
    fit = hte.fit(schools, MODEL, sampler="toy", draws=4000, seed=3)
    mean, sd = posterior_moments(schools)
    table = fit.table("link")
    # Five standard errors of a mean of 4,000 independent draws: three means are outside once in 600,000 seeds.
    np.testing.assert_array_less(np.abs(table["effect"] - mean[:, 0]), 5 * sd[:, 0] / np.sqrt(4000))
    assert fit.diagnosis.ok
    assert fit.diagnosis.certificate is None
    assert fit.engine == "Drawn by the toy engine, as asked."
    assert "Drawn by the toy engine, as asked." in fit.report(tmp_path / "report.html").read_text(encoding="utf-8")
    fit_tree.check_fit_tree(fit.tree)

    remove_engine("toy")
    loaded = hte.load(fit.save(tmp_path / "fit.nc"))
    assert fit_tree.get_engine_name(loaded.tree) == "toy"
    assert loaded.engine == fit.engine
    pd.testing.assert_frame_equal(loaded.table("link"), table)


def test_an_engine_that_is_not_registered_is_not_known(schools: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="no sampler 'toy'; there are auto, exact, nuts"):
        hte.fit(schools, MODEL, sampler="toy")


def test_the_package_comes_with_two_engines() -> None:
    assert list_sampler_names() == ("auto", "exact", "nuts")


def test_auto_takes_the_first_engine_that_can(schools: xr.Dataset) -> None:
    register_engine(Conjugate(), before="exact")
    fit = hte.fit(schools, MODEL)
    assert list(ENGINES) == ["toy", "exact", "nuts"]
    assert (fit_tree.get_engine_name(fit.tree), fit.engine) == ("toy", "Drawn by the toy engine.")


def test_auto_goes_on_with_the_reason_where_an_engine_refuses(schools: xr.Dataset) -> None:
    register_engine(Conjugate(refusal="its result is off"), before="exact")
    fit = hte.fit(schools, MODEL)
    assert fit_tree.get_engine_name(fit.tree) == "exact"
    assert fit.engine.endswith(", because the toy engine cannot solve this: its result is off.")


def test_a_named_engine_that_refuses_is_an_error_with_the_others_named(schools: xr.Dataset) -> None:
    register_engine(Conjugate(refusal="its result is off"))
    expected = "the toy engine cannot solve this: its result is off; use sampler auto, exact or nuts"
    with pytest.raises(hte.FitError, match=expected):
        hte.fit(schools, MODEL, sampler="toy")


def test_an_engine_is_asked_first_whether_it_supports_the_problem() -> None:
    register_engine(Conjugate())
    counts = pd.DataFrame({"d": ["x", "x", "y", "y"], "a": ["0", "1"] * 2, "n": [90, 91, 92, 93], "e": [9, 8, 7, 6]})
    cells = hte.cells.from_summary(counts, arm="a", control="0", segments=["d"], n="n", events="e")
    with pytest.raises(hte.FitError, match="it knows published estimates only"):
        hte.fit(cells, "conversion", sampler="toy")


def test_draws_that_fail_are_drawn_once_more_where_the_engine_can(schools: xr.Dataset) -> None:
    class Stuck(Conjugate):
        def draw(self, problem: Problem, *, draws: int, seed: int, progress: bool) -> Draws:
            good = super().draw(problem, draws=draws, seed=seed, progress=progress)
            shift = xr.DataArray([0.0, 0.0, 0.0, 1e6], dims="chain")
            return dataclasses.replace(
                good, posterior=good.posterior.assign(effect=good.posterior["effect"] + shift), retry=lambda: good
            )

    register_engine(Stuck())
    fit = hte.fit(schools, MODEL, sampler="toy")
    assert fit.diagnosis.ok
    assert fit.diagnosis.refitted


@pytest.mark.parametrize("name", ["auto", "exact", "nuts"])
def test_a_name_is_given_once(name: str) -> None:
    with pytest.raises(ValueError, match=f"the sampler name '{name}' is taken"):
        register_engine(Conjugate(name=name))


def test_only_known_engines_can_be_put_behind() -> None:
    with pytest.raises(ValueError, match="no engine 'other'"):
        register_engine(Conjugate(), before="other")
    assert "toy" not in engines.ENGINES


class RefusingInBatches:
    """An engine that refuses every problem of a batch, and is never to be asked for one of them alone."""

    name = "refusing"

    def supports(self, problem: Problem) -> str | None:
        return None

    def draw(self, problem: Problem, *, draws: int, seed: int, progress: bool) -> Draws:
        raise AssertionError("what was refused in a batch was drawn again")

    def draw_many(
        self, problems: Sequence[Problem], *, draws: int, seeds: Sequence[int]
    ) -> list[Draws | EngineRefusalError]:
        return [EngineRefusalError("it refuses all") for _ in problems]


def test_what_is_refused_in_a_batch_goes_to_the_next_engine_without_a_second_try(counts: xr.Dataset) -> None:
    problem = build_problem(counts, hte.read_model("conversion"))
    register_engine(RefusingInBatches(), before="exact")
    try:
        (found,) = draw_posteriors([problem], "auto", draws=800, seeds=[1])
        (refusal,) = draw_posteriors([problem], "refusing", draws=800, seeds=[1])
    finally:
        remove_engine("refusing")
    assert isinstance(found, EngineResult)
    assert found.engine_name == "exact"
    assert found.engine_sentence.endswith("because the refusing engine cannot solve this: it refuses all.")
    assert isinstance(refusal, hte.FitError)
