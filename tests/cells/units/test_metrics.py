"""Metrics as values: each is what its keywords are short for, and refuses what makes no sense of it."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import DataSource, Histogram, Mean, Rate, Ratio, TwoPart, from_rows
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.cells.units.metrics import METRIC_CLASSES, MetricKeywords, resolve_metric
from bayes_hte.errors import ArgumentError
from bayes_hte.spec.data_forms import Rows
from bayes_hte.spec.plan import Plan

ROWS: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"]}


def people(n: int = 200, seed: int = 4) -> dict[str, list[Any]]:
    """Revenue, visits and hours of users in two arms, on two devices, with what they spent before."""
    draw = np.random.default_rng(seed)
    return {
        "arm": draw.choice(["old", "new"], n).tolist(),
        "device": draw.choice(["mobile", "tv"], n).tolist(),
        "spent": (draw.lognormal(2, 1, n) * (draw.random(n) < 0.6)).tolist(),
        "before": draw.lognormal(2, 1, n).tolist(),
        "visits": draw.poisson(3, n).tolist(),
        "views": (draw.poisson(4, n) + 1).tolist(),
        "hours": draw.gamma(2, 1, n).tolist(),
        "village": (np.arange(n) % 40).tolist(),
    }


# By name: the metric, the keywords that are short for it, and what is asked of the rows.
FORMS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "mean": (Mean("spent"), {"outcome": "spent"}, {}),
    "mean, adjusted and capped": (
        Mean("spent", cuped=["before"], cap=100),
        {"outcome": "spent", "cuped": "before", "cap": 100},
        {},
    ),
    "mean, weighted": (Mean("spent"), {"outcome": "spent"}, {"weights": "views"}),
    "mean, clustered": (
        Mean("spent", cap_quantile=(0.01, 0.9)),
        {"outcome": "spent", "cap_quantile": (0.01, 0.9)},
        {"cluster": "village"},
    ),
    "ratio": (
        Ratio("visits", per="views", cuped=("before", "spent")),
        {"outcome": "visits", "denominator": "views", "cuped": ["before", "spent"]},
        {"weights": "hours", "balance": "spent"},
    ),
    "rate": (Rate("visits", exposure="hours"), {"outcome": "visits", "exposure": "hours"}, {}),
    "histogram": (
        Histogram("visits", cap=5),
        {"outcome": "visits", "metric": "histogram", "cap": 5},
        {"balance": ["before"]},
    ),
    "two parts": (
        TwoPart("spent", cap_quantile=0.95),
        {"outcome": "spent", "metric": "two_part", "cap_quantile": 0.95},
        {"rare": 2},
    ),
}
each_form = pytest.mark.parametrize(("metric", "keywords", "row_options"), FORMS.values(), ids=FORMS)


@each_form
def test_cells_of_a_metric_are_those_of_its_keywords_in_every_engine(engine, metric, keywords, row_options):
    table = engine(people())
    cells = from_rows(table, metric=metric, **ROWS, **row_options)
    expected = from_rows(table, **keywords, **ROWS, **row_options)
    assert cells.attrs == expected.attrs
    xr.testing.assert_allclose(cells, expected, rtol=1e-12)  # engines may add in another order each time


@each_form
def test_keywords_resolve_to_the_metric_they_are_short_for(metric, keywords, row_options):
    short_form = {keyword: value for keyword, value in keywords.items() if keyword != "metric"}
    adjusting = {"weights": row_options.get("weights"), "cluster": row_options.get("cluster")}
    assert resolve_metric(keywords.get("metric", "mean"), short_form, **adjusting) == metric  # type: ignore[arg-type]
    assert resolve_metric(metric, {}, **adjusting) is metric


@each_form
def test_keys_of_a_plan_make_the_cells_of_the_metric(metric, keywords, row_options, tmp_path):
    content = {"title": "x", "model": "metric", "data": {"path": "rows.csv", **ROWS, **keywords, **row_options}}
    for option in ("cuped", "balance"):
        if isinstance(columns := content["data"].get(option), str):
            content["data"][option] = [columns]
    pd.DataFrame(people()).to_csv(tmp_path / "rows.csv", index=False)
    cells = from_plan(Plan.model_validate(content), tmp_path)
    expected = from_rows(tmp_path / "rows.csv", metric=metric, **ROWS, **row_options)
    assert cells.attrs == expected.attrs
    xr.testing.assert_allclose(cells, expected, rtol=1e-12)


def test_a_plan_has_the_keywords_of_from_rows_as_keys():
    parameters = inspect.signature(from_rows).parameters.keys() - {"data", "connection", "metric_keywords"}
    places = {field.name for field in dataclasses.fields(DataSource)}  # of the data themselves
    assert parameters | MetricKeywords.__annotations__.keys() == Rows.model_fields.keys() - {"form", "shares"} - places


def test_metrics_that_mean_the_same_are_equal():
    assert Mean("y", cuped="x", cap=3) == Mean("y", cuped=["x"], cap=np.array([-np.inf, 3.0]))  # type: ignore[arg-type]
    assert len({Mean("y", cap=(0, 3)), Mean("y", cap=[0, 3]), Mean("y", cap=(0.0, 3.0))}) == 1  # type: ignore[arg-type]
    assert Mean("y", cap=0.5) != Mean("y", cap_quantile=0.5)


@pytest.mark.parametrize("metric", [metric for metric, _, _ in FORMS.values()], ids=FORMS)
def test_a_metric_is_a_frozen_value_that_its_repr_makes_again(metric):
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.outcome = "other"
    assert eval(repr(metric)) == metric  # noqa: S307, of this test's own values


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "no column": (lambda: Mean(None), "outcome is None; name a column"),  # type: ignore[arg-type]
    "a list of outcomes": (lambda: TwoPart(["y"]), "outcome must be the name of one column, not "),  # type: ignore[arg-type]
    "a number as denominator": (lambda: Ratio("y", per=3), "per must be the name of one column, not 3"),  # type: ignore[arg-type]
    "no exposure": (lambda: Rate("y", exposure=None), "exposure is None; name a column"),  # type: ignore[arg-type]
    "a covariate twice": (lambda: Ratio("y", per="d", cuped=["x", "x"]), "cuped repeats a column: 'x', 'x'"),
    "a covariate that is no name": (lambda: Mean("y", cuped=[3]), "each of cuped must be"),  # type: ignore[list-item]
    "a cap in words": (lambda: Histogram("y", cap="3"), "cap is '3'; give a finite number"),  # type: ignore[arg-type]
    "two caps": (lambda: TwoPart("y", cap=3, cap_quantile=0.9), "cap and cap_quantile are both given"),
    "a quantile in per cent": (lambda: Mean("y", cap_quantile=99), "cap_quantile is 99; quantiles lie between"),
}


@pytest.mark.parametrize(("make_metric", "message"), BAD.values(), ids=BAD)
def test_a_metric_refuses_what_it_cannot_be(make_metric, message):
    with pytest.raises(ArgumentError, match=message):
        make_metric()


@pytest.mark.parametrize(
    ("metric_class", "unknown"),
    [(Rate, {"exposure": "e", "cap": 3}), (Rate, {"exposure": "e", "cuped": "x"}), (Histogram, {"cuped": "x"}),
     (TwoPart, {"per": "d"}), (Mean, {"per": "d"}), (Mean, {"weights": "w"})],
)  # fmt: skip
def test_what_makes_no_sense_of_a_metric_cannot_be_said(metric_class, unknown):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        metric_class("y", **unknown)


ROWS_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "clusters of a rate": (
        {"metric": Rate("visits", exposure="hours"), "cluster": "village"},
        r"a Rate is of independent units, which cluster cannot adjust; use Ratio\('visits', per='hours'\)",
    ),
    "weights of a histogram": (
        {"metric": Histogram("visits"), "weights": "views"},
        "a Histogram keeps what independent units did, which weights cannot adjust; use Mean",
    ),
    "both of two parts": (
        {"metric": TwoPart("spent"), "weights": "views", "cluster": "village"},
        "a TwoPart keeps what independent units did, which weights and cluster cannot adjust; use Mean",
    ),
    "the same column twice": (
        {"metric": Ratio("visits", per="visits")},
        "'visits' is used twice, for outcome and for denominator",
    ),
    "an outcome beside the metric": (
        {"metric": Mean("spent"), "outcome": "spent"},
        r"outcome cannot stand beside a metric, to which it belongs; write metric=Mean\('spent', …\)",
    ),
    "options beside the metric": (
        {"metric": Ratio("spent", per="views"), "cuped": "before", "cap": 3},
        "cuped and cap cannot stand beside a metric, to which they belong",
    ),
    "the class of a metric": ({"metric": Mean}, r"metric is a class; say of what, as in Mean\('spent'\)"),
    "no outcome": ({}, "outcome is None; name a column"),
}


@pytest.mark.parametrize(("options", "message"), ROWS_REFUSED.values(), ids=ROWS_REFUSED)
def test_from_rows_refuses_what_does_not_go_with_the_metric(options, message):
    with pytest.raises(ArgumentError, match=message):
        from_rows(pd.DataFrame(people()), **ROWS, **options)


def test_a_misspelt_keyword_is_a_type_error():
    with pytest.raises(TypeError, match=r"from_rows\(\) got an unexpected keyword argument 'outcom'"):
        from_rows(pd.DataFrame(people()), outcom="spent", **ROWS)  # type: ignore[call-arg]


def test_every_metric_says_what_it_asks_of_the_engine():
    for metric_class in METRIC_CLASSES:
        columns = {
            field.name: field.name for field in dataclasses.fields(metric_class) if field.name in {"per", "exposure"}
        }
        reduction = metric_class("y", **columns).plan_reduction(weights=None, cluster=None)  # type: ignore[arg-type]
        assert list(reduction.number_columns.values()) == ["y", *columns]
