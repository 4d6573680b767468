"""`combine`: two tests of the same change in one fit, with an SD between tests."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr
from pydantic import TypeAdapter, ValidationError

from bayes_hte._support.numerics import isolate_call
from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import check_seed, describe_type, describe_value
from bayes_hte.analysis.combine.average_tests import StackedTests, average_posterior
from bayes_hte.analysis.combine.two_test_model import choose_test_prior, extend_by_tests, require_combinable
from bayes_hte.analysis.fit import SamplingRequest, compute_fit_tree
from bayes_hte.analysis.load import load
from bayes_hte.analysis.result import Fit
from bayes_hte.analysis.run import run
from bayes_hte.cells.combine.stack import name_test_dimension, pool_tests, stack_tests
from bayes_hte.criticism.diagnostics import read_diagnosis
from bayes_hte.decisions.repetition.between_tests import describe_disagreements
from bayes_hte.errors import ArgumentError, DataError, PlanError
from bayes_hte.model.families import select_model_statistics
from bayes_hte.model.priors import format_prior
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Model, cell_table
from bayes_hte.spec.cell_table import ARM
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.fit_tree import (
    TEST_CELLS_GROUP,
    TEST_POSTERIOR_GROUP,
    FitRecord,
    build_fit_tree,
    describe_engine,
    get_engine_name,
    get_sampler,
    get_seed,
    get_stated_direction,
    record_inputs,
    require_known_model,
)


@isolate_call
def combine(
    first: Fit,
    second: Fit,
    *,
    between_tests: Distribution | Mapping[str, Any] | float | None = None,
    model: Model | None = None,
    names: Sequence[str] = ("first", "second"),
    seed: int | None = None,
) -> Fit:
    """Combine two tests of the same change: each segment's effect over both, and how much tests differ.

    One model of the cells of both, in which a test may move the effects of all segments, and that of each segment: by
    how much is estimated. It is neither one test's prior for the other nor a sum of the rows: as the SD between tests
    goes to 0 the result is that of one fit to all rows, which is what the first test's posterior, taken as prior, and
    the second's data give; as it grows the tests count as two different experiments.

    Parameters
    ----------
    first, second : Fit
        With the same outcome, arms and dimensions. Segments that one of them lacks are kept.
    between_tests : number, Distribution or mapping, optional
        Prior of the SD between tests, on the link scale: of what a test moves in all segments, and of what it moves in
        one. A number is the scale of a half-normal prior. By default half as wide as the model's prior of the
        between-segment SD.
    model : Model, optional
        What is believed of one test; by default the model of the first.
    names : sequence of str
        What the tests are called.
    seed : int, optional
        By default that of the first fit.

    Returns
    -------
    Fit
        Effects are averages over the two tests by their units in the segment, on the link scale; `Fit.compare_tests`
        has each test's own, their difference, and what to expect of a third. Notes of the diagnosis name segments in
        which the tests disagree. What asks for the model of the cells, such as `hte.loso`, is not there.

    Raises
    ------
    ArgumentError
        If these are no two fits, the names are the same, or the prior is none of a standard deviation.
    DataError
        If the tests have different outcomes, arms or dimensions.
    ModelError
        If only draws of a model are known, or it does not consist of normal parts that add up.

    References
    ----------
    Higgins, Thompson & Spiegelhalter (2009), Journal of the Royal Statistical Society A 172:137 (what a random-effects
    model of studies estimates, and predicts).

    Examples
    --------
    >>> import bayes_hte as hte
    >>> first = hte.example_fit()
    >>> both = hte.combine(first, first)
    >>> bool((both.table()["sd"] < first.table()["sd"]).all())
    True
    """
    _check_fits(first, second)
    test_names = _check_names(names)
    resolved_model = _resolve_model(first, second, model)
    tables = {name: _select_cells(fit, resolved_model) for name, fit in zip(test_names, (first, second), strict=True)}
    dimensions = cell_table.list_dimensions(first.cells)
    test_dimension = name_test_dimension(dimensions)
    stack = StackedTests(stack_tests(tables, test_dimension), pool_tests(tables), test_dimension)
    test_prior = choose_test_prior(resolved_model, _parse_prior(between_tests))
    chosen_seed = get_seed(first.tree) if seed is None else check_seed(seed)
    direction = get_stated_direction(first.tree)
    # Diagnosed as any fit: engines, retries and findings are those of a crossed model.
    stacked_tree = compute_fit_tree(
        stack.cells,
        extend_by_tests(resolved_model, dimensions, test_dimension, test_prior),
        SamplingRequest(seed=chosen_seed, progress=False),
        partial(replace, higher_is_better=direction),
    )
    record = replace(
        record_inputs(stack.cells, resolved_model, resolved_model=resolved_model, seed=chosen_seed),
        plan=first.plan or second.plan,
        higher_is_better=direction,
        engine_name=get_engine_name(stacked_tree),
        engine_sentence=f"{describe_engine(stacked_tree)} Prior of the SDs between tests: {format_prior(test_prior)}.",
        sampler=get_sampler(stacked_tree),
        is_from_posterior=True,
        test_names=test_names,
    )
    return Fit(_build_combined_tree(stacked_tree, stack, resolved_model, record))


def _build_combined_tree(
    stacked_tree: xr.DataTree, stack: StackedTests, model: Model, record: FitRecord
) -> xr.DataTree:
    """Build the tree of segments from the one of segment × test, which it keeps as groups of its own."""
    stacked_posterior = stacked_tree["posterior"].to_dataset()
    groups = {
        "posterior": average_posterior(stacked_posterior, model, stack),
        "sample_stats": stacked_tree["sample_stats"].to_dataset(),
        "cells": stack.pooled_cells,
        TEST_POSTERIOR_GROUP: stacked_posterior,
        TEST_CELLS_GROUP: stack.cells,
    }
    # What the tests disagree on is read from the tree itself, so that a saved fit says the same.
    diagnosis = read_diagnosis(stacked_tree)
    combined_tree = build_fit_tree(groups, replace(record, diagnosis=asdict(diagnosis)))
    diagnosis = diagnosis.with_notes(describe_disagreements(combined_tree))
    return build_fit_tree(groups, replace(record, diagnosis=asdict(diagnosis)))


def _check_fits(first: Fit, second: Fit) -> None:
    """Raise unless these are fits of two tests that can be of the same change."""
    for role, fit in (("first", first), ("second", second)):
        if not isinstance(fit, Fit):
            raise ArgumentError(
                f"combine takes two fits, and the {role} is {describe_type(fit)}; load a file with hte.load"
            )
        require_known_model(fit.tree, "a combination of tests")
    tests = (first, second)
    # In the order in which a reader would look for the mistake.
    compared: dict[str, tuple[object, ...]] = {
        "outcomes": tuple(str(fit.cells.attrs["outcome"]) for fit in tests),
        "controls": tuple(str(fit.cells.attrs["control"]) for fit in tests),
        "arms": tuple(quote_names(sorted(map(str, fit.cells[ARM].values))) for fit in tests),
        "dimensions": tuple(quote_names(cell_table.list_dimensions(fit.cells)) for fit in tests),
        "families": tuple(fit.model.family for fit in tests),
        "kinds of cells": tuple(_name_kind(fit.cells) for fit in tests),
        "directions": tuple(get_stated_direction(fit.tree) is not False for fit in tests),
    }
    for property_name, (first_value, second_value) in compared.items():
        if first_value != second_value:
            raise DataError(
                f"tests with different {property_name} cannot be combined: {first_value} in the first, {second_value} "
                "in the second; give both the same names, and fit them with the same model"
            )


def _name_kind(cells: xr.Dataset) -> str:
    """Name the kind of cells; counts are moments of an outcome that is 0 or 1."""
    kind = cell_table.identify_kind(cells)
    return "moments" if kind == "counts" else kind


def _check_names(names: Sequence[str]) -> tuple[str, ...]:
    test_names = tuple(names) if not isinstance(names, str) else (names,)
    is_named = all(isinstance(name, str) and name.strip() for name in test_names)
    if len(test_names) != 2 or not is_named or len(set(test_names)) < 2:
        raise ArgumentError(
            f"names are {describe_value(names)}, which do not tell two tests apart; give two different texts"
        )
    return test_names


def _parse_prior(between_tests: Distribution | Mapping[str, Any] | float | None) -> Distribution | float | None:
    """Read the prior of the SD between tests as a distribution, where it is written as a table of a model file."""
    if not isinstance(between_tests, Mapping):
        return between_tests
    try:
        return TypeAdapter[Distribution](Distribution).validate_python(dict(between_tests))
    except ValidationError as error:
        raise ArgumentError(
            f"between_tests is {describe_value(between_tests)}, which is no distribution of a model file: give "
            '{"dist": "HalfNormal", "sigma": 0.1}, or a number that is its scale'
        ) from error


def _resolve_model(first: Fit, second: Fit, model: Model | None) -> Model:
    """Resolve the model of one test: dimensions named, priors in the outcome's units as the first test has them."""
    if model is not None and not isinstance(model, Model):
        raise ArgumentError(f"model is {describe_type(model)}; give a Model, as hte.read_model makes one")
    chosen_model = require_combinable(first.model if model is None else model)
    return build_problem(first.cells, chosen_model).model


def _select_cells(fit: Fit, model: Model) -> xr.Dataset:
    """Select a test's cells as its model sees them: of means, the standard errors that they have in their own test."""
    cells = fit.cells
    if model.family != "mean":
        return cells
    # Adjusted and clustered means keep their errors; of plain ones the variance is that of the test's own units.
    statistics = select_model_statistics(cells, model)
    kept = {name: cells[name] for name in ("n", "mean", "covariate_part", "cell_size") if name in cells}
    attrs = {name: value for name, value in cells.attrs.items() if name not in ("recipe", "shares", "spanning")}
    return xr.Dataset({**kept, "se": statistics["se"]}).assign_attrs(attrs)


def read_test(path: Path) -> Fit:
    """Read the fit of a test from its file, or carry out the plan that describes it.

    Raises
    ------
    PlanError
        If the plan asks for several fits.
    """
    # A folder holds the results of a plan, which may be one fit or several.
    is_saved = path.suffix.lower() == ".nc" or path.is_dir()
    result = load(path) if is_saved else run(path, progress=False)
    # Of several metrics and breakdowns nobody knows which to combine.
    if not isinstance(result, Fit):
        raise PlanError(
            f"{path} answers several questions, and two tests are combined in the answer to one; give "
            "the file of the fit that is meant"
        )
    return result
