"""Columns of a long table by name and by what they are called, and the cells of one problem."""

from typing import Any

import pytest

from bayes_hte.analysis.batches.cell_columns import ColumnKind, choose_cell_columns
from bayes_hte.errors import ArgumentError, DataError

HEADER: dict[str, ColumnKind] = {
    "experiment": "label", "metric": "label", "segment": "label", "variant": "label", "day": "other",
    "users": "number", "buyers": "number",
}  # fmt: skip
UNNAMED: dict[str, Any] = {"segments": None, "arm": None, "control": None, "statistics": None}


def choose(header: dict[str, ColumnKind] = HEADER, **changes: Any) -> Any:
    return choose_cell_columns(header, **({"keys": ["experiment", "metric"]} | UNNAMED | changes))


def test_columns_are_found_by_what_they_are_called() -> None:
    columns = choose()
    assert columns.keys == ("experiment", "metric")
    assert columns.dims == ("segment",)
    assert columns.arm == "variant"
    assert columns.column_by_role == {"n": "users", "events": "buyers"}


def test_columns_that_are_named_are_taken_and_no_others() -> None:
    header: dict[str, ColumnKind] = {**HEADER, "group": "label", "seen": "number", "bought": "number"}
    columns = choose(header, segments="group", arm="segment", statistics={"n": "seen", "events": "bought"})
    assert columns.names == ["experiment", "metric", "group", "segment", "seen", "bought"]


def test_the_largest_form_that_the_columns_make_is_meant() -> None:
    header: dict[str, ColumnKind] = {**HEADER, "exposure": "number"}
    assert set(choose(header).column_by_role) == {"n", "events", "exposure"}


def test_estimates_need_no_arm_and_no_control() -> None:
    columns = choose({"experiment": "label", "school": "label", "effect": "number", "se": "number"}, keys="experiment")
    assert (columns.arm, columns.holds_estimates) == (None, True)
    values = {"experiment": [1, 1], "school": ["B", "A"], "effect": [8.0, 28.0], "se": [10.0, 15.0]}
    assert columns.read_cells(values)["estimate"].values.tolist() == [[28.0], [8.0]]


def test_histograms_have_a_value_in_each_row() -> None:
    header: dict[str, ColumnKind] = {
        "test": "label", "device": "label", "arm": "label", "value": "number", "n": "number",
    }  # fmt: skip
    columns = choose(header, keys=["test"])
    assert columns.column_by_role == {"count": "n", "value": "value"}
    values = {
        "test": [1] * 4, "device": ["tv"] * 4, "arm": ["placebo", "placebo", "new", "new"], "value": [0, 1, 0, 1],
        "n": [5, 6, 7, 8],
    }  # fmt: skip
    assert columns.read_cells(values)["histogram"].values.tolist() == [[[5, 6], [7, 8]]]


def test_cells_do_not_depend_on_the_order_of_rows_or_on_how_an_engine_holds_numbers() -> None:
    columns = choose(control="0")
    values = {
        "segment": ["b", "b", "a", "a"], "variant": [0, 1, 0, 1], "users": [10, 11, 12, 13], "buyers": [1, 2, 3, 4],
    }  # fmt: skip
    floats = {name: [float(x) if isinstance(x, int) else x for x in column][::-1] for name, column in values.items()}
    assert columns.read_cells(values).identical(columns.read_cells(floats))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": []}, "keys is empty"),
        ({"arm": 3}, "arm must be the name of one column, not 3"),
        ({"keys": ["experiments"]}, "the table lacks 'experiments'; did you mean 'experiment'"),
        ({"keys": ["experiment", "segment"], "segments": ["segment"]}, "'segment' is used twice"),
        ({"statistics": {"n": "users"}}, "make no summary: n='users'"),
        ({"statistics": {"n": "users", "events": 3}}, "both must be text"),
        ({"statistics": ["users"]}, "statistics must be a dict"),
        ({"statistics": {"estimate": "users"}}, "estimates need their uncertainty"),
        ({"statistics": {"estimate": "users", "se": "buyers", "mean": "day"}}, "estimates have no 'mean'"),
        ({"arm": "segment", "segments": ["variants"]}, "the table lacks 'variants'"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused_with_a_way_out(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        choose(**changes)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({**HEADER, "purchasers": "number"}, "the columns of statistics are in doubt among 'users', 'buyers'"),
        ({"experiment": "label", "metric": "label", "arm": "label"}, "no columns of statistics are known"),
        ({**HEADER, "arm": "label"}, "'variant', 'arm' may all be the arm"),
        ({name: kind for name, kind in HEADER.items() if name != "variant"}, "no column is called arm or variant"),
        ({name: kind for name, kind in HEADER.items() if name != "segment"}, "no column is left for the segments"),
    ],
)
def test_doubt_about_columns_is_an_error_that_names_them(header: dict[str, ColumnKind], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        choose(header)


@pytest.mark.parametrize(
    ("arms", "message"), [(["a", "b"], "no arm is called control"), (["Control", "placebo"], "several arms could be")]
)
def test_a_control_that_nobody_knows_is_an_error_in_the_data(arms: list[str], message: str) -> None:
    values = {"segment": ["tv", "tv"], "variant": arms, "users": [9, 9], "buyers": [1, 2]}
    with pytest.raises(DataError, match=message):
        choose().read_cells(values)
