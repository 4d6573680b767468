"""`Fit`: nothing changes it, every table says whether to trust it, its draws are public; old names lead to new ones."""

import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from example_cells import example
from example_posterior import example_fit, example_plan

import bayes_hte as hte


@pytest.mark.parametrize(
    ("old_name", "message"),
    [
        ("core", "fit.core is now fit.tree"),
        ("spec", "fit.spec is now fit.model"),
        ("tau_trace", "fit.tau_trace(...) is now fit.plot_tau_trace(...)"),
        ("compare", "fit.compare(...) is now hte.compare(fit, ...)"),
        ("loso", "fit.loso() is now hte.loso(fit)"),
    ],
)
def test_a_name_of_before_says_the_name_of_now(old_name: str, message: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(example_fit(2), old_name)
    assert str(caught.value) == message


def test_a_name_that_never_was_is_the_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="'Fit' object has no attribute 'tabel'"):
        example_fit(2).tabel  # type: ignore[attr-defined] # noqa: B018


def test_model_is_the_model_as_stated_and_pymc_model_builds_it() -> None:
    fit = example_fit(3)
    assert isinstance(fit.model, hte.Model)
    assert isinstance(fit.pymc_model(), pm.Model)


@pytest.mark.parametrize("ask", [hte.compare, hte.loso])
def test_questions_about_a_fit_refuse_what_is_none(ask: object) -> None:
    with pytest.raises(ValueError, match=r"fit is an xarray.Dataset; give what hte\.fit or hte\.load returned"):
        ask(example_fit(2).cells)  # type: ignore[operator]


@pytest.fixture(scope="module")
def checkout() -> hte.Fit:
    return hte.example_fit()


@pytest.fixture(scope="module")
def survival() -> hte.Fit:
    return hte.fit(example("piecewise_exponential", segments=6), "survival", draws=800)


@pytest.fixture(scope="module")
def explained() -> hte.Fit:
    """Effects that depend on a covariate of segments."""
    cells = hte.example_cells()
    ages = pd.DataFrame({name: cells[name].values for name in ("device", "customer")})
    ages["age"] = [40.0, 50.0, 25.0, 30.0, 60.0, 70.0]
    content = hte.read_model("conversion").model_dump(exclude_none=True)
    content["effect"] |= {"covariates": ["age"], "slope": {"dist": "Normal", "sigma": 0.5}}
    return hte.fit(hte.cells.with_covariates(cells, ages, ["age"]), hte.Model.model_validate(content), draws=800)


def as_unreliable(fit: hte.Fit) -> hte.Fit:
    """The same fit, as if its diagnosis had failed."""
    tree = fit.tree
    failed = json.loads(tree.attrs["diagnosis"]) | {"ok": False, "problems": ["The chains disagree."]}
    tree.attrs["diagnosis"] = json.dumps(failed)
    return hte.Fit(tree)


@pytest.mark.parametrize(
    "use",
    [
        lambda fit, folder: fit.report(folder / "report.html"),
        lambda fit, folder: fit.save(folder / "fit.nc"),
        lambda fit, _: (fit.table(rope=0.01, detail=True), fit.ate("relative"), fit.heterogeneity(), fit.ranks()),
        lambda fit, _: (fit.predictive_checks(), fit.sensitivity(), fit.given_tau(), fit.posterior),
        lambda fit, _: (hte.loso(fit), hte.compare(fit, {"again": fit}), fit.effects(), fit.draws(), repr(fit)),
        lambda fit, _: (fit.plot_forest(), fit.plot_shrinkage(), fit.plot_prior(), fit.plot_tau_trace()),
    ],
    ids=["report", "save", "tables", "checks", "functions", "figures"],
)
def test_using_a_fit_leaves_it_as_it_was(use: Callable[[hte.Fit, Path], object], tmp_path: Path) -> None:
    fit = hte.example_fit()
    before = fit.tree.copy(deep=True)
    use(fit, tmp_path)
    assert fit.tree.identical(before)
    assert list(fit.tree.children) == list(before.children)


def test_values_of_a_fit_cannot_be_written_to(checkout: hte.Fit) -> None:
    for tree in (checkout.tree, checkout.posterior, xr.DataTree.from_dict({"cells": checkout.cells})):
        for node in tree.children.values():
            for name, variable in node.to_dataset().variables.items():
                assert not variable.values.flags.writeable or variable.values.base is None, name
    with pytest.raises(ValueError, match="read-only"):
        checkout.cells["n"].values[0, 0] = 0
    with pytest.raises(ValueError, match="read-only"):
        checkout.tree["posterior"]["effect"].values[:] = 0.0


def test_replacing_values_of_what_a_fit_gives_does_not_reach_the_fit() -> None:
    fit = hte.example_fit()
    before = fit.table()
    cells, tree, posterior = fit.cells, fit.tree, fit.posterior
    cells["n"].values = cells["n"].values * 2
    cells.attrs["control"] = "nobody"
    tree["posterior"]["effect"].values = tree["posterior"]["effect"].values * 0
    tree.attrs["seed"] = -1
    del tree["cells"]
    posterior["mine"] = xr.DataTree()
    pd.testing.assert_frame_equal(fit.table(), before)
    assert fit.cells.attrs["control"] == "current"
    assert fit.tree.attrs["seed"] == 1
    assert "mine" not in fit.posterior.children


def test_what_a_fit_was_made_of_may_be_changed_afterwards() -> None:
    cells = hte.example_cells()
    fit = hte.fit(cells, "conversion", draws=800)
    draws = fit.posterior["posterior"].to_dataset().copy(deep=True)
    own = hte.from_posterior(draws, cells, link="logit")
    before, own_before = fit.table(), own.table()
    cells["n"].values[:] = 1
    draws["effect"].values[:] = 0.0
    pd.testing.assert_frame_equal(fit.table(), before)
    pd.testing.assert_frame_equal(own.table(), own_before)


def test_a_fit_from_another_process_cannot_be_written_to_either(checkout: hte.Fit) -> None:
    again = pickle.loads(pickle.dumps(checkout))  # noqa: S301 (written a moment before)
    assert again.tree.identical(checkout.tree)
    with pytest.raises(ValueError, match="read-only"):
        again.cells["n"].values[0, 0] = 0


def test_groups_that_follow_from_the_draws_are_computed_once(checkout: hte.Fit) -> None:
    first, second = (checkout.posterior["log_likelihood"]["y"].values for _ in range(2))
    assert np.shares_memory(first, second)


TABLES: dict[str, Callable[[hte.Fit], pd.DataFrame]] = {
    "table": lambda fit: fit.table(rope=0.01, detail=True),
    "ate": lambda fit: fit.ate(),
    "heterogeneity": lambda fit: fit.heterogeneity(),
    "contrasts": lambda fit: fit.contrasts("pairs"),
    "ranks": lambda fit: fit.ranks(),
    "best_arm": lambda fit: fit.best_arm(),
    "marginal": lambda fit: fit.marginal("device"),
    "predict_new_segment": lambda fit: fit.predict_new_segment(),
    "given_tau": lambda fit: fit.given_tau(),
    "sensitivity": lambda fit: fit.sensitivity(),
    "predictive_checks": lambda fit: fit.predictive_checks(),
    "loso": hte.loso,
    "compare": lambda fit: hte.compare(fit, {"again": fit}),
    "draws": lambda fit: fit.draws(),
}


def check_mark(table: pd.DataFrame, ok: bool, folder: Path) -> None:
    """The mark is the last column, and comes through joins and files, which lose attributes."""
    assert table.columns[-1] == "reliable"
    assert table.attrs["reliable"] is ok
    assert len(table) > 0
    joined = pd.concat([table.assign(attempt=1), table.assign(attempt=2)])
    table.to_csv(folder / "table.csv", index=False)
    table.assign(reliable=table["reliable"]).to_parquet(folder / "table.parquet")
    for kept in (table, joined, pd.read_csv(folder / "table.csv"), pd.read_parquet(folder / "table.parquet")):
        assert kept["reliable"].dtype == bool
        assert (kept["reliable"] == ok).all()


@pytest.mark.parametrize("ok", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_every_table_ends_with_its_mark(name: str, ok: bool, checkout: hte.Fit, tmp_path: Path) -> None:
    check_mark(TABLES[name](checkout if ok else as_unreliable(checkout)), ok, tmp_path)


@pytest.mark.parametrize("ok", [True, False])
def test_tables_of_some_models_only_end_with_their_mark(
    ok: bool, survival: hte.Fit, explained: hte.Fit, tmp_path: Path
) -> None:
    survival, explained = (fit if ok else as_unreliable(fit) for fit in (survival, explained))
    check_mark(survival.survival(), ok, tmp_path)
    check_mark(explained.variance_shares(), ok, tmp_path)


@pytest.mark.parametrize("scale", ["absolute", "relative", "link"])
def test_draws_of_effects_have_the_moments_of_the_table(scale: str, checkout: hte.Fit) -> None:
    effects, table = checkout.effects(scale), checkout.table(scale)  # type: ignore[arg-type]
    assert effects.dims == ("chain", "draw", "segment", "arm")
    assert effects.attrs["scale"] == scale
    assert effects.mean(("chain", "draw")).values.ravel() == pytest.approx(table["effect"].to_numpy(), rel=1e-12)
    by_segment = checkout.draws(scale).groupby(["device", "customer", "arm"], sort=False)["effect"]  # type: ignore[arg-type]
    assert by_segment.mean().to_numpy() == pytest.approx(table["effect"].to_numpy(), rel=1e-12)
    assert by_segment.std().to_numpy() == pytest.approx(table["sd"].to_numpy(), rel=1e-12)


def test_effects_say_their_units() -> None:
    for family, units in (("binomial", "log odds ratio"), ("normal", "units of the outcome")):
        fit = example_fit(3, family)  # type: ignore[arg-type]
        assert fit.effects("link").attrs["units"] == units
        assert fit.effects("relative").attrs["units"] == "share of the control's mean"
        assert fit.effects().attrs == {"scale": "absolute", "units": "units of the outcome"}


def test_each_row_of_the_long_table_is_the_draw_that_it_names() -> None:
    fit = example_fit(
        [("tv", "new"), ("tv", "old"), ("pc", "new")], arms=("c", "a", "b"), dimensions=("device", "plan")
    )
    draws, effects = fit.draws("link"), fit.effects("link")
    assert list(draws.columns) == ["device", "plan", "arm", "chain", "draw", "effect", "reliable"]
    assert len(draws) == effects.size
    rng = np.random.default_rng(3)
    for row in draws.iloc[rng.integers(len(draws), size=50)].itertuples():
        place = effects.sel(chain=row.chain, draw=row.draw, segment=f"{row.device} · {row.plan}", arm=row.arm)
        assert row.effect == place.item()


def test_draws_are_on_the_plans_scale() -> None:
    plan = example_plan(report={"unit": "visit", "scale": "relative"})
    assert example_fit(3, plan=plan).effects().attrs["scale"] == "relative"


def test_an_unknown_scale_is_refused(checkout: hte.Fit) -> None:
    for ask in (checkout.effects, checkout.draws):
        with pytest.raises(ValueError, match="no scale 'abolute'"):
            ask("abolute")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["plot_forest", "plot_shrinkage", "plot_tau_trace", "plot_prior"])
def test_every_option_of_a_figure_has_a_name(name: str) -> None:
    kinds = {parameter.kind for parameter in inspect.signature(getattr(hte.Fit, name)).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    with pytest.raises(TypeError, match="tilte"):
        getattr(example_fit(3), name)(tilte="x")


@pytest.mark.parametrize("ending", [".pdf", ".PDF", ".docx", ".md"])
def test_a_report_is_refused_an_ending_that_it_is_not(ending: str, tmp_path: Path) -> None:
    with pytest.raises(hte.ArgumentError, match=r"the report is an HTML page.*name it r\.html"):
        example_fit(2).report(tmp_path / f"r{ending}")
    assert not list(tmp_path.iterdir())


def test_notebooks_show_scale_and_average_effect() -> None:
    fit = example_fit(3)
    average = fit.ate().iloc[0]
    shown = fit._repr_html_()
    assert "Effects on the absolute scale, with 95 % intervals" in shown
    assert f"ATE of email {average['effect']:.4g} ({average['ci_low']:.4g} to {average['ci_high']:.4g})" in shown


def test_models_and_several_fits_are_short_in_a_console_and_complete_in_a_notebook() -> None:
    model = hte.read_model("conversion")
    assert len(repr(model)) < 120
    assert repr(model) == str(model)
    assert "HalfNormal" in model._repr_html_()
    fits = hte.fit_many({f"metric {i}": example_fit(2).cells for i in range(7)}, model)
    assert repr(fits) == "<Fits: 7 fitted: metric 0, metric 1, metric 2, metric 3, metric 4, …>"
    assert "metric 6" in fits._repr_html_()


def test_models_that_look_alike_are_not_mixed_up() -> None:
    model = hte.read_model("conversion")
    other = model.model_copy(
        update={"effect": model.effect.model_copy(update={"between": None}), "pooling": "complete"}
    )
    cells = example_fit(4, units=500).cells
    fits = hte.fit_many({"a": cells, "b": cells}, {"a": model, "b": other})
    assert [fits[name].model.pooling for name in ("a", "b")] == ["partial", "complete"]


def test_completion_offers_what_is_public() -> None:
    assert set(dir(hte.cells)) == set(hte.cells.__all__)
