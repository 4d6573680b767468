"""The front door: saving and loading, refitting once, and what `Fit` shows. Nothing here samples."""

from pathlib import Path
from typing import Any

import example_posterior
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_cells import example
from example_posterior import example_fit, example_plan
from saved_draws import round_draws

import bayes_hte as hte
from bayes_hte.cells.from_plan import tabulate_cells
from bayes_hte.inference.draws import Draws
from bayes_hte.inference.nuts import engine as nuts_engine
from bayes_hte.inference.nuts.engine import FIRST_SETTINGS, RETRY_SETTINGS
from bayes_hte.model.problem import Problem

FAMILY_NAMES: list[Any] = ["binomial", "normal", "mean", "estimate"]


@pytest.mark.parametrize(("family", "ok"), list(zip(FAMILY_NAMES, [True, False, True, False], strict=True)))
def test_a_saved_fit_answers_as_before(tmp_path: Path, family: Any, ok: bool) -> None:
    plan = example_plan(report={"rope": 0.02, "ci_prob": 0.9})
    arms = ("control", "e mail", "sms\N{SNOWMAN}")
    fit = example_fit(["tv", "<b>&", "ü"], family, arms=arms, plan=plan, ok=ok, dimensions=("device",))
    again = hte.load(fit.save(tmp_path / "fit.nc"))
    for call in ("table", "ate", "heterogeneity", "contrasts", "predict_new_segment"):
        before, after = getattr(fit, call)(), getattr(again, call)()
        pd.testing.assert_frame_equal(before, after, rtol=1e-5, atol=1e-6)
        assert before.attrs == after.attrs
    assert (again.plan, again.model, again.diagnosis) == (fit.plan, fit.model, fit.diagnosis)
    assert repr(again) == repr(fit)
    assert set(again.posterior.children) == set(fit.posterior.children)
    assert again.posterior.equals(round_draws(fit.posterior))


def test_a_fit_with_empty_cells_survives_saving(tmp_path: Path) -> None:
    fit = example_fit(4, one_armed=(1, 3), arms=("control", "email", "sms"), dimensions=("device", "plan"))
    again = hte.load(fit.save(tmp_path / "fit.nc"))
    pd.testing.assert_frame_equal(again.table(detail=True), fit.table(detail=True))
    xr.testing.assert_equal(again.cells, fit.cells)


def test_a_published_covariance_survives_saving(tmp_path: Path) -> None:
    fit = example_fit(3, "estimate")
    labels = fit.cells["segment"].values
    covariance = xr.DataArray(np.diag(fit.cells["se"].values[:, 0] ** 2), dims=("segment", "other_segment"))
    tree = fit.tree
    tree["cells"] = xr.DataTree(fit.cells.assign(covariance=covariance).assign_coords(other_segment=labels))
    fit = hte.Fit(tree)
    pd.testing.assert_frame_equal(hte.load(fit.save(tmp_path / "fit.nc")).table(), fit.table())


def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "fit.nc"
    example_fit(2).save(path)
    example_fit(3).save(str(path))
    assert len(hte.load(path).table()) == 3
    assert [item.name for item in tmp_path.iterdir()] == ["fit.nc"]


def saved(path: Path) -> bytes:
    return example_fit(2).save(path).read_bytes()


def text_file(path: Path) -> None:
    path.write_text("device,effect\nmobile,0.1\n")


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    content = saved(path)
    path.write_bytes(content[: len(content) // 2])


def truncated_head(path: Path) -> None:
    path.write_bytes(saved(path)[:600])


def another_netcdf(path: Path) -> None:
    xr.Dataset({"x": ("a", [1.0])}).to_netcdf(path, engine="h5netcdf")


def another_version(path: Path) -> None:
    tree = example_fit(2).tree
    tree.attrs["format"] = "bayes_hte fit 99"
    hte.Fit(tree).save(path)


def without_cells(path: Path) -> None:
    tree = example_fit(2).posterior
    del tree["cells"]
    hte.Fit(tree).save(path)


def without_posterior(path: Path) -> None:
    tree = example_fit(2).posterior
    del tree["posterior"]
    hte.Fit(tree).save(path)


def without_model(path: Path) -> None:
    tree = example_fit(2).posterior
    del tree.attrs["model"]
    hte.Fit(tree).save(path)


def folder(path: Path) -> None:
    path.mkdir()


def nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (text_file, "cannot be read as a saved fit"),
        (empty_file, "cannot be read as a saved fit"),
        (truncated, "cannot be read as a saved fit"),
        (truncated_head, "cannot be read as a saved fit"),
        (another_netcdf, r"is no saved fit of this version \(format None"),
        (another_version, r"is no saved fit of this version \(format 'bayes_hte fit 99'"),
        (without_cells, "fit.nc"),
        (without_posterior, "fit.nc"),
        (without_model, "fit.nc"),
        (folder, "no file"),
        (nothing, "no file"),
    ],
)
def test_what_is_no_saved_fit_is_refused(tmp_path: Path, make: Any, match: str) -> None:
    make(tmp_path / "fit.nc")
    with pytest.raises(hte.OutputError, match=match):
        hte.load(tmp_path / "fit.nc")


@pytest.mark.parametrize("method", ["save", "report"])
def test_an_unwritable_place_leaves_nothing(tmp_path: Path, method: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(hte.OutputError, match="cannot be written"):
        getattr(example_fit(2), method)(tmp_path / "file" / "result")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_notebook_shows_names_as_text() -> None:
    evil = "<script>alert(1)</script>"
    fit = example_fit([evil, "&amp;"], arms=("control", evil), outcome=evil, dimensions=("<b>dim",))
    shown = fit._repr_html_()
    assert "<script>" not in shown
    assert "<b>dim" not in shown
    assert "&lt;script&gt;" in shown
    assert "&amp;amp;" in shown


def test_a_notebook_shows_the_verdict_first() -> None:
    shown = example_fit(2, ok=False)._repr_html_()
    assert shown.index("FAILED") < shown.index("<table")
    assert "FAILED" in repr(example_fit(2, ok=False))
    assert "passed" in repr(example_fit(2))


class Sampler:
    """Stands in for NUTS: hand-made draws, of which the first `bad` attempts do not agree."""

    def __init__(self, bad: int = 0) -> None:
        self.bad = bad
        self.asked: list[dict[str, Any]] = []

    def __call__(self, task: Problem, **asked: Any) -> Draws:
        self.asked.append(asked)
        draws = example_posterior._posterior(task, np.random.default_rng(asked["seed"]))
        if len(self.asked) <= self.bad:
            draws["effect"][{"chain": 0}] += 5.0
        return Draws(draws, xr.Dataset({"diverging": (("chain", "draw"), np.zeros((4, 1000), dtype=bool))}))


@pytest.fixture(autouse=True)
def sampler(monkeypatch: pytest.MonkeyPatch) -> Sampler:
    found = Sampler()
    monkeypatch.setattr(example_posterior, "DRAWS", 1000)
    monkeypatch.setattr(nuts_engine, "sample_with_nuts", found)
    return found


def test_draws_that_pass_are_taken_at_once(sampler: Sampler) -> None:
    fit = hte.fit(example_fit(4).cells, "conversion", sampler="nuts", seed=3)
    assert fit.diagnosis.ok
    assert not fit.diagnosis.refitted
    (asked,) = sampler.asked
    assert asked == {"draws": 4000, "seed": 3, "progress": False, "settings": FIRST_SETTINGS}
    assert fit.model == hte.read_model("conversion")
    assert fit.plan is None


def test_a_failed_attempt_is_repeated_once_with_more_effort(sampler: Sampler) -> None:
    sampler.bad = 1
    fit = hte.fit(example_fit(4).cells, "conversion", sampler="nuts")
    assert fit.diagnosis.ok
    assert fit.diagnosis.refitted
    assert [asked["settings"] for asked in sampler.asked] == [FIRST_SETTINGS, RETRY_SETTINGS]
    assert RETRY_SETTINGS.target_accept > FIRST_SETTINGS.target_accept
    assert RETRY_SETTINGS.tuning_steps > FIRST_SETTINGS.tuning_steps


def test_a_second_failure_is_returned_and_marked(sampler: Sampler, tmp_path: Path) -> None:
    sampler.bad = 9
    fit = hte.fit(example_fit(4).cells, "conversion", sampler="nuts")
    assert len(sampler.asked) == 2
    assert not fit.diagnosis.ok
    assert fit.diagnosis.refitted
    table = hte.load(fit.save(tmp_path / "fit.nc")).table()
    assert table.attrs["reliable"] is False
    assert table.attrs["problems"] == list(fit.diagnosis.problems)


@pytest.mark.slow
def test_what_nuts_draws_comes_back_from_a_file(tmp_path: Path) -> None:
    fit = hte.fit(example_fit(4).cells, "conversion", sampler="nuts", seed=3)
    again = hte.load(fit.save(tmp_path / "fit.nc"))
    assert again.posterior["posterior"].identical(round_draws(fit.posterior)["posterior"])
    assert again.posterior["sample_stats"].identical(fit.posterior["sample_stats"])
    pd.testing.assert_frame_equal(again.table(), fit.table())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sampler": "vi"}, "no sampler 'vi'; there are auto, exact, nuts"),
        ({"draws": 399}, "draws=399 is too few"),
        ({"draws": 0}, "draws=0 is too few"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_fit_that_makes_no_sense_is_refused_before_sampling(
    changes: dict[str, Any], match: str, sampler: Sampler
) -> None:
    with pytest.raises(hte.ArgumentError, match=match):
        hte.fit(example_fit(2).cells, "conversion", **changes)
    assert sampler.asked == []


@pytest.mark.parametrize(
    ("cells", "model", "match"),
    [
        ("counts", "published-estimates", "takes published estimates"),
        ("counts", "continuous", 'family "normal" needs n, mean, ss'),
        ("moments", "conversion", 'family "binomial" needs n, events'),
        ("schools", "conversion", 'need family "estimate"'),
        ("means", "metric", "give n"),
    ],
)
def test_a_model_that_does_not_fit_the_cells_is_refused_before_sampling(
    cells: str, model: str, match: str, request: pytest.FixtureRequest, sampler: Sampler
) -> None:
    with pytest.raises(hte.ModelError, match=match):
        hte.fit(request.getfixturevalue(cells), model)
    assert sampler.asked == []


def test_a_control_without_variation_gives_no_unit_for_the_priors(moments: xr.Dataset) -> None:
    control = moments["arm"] == "control"
    flat = moments.assign(ss=moments["ss"].where(~control, 0.0), mean=moments["mean"].where(~control, 1.0))
    with pytest.raises(hte.DataError, match="vary"):
        hte.fit(flat, "continuous")


def test_cells_without_a_treated_arm_hold_nothing_to_compare(counts: xr.Dataset) -> None:
    with pytest.raises(hte.DataError):
        hte.fit(counts.isel(arm=[0]), "conversion")


def test_the_cell_table_reads_as_a_data_frame(counts: xr.Dataset, schools: xr.Dataset) -> None:
    found = tabulate_cells(counts)
    assert list(found.columns) == ["device", "arm", "n", "events"]
    assert len(found) == 18
    assert found.iloc[1].tolist() == ["s0", "email", 850, 120]
    covariance = xr.DataArray(np.eye(8), dims=("segment", "other_segment"))
    assert list(tabulate_cells(schools.assign(covariance=covariance)).columns) == ["school", "arm", "estimate", "se"]


@pytest.mark.parametrize("family", ["ordinal", "negative_binomial", "two_part", "poisson", "piecewise_exponential"])
def test_cells_of_every_kind_can_be_written_as_a_table_and_read_again(family: str) -> None:
    cells = example(family, segments=6, arms=("control", "email"))
    frame = tabulate_cells(cells)
    asked = {"arm": "arm", "control": "control", "segments": ["device", "plan"], "outcome": "y"}
    match family:
        case "ordinal" | "negative_binomial":
            again = hte.cells.from_levels(frame, value="value", count="units", **asked)
        case "two_part":
            names = ("n", "mean", "sd", "positive", "log_mean", "log_sd")
            again = hte.cells.from_summary(frame, **asked, **{name: name for name in names})
        case "poisson":
            again = hte.cells.from_summary(frame, events="events", exposure="exposure", **asked)
        case _:
            total = frame.groupby(["device", "plan", "arm"], sort=False)[["failures", "at_risk"]].sum()
            assert total["failures"].sum() == int(cells["failures"].sum())
            assert frame[["start", "end"]].drop_duplicates().to_numpy().tolist() == [[0, 5], [5, 10], [10, 20]]
            return
    again = again.sel(segment=[f"{d} · {p}" for d, p in zip(cells["device"].values, cells["plan"].values, strict=True)])
    for name in set(map(str, again.data_vars)):
        np.testing.assert_allclose(again[name].values, cells[name].values.astype(float), rtol=1e-9)
