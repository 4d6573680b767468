"""Sampling: what is handed to nutpie, what becomes of its answers, and agreement with an exact posterior."""

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import nutpie
import pytest
import xarray as xr

from bayes_hte import FitError, read_model
from bayes_hte.inference import exact
from bayes_hte.inference.nuts import compile_cache, sample
from bayes_hte.inference.nuts.sample import NutsSettings
from bayes_hte.model.problem import Problem, build_problem

OPTIONS: dict[str, Any] = {"draws": 400, "seed": 11, "settings": NutsSettings(0.9, 50, typical_gradients=500)}


def answer(draws: int = 100) -> xr.DataTree:
    """What nutpie returns, as far as it is read."""
    shape, dims = (4, draws), ("chain", "draw")
    found = {
        "effect": ((*dims, "arm", "segment"), np.zeros((*shape, 2, 3))),
        "effect_between_log__": (dims, np.zeros(shape)),
    }
    coords = {"segment": np.array(["a", "b", "c"], dtype=object), "arm": np.array([1, 2], dtype=object)}
    stats = {"diverging": (dims, np.zeros(shape, dtype=bool)), "divergence_message": (dims, np.full(shape, None))}
    return xr.DataTree.from_dict({"posterior": xr.Dataset(found, coords), "sample_stats": xr.Dataset(stats)})


class Running:
    """A sampler in the background."""

    def __init__(self, noted: dict[str, Any]) -> None:
        self.noted = noted

    def wait(self) -> xr.DataTree:
        return self.noted["do"]()  # type: ignore[no-any-return]

    def cancel(self) -> None:
        self.noted["cancelled"] = True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The sampler replaced: it notes what it was asked for, and does what `asked["do"]` says."""
    noted: dict[str, Any] = {"do": answer, "cancelled": False}

    def sampler(machine: Any, **options: Any) -> Running:
        noted.update(options, machine=machine)
        return Running(noted)

    monkeypatch.setattr("nutpie.sample", sampler)

    def compiled(model: Any) -> Any:
        model.n_dim = 12
        return model

    monkeypatch.setattr(compile_cache, "compile_or_reuse", compiled)
    monkeypatch.setattr(compile_cache, "time_gradient", lambda machine: 2e-3)
    return noted


@pytest.fixture
def task(schools: xr.Dataset) -> Problem:
    return build_problem(schools, read_model("published-estimates"))


def test_draws_are_divided_over_four_chains(task: Problem, asked: dict[str, Any]) -> None:
    sample.sample_with_nuts(task, **OPTIONS, progress=False)
    wanted = {"draws": 100, "tune": 50, "chains": 4, "seed": 11, "target_accept": 0.9, "save_warmup": False}
    assert not asked["cancelled"]
    assert {name: asked[name] for name in wanted} == wanted


def test_data_are_exchangeable(task: Problem, asked: dict[str, Any]) -> None:
    sample.sample_with_nuts(task, **OPTIONS, progress=False)
    held = [var.get_value() for var in asked["machine"].data_vars]
    assert any(np.array_equal(value, task.long_cells["estimate"].values) for value in held)


def test_only_plain_coordinates_and_variables_with_a_meaning_are_kept(task: Problem, asked: dict[str, Any]) -> None:
    drawn = sample.sample_with_nuts(task, **OPTIONS, progress=False)
    assert list(drawn.posterior.data_vars) == ["effect"]
    assert drawn.posterior["effect"].dims == ("chain", "draw", "segment", "arm")
    assert drawn.posterior["arm"].values.tolist() == ["1", "2"]
    assert list(drawn.sample_stats.data_vars) == ["diverging"]


def test_a_sampler_that_breaks_down_is_a_fit_error(task: Problem, asked: dict[str, Any]) -> None:
    def fail() -> xr.DataTree:
        raise RuntimeError("All initialization points failed")

    asked["do"] = fail
    with pytest.raises(FitError, match=r"All initialization points failed; look at the data"):
        sample.sample_with_nuts(task, **OPTIONS, progress=False)


def test_a_panic_in_rust_is_a_fit_error_of_one_line(task: Problem, asked: dict[str, Any]) -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def fail() -> xr.DataTree:
        raise panic("called `Result::unwrap()` on an `Err` value: Invalid initial point\n\nStack backtrace:\n 0: main")

    asked["do"] = fail
    with pytest.raises(FitError, match=r"^the sampler broke down: Invalid initial point; look at the data .*check`$"):
        sample.sample_with_nuts(task, **OPTIONS, progress=False)


def test_an_interrupted_sampler_is_stopped_and_its_draws_are_not_used(task: Problem, asked: dict[str, Any]) -> None:
    def interrupt() -> xr.DataTree:
        raise KeyboardInterrupt

    asked["do"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        sample.sample_with_nuts(task, **OPTIONS, progress=False)
    assert asked["cancelled"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
def test_ctrl_c_counts_when_some_chains_are_done(task: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains run in turn where there are fewer cores: nutpie then has all draws of some, which look like an answer."""
    monkeypatch.setattr(nutpie, "sample", partial(_one_chain_at_a_time, nutpie.sample))
    with pytest.raises(KeyboardInterrupt):
        sample.sample_with_nuts(task, **OPTIONS | {"draws": 400_000}, progress=False)


def _one_chain_at_a_time(sampler: Callable[..., Any], machine: Any, **options: Any) -> Any:
    sent = []

    def heard(chains: list[Any]) -> None:
        if not sent and any(chain.finished_draws == chain.total_draws for chain in chains):
            sent.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    return sampler(machine, **options | {"progress_callback": heard, "cores": 1})


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_only_when_asked(
    task: Problem, asked: dict[str, Any], progress: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    sample.sample_with_nuts(task, **OPTIONS, progress=progress)
    assert (asked["progress_callback"] is not None) is progress
    assert asked["progress_bar"] is False
    printed = capsys.readouterr()
    assert bool(printed.out.strip()) is progress
    assert bool(printed.err.strip()) is progress


def test_a_person_at_a_terminal_is_told_how_long_it_takes(
    task: Problem, asked: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    sample.sample_with_nuts(task, **OPTIONS, progress=True)
    # 4 chains of 50 + 100 steps, each 500 gradients of 2 ms, two at a time
    said = " ".join(capsys.readouterr().err.split())
    assert "NUTS samples 12 parameters given 8 cells, 2 ms per gradient: about 5 minutes." in said


@pytest.mark.slow
def test_first_and_reused_code_agree_with_the_exact_posterior(counts: xr.Dataset) -> None:
    """Means of effects of two fits of one structure, within 4.5 Monte-Carlo errors of independent computations."""
    import arviz_stats as az

    compile_cache.clear_cache()
    thinned = counts.assign(n=counts["n"] // 3 * 3, events=counts["events"] // 2)
    for cells in (counts, thinned):
        task = build_problem(cells, read_model("conversion"))
        drawn = sample.sample_with_nuts(task, draws=8000, seed=1, settings=NutsSettings(0.95, 1000), progress=False)
        known = exact.posterior(task, draws=8000, seed=2).posterior
        error = az.mcse(drawn.posterior[["effect"]], method="mean")["effect"]
        other = known["effect"].std(("chain", "draw")) * (1 / 8000 + 1 / 600) ** 0.5  # at least 600 effective points
        z = (drawn.posterior["effect"].mean(("chain", "draw")) - known["effect"].mean(("chain", "draw"))) / np.hypot(
            error, other
        )
        assert float(abs(z).max()) < 4.5  # 24 comparisons: false alarm 1.6e-4
    compile_cache.clear_cache()
