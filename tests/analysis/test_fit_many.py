"""Many problems in one call: the same numbers as one by one, whatever the processes; wrong ones do not stop others."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.analysis import fit_many
from bayes_hte.inference.exact import target


def test_every_fit_is_the_one_that_it_would_be_alone(counts: xr.Dataset, means: xr.Dataset) -> None:
    model = hte.read_model("metric").model_copy(update={"units": "link"})
    fits = hte.fit_many({"visits": counts, "spend": means}, {"visits": "conversion", "spend": model}, draws=1000)
    alone = hte.fit(counts, "conversion", draws=1000)
    pd.testing.assert_frame_equal(fits["visits"].table(), alone.table())
    assert list(fits) == ["visits", "spend"]
    assert len(fits) == 2
    assert fits["spend"].model == model


def test_problems_of_one_shape_have_the_numbers_of_each_alone(counts: xr.Dataset) -> None:
    # Three shapes, two of which are computed together, among them data on which sites must be moved.
    sparse = counts.assign(n=counts["n"] // 20 + 1, events=counts["events"] // 20)
    problems = {f"{name} {i}": cells.isel(segment=list(range(i + 3)))
                for i in range(3) for name, cells in (("sparse", sparse), ("dense", counts))}  # fmt: skip
    fits = hte.fit_many(problems, "conversion", draws=800)
    for name, cells in problems.items():
        alone = hte.fit(cells, "conversion", draws=800)
        # Only the order of sums differs.
        for variable, values in alone.posterior["posterior"].data_vars.items():
            xr.testing.assert_allclose(fits[name].posterior["posterior"][variable], values, rtol=1e-7, atol=1e-9)
        pd.testing.assert_frame_equal(fits[name].table(), alone.table(), rtol=1e-7)
        assert fits[name].engine == alone.engine


def test_a_fit_is_completed_once_when_it_is_looked_at(counts: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    completed: list[str] = []
    complete = fit_many.PendingFit.complete
    monkeypatch.setattr(
        fit_many.PendingFit, "complete", lambda self: (completed.append(self.task.name), complete(self))[1]
    )
    fits = hte.fit_many({"a": counts, "b": counts.isel(segment=[0, 1, 2])}, "conversion", draws=800)
    assert (len(fits), list(fits), completed) == (2, ["a", "b"], [])
    assert fits["b"] is fits["b"]
    assert completed == ["b"]


@pytest.mark.slow
def test_other_processes_give_the_same_numbers(counts: xr.Dataset) -> None:
    problems = {f"metric {i}": counts.isel(segment=[0, 1, 2, i % 3 + 3]) for i in range(6)}
    apart = hte.fit_many(problems, "conversion", draws=1000, workers=2)
    here = hte.fit_many(problems, "conversion", draws=1000, workers=1)
    pd.testing.assert_frame_equal(apart.table(), here.table())


def test_a_worker_process_computes_on_one_core() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(target.cores).result() == 1
    assert target.cores() == len(os.sched_getaffinity(0))


def test_a_wrong_problem_does_not_stop_the_others(counts: xr.Dataset) -> None:
    nobody = counts.assign(events=counts["events"] * 0)
    fits = hte.fit_many({"good": counts, "bad": nobody}, "conversion", draws=1000)
    assert list(fits) == ["good"]
    assert "no events in any cell" in fits.failed["bad"]
    with pytest.raises(KeyError, match="could not be fitted: no events"):
        fits["bad"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_wrong_argument_stops_all_and_marks_no_problem(
    counts: xr.Dataset, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Checked before the first fit:
    with pytest.raises(hte.ArgumentError, match="no sampler 'exakt'"):
        hte.fit_many({"a": counts, "b": counts}, "conversion", sampler="exakt", workers=workers)  # type: ignore[arg-type]
    # … and where the process that draws is the first to find it:
    check = fit_many.check_sampling_request
    checks = iter([lambda _, draws, seed: (draws, seed)])

    def pass_first_call(sampler: str, draws: object, seed: object) -> Any:
        return next(checks, check)(sampler, draws, seed)

    monkeypatch.setattr(fit_many, "check_sampling_request", pass_first_call)
    with pytest.raises(hte.ArgumentError, match="draws=3 is too few"):
        hte.fit_many({"a": counts, "b": counts}, "conversion", draws=3, workers=workers)


def test_a_wrong_argument_is_no_fault_of_the_data() -> None:
    assert not issubclass(hte.ArgumentError, hte.DataError)
    assert issubclass(hte.ArgumentError, hte.HteError)
    assert issubclass(hte.ArgumentError, ValueError)


def test_tables_of_all_problems_stand_under_each_other(counts: xr.Dataset) -> None:
    renamed = counts.rename(device="plan").assign_attrs(dimensions='["plan"]')
    fits = hte.fit_many({"a": counts, "b": renamed}, "conversion", draws=1000)
    found = fits.table()
    assert list(found.columns[:3]) == ["problem", "segment", "arm"]
    assert len(found) == 24
    assert found["reliable"].all()
    assert found.columns[-1] == fits.ate().columns[-1] == "reliable"
    assert fits.ate("link")["problem"].tolist() == ["a", "a", "b", "b"]
    assert np.isfinite(fits.ate()["effect"]).all()


def test_no_problem_and_no_model_are_errors(counts: xr.Dataset) -> None:
    with pytest.raises(hte.ArgumentError, match="no problems to fit"):
        hte.fit_many({}, "conversion")
    with pytest.raises(hte.ArgumentError, match="no model for the problems"):
        hte.fit_many({"a": counts}, {"b": "conversion"})


def test_lower_can_be_better_for_all_problems(counts: xr.Dataset) -> None:
    deaths = hte.fit_many({"a": counts}, "conversion", draws=800, higher_is_better=False)["a"]
    sales = hte.fit_many({"a": counts}, "conversion", draws=800)["a"]
    assert (deaths.question().higher_is_better, sales.question().higher_is_better) == (False, True)
    assert (deaths.table(rope=0.01)["p_harm"] == sales.table(rope=0.01)["p_benefit"]).all()
