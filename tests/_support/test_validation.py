"""What callers ask for is taken for what they mean, or refused in a sentence: never a raw error from deep inside."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_posterior import example_fit

import bayes_hte as hte
from bayes_hte import ArgumentError, cells
from bayes_hte._support import validation

FIT = example_fit(4, arms=("control", "email"))
CELLS = FIT.cells
ROWS = pd.DataFrame(
    {
        "device": ["mobile"] * 8 + ["tv"] * 8,
        "arm": ["old", "old", "new", "new"] * 4,
        "spent": [1.0, 3.0, 4.0, 8.0, 0.0, 2.0, 1.0, 5.0] * 2,
        "age": [20, 31, 42, 53, 24, 35, 46, 57] * 2,
        "days": [3.0, 4.0, 5.0, 6.0] * 4,
        "died": [0, 1, 1, 0] * 4,
    }
)
SUMS = pd.DataFrame({"device": ["m", "m", "t", "t"], "arm": ["old", "new"] * 2, "n": 10, "events": [1, 2, 3, 4]})


def rows(data: pd.DataFrame = ROWS, **changes: Any) -> xr.Dataset:
    given: dict[str, Any] = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["device"]}
    return cells.from_rows(data, **{**given, **changes})


def times(**changes: Any) -> xr.Dataset:
    given: dict[str, Any] = {"time": "days", "event": "died", "arm": "arm", "control": "old", "segments": ["device"]}
    return cells.from_times(ROWS, **{**given, **changes})


def sums(**changes: Any) -> xr.Dataset:
    given: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"], "n": "n", "events": "events"}
    return cells.from_summary(SUMS, **{**given, **changes})


def levels(**changes: Any) -> xr.Dataset:
    table = pd.DataFrame({"device": "tv", "arm": ["old", "old", "new"], "stars": [1, 5, 3], "users": [4, 6, 5]})
    given: dict[str, Any] = {"arm": "arm", "control": "old", "segments": ["device"], "value": "stars", "count": "users"}
    return cells.from_levels(table, **{**given, **changes})


def wide(**changes: Any) -> xr.Dataset:
    table = pd.DataFrame({"device": ["m", "t"], "a": [10, 10], "b": [1, 2], "c": [10, 10], "d": [2, 3]})
    arms = {"old": {"n": "a", "events": "b"}, "new": {"n": "c", "events": "d"}}
    return cells.from_wide(table, **{"segments": ["device"], "control": "old", "arms": arms, **changes})


def estimates(**changes: Any) -> xr.Dataset:
    table = pd.DataFrame({"trial": ["A", "B"], "y": [0.5, 0.1], "s": [0.2, 0.1]})
    return cells.from_estimates(table, **{"segments": ["trial"], "estimate": "y", "se": "s", **changes})


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), Decimal(3), Fraction(3)], ids=repr)
def test_numbers_of_any_library_are_numbers(value: object) -> None:
    assert validation.to_float(value) == 3.0


@pytest.mark.parametrize("value", [True, np.True_, "3", None, [3], 3j], ids=repr)
def test_booleans_text_and_lists_are_no_numbers(value: object) -> None:
    assert validation.to_float(value) is None
    assert validation.to_int(value) is None


def test_whole_numbers_are_those_that_count() -> None:
    assert type(validation.to_int(np.int8(3))) is int
    assert validation.to_int(3.0) is None


def test_a_message_shows_short_values_and_the_kind_of_others() -> None:
    shown = [validation.describe_value(value) for value in (np.int64(3), "5", None, ROWS, "x" * 99, object())]
    assert shown == ["3", "'5'", "None", "a pandas.DataFrame", "text", "an object"]


def test_bins_rare_and_protection_take_numbers_of_numpy() -> None:
    binned = rows(segments=["age"], bins={"age": np.int64(3)})
    assert binned.equals(rows(segments=["age"], bins={"age": 3}))
    assert rows(rare=np.int64(5)).equals(rows(rare=5))
    assert rows(rare={"device": np.int64(5)}).equals(rows(rare={"device": 5}))
    assert cells.protect(rows(), np.int64(3)).equals(cells.protect(rows(), 3))


def test_options_that_are_none_ask_for_nothing() -> None:
    assert rows(cuped=None, balance=None, bins=None, rare=None, cap=None).equals(rows())
    assert sums(covariates=None).equals(sums())


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "segments None": (
        lambda: rows(segments=None),
        r"segments is None; give a list of columns, such as \['device'\]",
    ),
    "segments a number": (lambda: sums(segments=3), "segments is 3; give a list of columns"),
    "outcome None": (lambda: rows(outcome=None), "outcome is None; name a column"),
    "control None": (lambda: rows(control=None), "control is None; name an arm"),
    "arm None": (lambda: sums(arm=None), "arm is None; name a column"),
    "time None": (lambda: times(time=None), "time is None; name a column"),
    "value None": (lambda: levels(value=None), "value is None; name a column"),
    "estimate None": (lambda: estimates(estimate=None), "name one column of effects"),
    "control of a wide table None": (lambda: wide(control=None), "control is None; name an arm"),
    "a name that is none": (lambda: sums(outcome=["clicks"]), r"outcome is \['clicks'\]; say in words"),
    "an event without a name": (lambda: times(outcome=None), "outcome is None; say in words"),
    "cuped a number": (lambda: rows(cuped=3), r"cuped must be a list of columns such as \['age'\], not 3"),
    "cuped nested": (lambda: rows(cuped=[["age"]]), r"each of cuped must be the name of one column, not \['age'\]"),
    "covariates a number": (lambda: wide(covariates=3), "covariates must be a list of columns"),
    "unit a list": (lambda: rows(unit=["age"]), r"unit must be the name of one column, not \['age'\]"),
    "bins a boolean": (lambda: rows(segments=["age"], bins={"age": True}), "bins of 'age' are True"),
    "bins and cuped": (lambda: rows(bins=4, cuped="age"), "bins are 4; say of which dimension"),
    "horizon text": (lambda: times(horizon="5"), "horizon is '5', but times were observed above 0 and up to 6"),
    "breaks text": (lambda: times(breaks="5"), r"breaks must be a list of times, not '5'; give numbers"),
    "breaks of text": (lambda: times(breaks=["5"]), r"breaks must be a list of times, not \['5'\]"),
    "protection by half a unit": (lambda: cells.protect(rows(), 9.5), "min_units is 9.5; give a number of units"),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_an_option_of_the_wrong_kind_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


TAKES_CELLS: dict[str, Callable[[Any], object]] = {
    "check": hte.check,
    "fit": lambda given: hte.fit(given, "conversion"),
    "prior_sweep": lambda given: hte.prior_sweep(given, "conversion"),
    "prior_predictive": lambda given: hte.prior_predictive(given, "conversion"),
    "plot_prior": lambda given: hte.plot_prior(given, "conversion"),
    "from_posterior": lambda given: hte.from_posterior(FIT.tree, given),
    "merge": lambda given: cells.merge(CELLS, given),
    "protect": lambda given: cells.protect(given, 10),
    "with_shares": lambda given: cells.with_shares(given, {"old": 1, "new": 1}),
    "split": lambda given: cells.split(given, "device"),
    "sample_ratio": cells.sample_ratio,
    "with_covariates": lambda given: cells.with_covariates(given, ROWS, ["age"]),
}
NO_CELLS = {"a pandas.DataFrame": ROWS, "a list": [CELLS], "None": None, "text": "cells.nc", "a bayes_hte.Fit": FIT}


@pytest.mark.parametrize("take", TAKES_CELLS.values(), ids=TAKES_CELLS)
@pytest.mark.parametrize("kind", NO_CELLS)
def test_what_is_no_cell_table_is_named_with_what_makes_one(take: Callable[[Any], object], kind: str) -> None:
    with pytest.raises(hte.DataError, match=f"^{kind} is no cell table; make one with hte.cells.from_rows, or"):
        take(NO_CELLS[kind])


def test_tables_in_a_list_are_merged_one_by_one() -> None:
    with pytest.raises(ArgumentError, match=r"not a list of them; write merge\(\*tables\)$"):
        cells.merge([CELLS, CELLS])
    with pytest.raises(ArgumentError, match=r"not a dict of them; write merge\(\*tables.values\(\)\)$"):
        cells.merge({"monday": CELLS})


NO_FIT: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "model dict": (lambda: hte.fit(CELLS, {"family": "mean"}), ArgumentError, "is no model; give the path of a .toml"),
    "model number": (lambda: hte.read_model(3), ArgumentError, r"3 is no model; .*one of the shipped \['continuous'"),
    "model None": (lambda: hte.compare(FIT, {"other": None}), ArgumentError, "None is no model"),
    "plan number": (lambda: hte.run(3), ArgumentError, "the plan is 3; give its path"),
    "plan None": (lambda: hte.read_plan(None), ArgumentError, "the plan is None; give its path"),
    "saved None": (lambda: hte.load(None), ArgumentError, "the saved fit is None; give its path"),
    "saved to 3": (lambda: FIT.save(3), ArgumentError, "the file is 3; give its path"),
    "report to None": (lambda: FIT.report(None), ArgumentError, "the report is None; give its path"),
    "list of problems": (lambda: hte.fit_many([CELLS], "conversion"), ArgumentError, "problems are a list; name each"),
    "workers": (lambda: hte.fit_many({"a": CELLS}, "conversion", workers=0), ArgumentError, "workers is 0; give"),
    "many draws": (lambda: hte.fit_many({"a": CELLS}, "conversion", draws="9"), ArgumentError, "draws='9' is no"),
    "prior of cells": (lambda: hte.prior_from_fit(CELLS), ArgumentError, "learnt from fits, not an xarray.Dataset"),
    "priors of a fit": (lambda: hte.learn_prior(FIT), ArgumentError, "experiments are a bayes_hte.Fit; give a list"),
    "priors of None": (lambda: hte.learn_prior([None] * 3), ArgumentError, "learnt from fits, not None"),
    "discount text": (lambda: hte.prior_from_fit(FIT, discount="1"), ArgumentError, "at most 1, not '1'"),
    "posterior None": (lambda: hte.from_posterior(None, CELLS), hte.DataError, "posterior is None; give what pm"),
    "title": (lambda: hte.from_posterior(FIT.tree, CELLS, title=3), ArgumentError, "title is 3; give"),
    "factor text": (lambda: hte.prior_sweep(CELLS, "conversion", ["a"]), hte.ModelError, "effect.between: should be"),
    "factor 0": (lambda: hte.prior_sweep(CELLS, "conversion", [0]), ArgumentError, "the factor 0; a prior is"),
    "one factor": (lambda: hte.prior_sweep(CELLS, "conversion", 2), ArgumentError, "between is 2; give a list"),
    "no factor": (lambda: hte.prior_sweep(CELLS, "conversion", []), ArgumentError, r"between is \[\]; give a list"),
    "prior draws": (
        lambda: hte.prior_predictive(CELLS, "conversion", draws=0),
        ArgumentError,
        "draws=0 is no number",
    ),
    "prior seed": (
        lambda: hte.prior_predictive(CELLS, "conversion", seed=None),
        ArgumentError,
        "seed=None is no seed",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), NO_FIT.values(), ids=NO_FIT)
def test_an_argument_of_the_wrong_kind_is_named(call: Callable[[], object], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("seed", [None, 1.5, "1", True, -1, 2**32, [1]], ids=repr)
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(ArgumentError, match="is no seed: give a whole number from 0 to 4294967295"):
        hte.fit(CELLS, "conversion", seed=seed)


@pytest.mark.parametrize("draws", [None, "4000", 4000.0, True], ids=repr)
def test_draws_are_a_whole_number(draws: Any) -> None:
    with pytest.raises(ArgumentError, match="is no number of draws; give a whole number, 400 or more"):
        hte.fit(CELLS, "conversion", draws=draws)


def test_draws_and_seed_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    found = hte.fit(CELLS, "conversion", draws=np.int64(400), seed=np.int64(3))
    pd.testing.assert_frame_equal(found.table(), hte.fit(CELLS, "conversion", draws=400, seed=3).table())
    pd.testing.assert_frame_equal(hte.load(found.save(tmp_path / "fit.nc")).table(), found.table())


ASKED: dict[str, tuple[Callable[[], object], str]] = {
    "ci_prob text": (lambda: FIT.table(ci_prob="95"), "a probability between 0 and 1, such as 0.95, not '95'"),
    "ci_prob list": (lambda: FIT.ate(ci_prob=[0.9]), r"between 0 and 1, such as 0.95, not \[0.9\]"),
    "rope text": (lambda: FIT.heterogeneity(rope="1"), "a number greater than 0, not '1'"),
    "scale": (lambda: FIT.ranks(scale=["absolute"]), r"no scale \['absolute'\]; scales are absolute"),
    "scale that is empty": (lambda: FIT.table(scale=[]), r"no scale \[\]; scales are absolute"),
    "scale that is 0": (lambda: FIT.decide(scale=0), "no scale 0; scales are absolute"),
    "weights list": (lambda: FIT.ate(weights=[1, 2]), r"weights must be a dict, such as \{.*\}, not \[1, 2\]"),
    "weights of text": (lambda: FIT.ate(weights={"device 0": "many"}), "the weight of 'device 0' is 'many'"),
    "weights twice": (lambda: FIT.ate(weights={1: 1, "1": 1}), "weights name a segment twice"),
    "where": (lambda: FIT.predict_new_segment(where="tv"), "where must be a dict, such as .*, not 'tv'"),
    "covariates": (lambda: FIT.predict_new_segment(covariates={"age": "old"}), "the covariate 'age' is 'old'"),
    "contrast": (lambda: FIT.contrasts(["rest"]), r"no contrast against \['rest'\]"),
    "order": (lambda: FIT.plot_forest(order="size"), "no order 'size'; there are effect, lowest, name, given"),
    "layout": (lambda: FIT.plot_forest(layout=3), "no layout 3; there are wide, narrow"),
}


@pytest.mark.parametrize(("call", "message"), ASKED.values(), ids=ASKED)
def test_a_question_that_makes_no_sense_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


def test_a_prior_may_be_swept_over_numbers_of_numpy_and_priors_as_in_a_file() -> None:
    found = hte.prior_sweep(CELLS, "conversion", [np.float64(1.0), {"dist": "HalfNormal", "sigma": 0.1}], draws=400)
    assert found["between"].nunique() == 2


@pytest.mark.parametrize(("control", "treated"), [(0, 1), (False, True), (0.0, 1.0), (np.int64(0), np.int64(1))])
def test_arms_are_named_as_the_data_held_them_or_as_tables_show_them(control: Any, treated: Any) -> None:
    column = [control if arm == "old" else treated for arm in ROWS["arm"]]
    made = rows(ROWS.assign(arm=column), control=control)
    stated = cells.with_shares(made, {control: 0.5, treated: 0.5})
    assert stated.attrs["shares"] == cells.with_shares(made, dict.fromkeys(made["arm"].values, 1)).attrs["shares"]
    assert hte.check(made, {control: 1, treated: 1}) == hte.check(stated)
    assert cells.sample_ratio(made, {control: 1, treated: 1}).equals(cells.sample_ratio(stated))


def test_an_arm_that_shares_name_twice_is_refused() -> None:
    made = rows(ROWS.assign(arm=[int(arm == "new") for arm in ROWS["arm"]]), control=0)
    with pytest.raises(ArgumentError, match="shares name an arm twice: 0, 1, '1'; state one share of every arm"):
        cells.with_shares(made, {0: 1, 1: 1, "1": 1})


def test_segments_levels_and_arms_of_a_fit_are_named_as_the_data_held_them() -> None:
    found = example_fit(["1", "2", "true"], arms=("0", "1"))
    by_text = found.ate(weights={"1": 1, "2": 2, "true": 3})
    assert found.ate(weights={np.int64(1): 1, 2: np.int64(2), "true": 3}).equals(by_text)
    assert found.ate(weights=pd.Series([1, 2, 3], index=["1", 2.0, "true"])).equals(by_text)
    assert found.plot_forest(arm=1)
    assert found.plot_shrinkage(arm=np.int64(1))
    with pytest.raises(ArgumentError, match="no treated arm '2'"):
        found.plot_forest(arm=2)


def test_a_level_of_a_new_segment_is_named_as_the_data_held_it() -> None:
    keys = [(day, plan, arm) for day in (1, 2) for plan in "abcd" for arm in (0, 1)]
    table = pd.DataFrame(keys, columns=["day", "plan", "arm"]).assign(n=500, events=[40, 50, 60, 45] * 4)
    made = cells.from_summary(table, arm="arm", control=0, segments=["day", "plan"], n="n", events="events")
    half = {"dist": "HalfNormal", "sigma": 0.3}
    pool = {"mean": {"dist": "Normal"}, "between": half}
    model = hte.Model.model_validate({"family": "binomial", "effect": {**pool, "strata": "day"}, "baseline": pool})
    found = hte.fit(made, model, sampler="exact", draws=400)
    assert found.predict_new_segment(where={"day": 1}).equals(found.predict_new_segment(where={"day": "1"}))
