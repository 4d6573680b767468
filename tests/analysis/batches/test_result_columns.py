"""The columns of the result under their version: a program may rely on them."""

import math

import pandas as pd
import pytest

from bayes_hte.analysis.batches import result_columns
from bayes_hte.analysis.batches.result_columns import ResultSchema
from bayes_hte.errors import ArgumentError

COLUMNS_OF_VERSION = {
    1: "row text, device text, arm text, n_control integer, n_treated integer, raw number, raw_se number, "
    "effect number, sd number, ci_low number, ci_high number, p_positive number, p_negative number, pooling number, "
    "scale text, ci_prob number, reliable flag, problems text, engine text, pareto_k number, effective_points number, "
    "quadrature_error number, unexplored_mass number, unmoved_share number, seed integer, error text, "
    "schema_version integer"
}
"""A change of these is a new version, below the old one."""


def test_every_version_keeps_its_columns_their_order_and_types() -> None:
    schema = ResultSchema(keys=("experiment",), dims=("device",))
    told = ", ".join(f"{name} {kind}" for name, kind in schema.kind_by_column.items())
    assert told == COLUMNS_OF_VERSION[result_columns.SCHEMA_VERSION]
    assert max(COLUMNS_OF_VERSION) == result_columns.SCHEMA_VERSION


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_missing_in_every_engine(value: float | None) -> None:
    assert result_columns.make_plain(value, "number") is None


def test_whole_numbers_and_flags_may_be_missing_in_pandas() -> None:
    schema = ResultSchema(keys=("experiment",), dims=("device",))
    columns = schema.complete_columns([{"n_control": 2**53 + 1, "reliable": True}, {}])
    table = result_columns.build_pandas_table(columns, schema)
    assert table["n_control"].tolist() == [2**53 + 1, pd.NA]
    assert table["reliable"].tolist() == [True, pd.NA]
    assert math.isnan(table["effect"][0])


def test_an_empty_result_has_all_columns_and_types() -> None:
    schema = ResultSchema(keys=("experiment",), dims=("device",))
    empty, full = (
        result_columns.build_pandas_table(schema.complete_columns(rows), schema) for rows in ([], [{"row": "segment"}])
    )
    assert empty.dtypes.equals(full.dtypes)


@pytest.mark.parametrize("names", [{"keys": ("seed",), "dims": ("device",)}, {"keys": ("day",), "dims": ("engine",)}])
def test_keys_and_dimensions_may_not_be_called_as_columns_of_the_result(names: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ArgumentError, match=r"the result has columns '(seed|engine)' of its own; rename"):
        ResultSchema(**names).check_names()
