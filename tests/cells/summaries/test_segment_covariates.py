"""Covariates: what is known of whole segments, from a table of its own or from columns beside the numbers."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_estimates, from_rows, from_summary, with_covariates
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table

KNOWN = {
    "device": ["web", "app", "tv", "tv"],
    "age": ["1", "1", "1", "2"],
    "size": [3, 1.5, 9.5, 2],
    "x y": [0, 1, 2, 3],
}


def cells_of(*devices: str) -> xr.Dataset:
    rows = [(device, "1", arm, y) for device in devices for arm in ("old", "new") for y in (0, 1, 2)]
    frame = pd.DataFrame(rows, columns=["device", "age", "arm", "y"])
    return from_rows(frame, outcome="y", arm="arm", control="old", segments=["device", "age"])


def test_covariates_follow_their_segments_in_every_engine(engine):
    cells = with_covariates(cells_of("tv", "web"), engine(KNOWN), ["x y", "size"])
    assert cells.covariates.dims == ("segment", "covariate")
    assert cells.covariate.values.tolist() == ["x y", "size"]
    assert cells.device.values.tolist() == ["tv", "web"]
    assert cells.covariates.values.tolist() == [[2, 9.5], [0, 3]]
    assert cell_table.identify_kind(cells) == "moments"
    xr.testing.assert_identical(cells.drop_vars(["covariates", "covariate"]), cells_of("tv", "web"))


def test_covariates_are_replaced_by_new_ones():
    cells = with_covariates(cells_of("tv", "web"), pd.DataFrame(KNOWN), ["x y", "size"])
    again = with_covariates(cells, pd.DataFrame(KNOWN), ["size"])
    assert again.covariates.values.tolist() == [[9.5], [3]]


def test_missing_levels_are_found_by_their_name():
    rows = pd.DataFrame({"d": [None, None, "a", "a"] * 2, "arm": ["x", "y"] * 4, "v": range(8)})
    cells = from_rows(rows, outcome="v", arm="arm", control="x", segments=["d"])
    found = with_covariates(cells, pd.DataFrame({"d": ["a", None], "z": [1, 2]}), ["z"])
    assert found.covariates.sel(segment="(missing)").item() == 2


def test_other_segments_may_be_wrong_or_repeat():
    table = pd.DataFrame(KNOWN | {"device": ["web", "other", "tv", "other"], "age": "1", "size": [3, None, 9, None]})
    assert with_covariates(cells_of("tv", "web"), table, ["size"]).covariates.values.tolist() == [[9], [3]]


BAD: dict[str, tuple[dict[str, Any], Any, str]] = {
    "empty": ({}, [], "covariates is empty"),
    "repeated": ({}, ["size", "size"], "covariates repeat: 'size', 'size'"),
    "dimension": ({}, ["age"], "'age' is used twice, for segments and for covariate 'age'"),
    "missing column": ({}, ["sizes"], r"lacks the column 'sizes'; did you mean 'size'\?"),
    "missing segment": ({"device": "other"}, ["size"], r"missing for 2 of 2 segments: 'tv · 1', 'web · 1'; add a row"),
    "twice": ({"device": ["web", "web", "tv", "x"]}, ["size"], "segment 'web · 1' appears twice, in rows 1 and 2"),
    "not finite": ({"size": [3, 1, np.inf, 2]}, ["size"], "covariate 'size' must be a finite number; wrong in .*tv"),
    "null": ({"size": [None, 1, 1, 2]}, ["size"], "covariate 'size' must be a finite number; wrong in segment 'web"),
    "words": ({"size": list("abcd")}, ["size"], "covariate 'size' must hold numbers, but 4 of 4 values are none: 'a'"),
    "constant": ({"size": [3, 1, 3, 3]}, ["x y", "size"], "the covariate 'size' is 3 in every segment"),
    "no dimension": ({}, [3], "must be the name of one column, not 3"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "covariates", "message"), BAD.values(), ids=BAD)
def test_bad_covariates_are_named_with_the_way_out(changes, covariates, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        with_covariates(cells_of("tv", "web"), pd.DataFrame(KNOWN | changes), covariates)


def test_what_is_no_cell_table_is_refused():
    with pytest.raises(DataError, match="make no cell table"):
        with_covariates(xr.Dataset({"x": 1}), pd.DataFrame(KNOWN), ["size"])


ESTIMATES = {
    "trial": ["C", "A", "B", "A"],
    "arm": ["x", "x", "x", "y"],
    "y": [1.0, 2.0, 3.0, 4.0],
    "se": [1.0] * 4,
    "dose": [5.0, 10.0, 20.0, 10.0],
}


def test_estimates_bring_their_covariates_in_every_engine(engine):
    cells = from_estimates(engine(ESTIMATES), segments=["trial"], arm="arm", estimate="y", se="se", covariates=["dose"])
    assert cells.covariates.sel(covariate="dose").values.tolist() == [10, 20, 5]
    assert cells.segment.values.tolist() == ["A", "B", "C"]
    assert cell_table.identify_kind(cells) == "estimates"


def test_estimates_may_have_a_covariance_and_covariates():
    table = pd.DataFrame(ESTIMATES).iloc[:3]
    covariance = np.diag([1.0, 2.0, 3.0])
    cells = from_estimates(table, segments=["trial"], estimate="y", covariance=covariance, covariates=["dose"])
    assert np.diag(cells.covariance).tolist() == [2, 3, 1]
    assert cells.covariates.values.tolist() == [[10], [20], [5]]


SUMMARY = {
    "device": ["tv", "mobile", "mobile", "tv"],
    "arm": ["new", "old", "new", "old"],
    "users": [40, 1000, 900, 50],
    "bought": [4, 100, 120, 5],
    "size": [4.5, 1, 1, 4.5],
}


def summary(table: Any, covariates: Any = ("size",)) -> xr.Dataset:
    return from_summary(
        table, arm="arm", control="old", segments=["device"], n="users", events="bought", covariates=covariates
    )


def test_a_summary_brings_its_covariates_in_every_engine(engine):
    cells = summary(engine(SUMMARY))
    assert cells.device.values.tolist() == ["mobile", "tv"]
    assert cells.covariates.values.tolist() == [[1], [4.5]]
    assert cell_table.identify_kind(cells) == "counts"


def test_a_plain_csv_with_covariates_is_read_without_duckdb(tmp_path, monkeypatch):
    pd.DataFrame(SUMMARY).to_csv(tmp_path / "s.csv", index=False)
    monkeypatch.setattr("bayes_hte.cells.summaries.small_tables.open_table", None)
    assert summary(tmp_path / "s.csv").covariates.values.tolist() == [[1], [4.5]]


@pytest.mark.parametrize(
    ("size", "covariates", "message"),
    [
        ([4.5, 1, 2, 4.5], ["size"], "covariate 'size' differs between the arms of segment 'mobile': 1 and 2"),
        ([4.5, 1, None, 4.5], ["size"], "must be a finite number; wrong in segment 'mobile', arm 'new'"),
        ([1, 1, 1, 1], ["size"], "is 1 in every segment"),
        ([1, 1, 1, 1], ["users"], "'users' is used twice, for n and for covariate 'users'"),
        ([1, 1, 1, 1], "size", "is 1 in every segment"),
    ],
)  # fmt: skip
def test_covariates_of_a_summary_must_be_known_of_whole_segments(size, covariates, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        summary(pd.DataFrame(SUMMARY | {"size": size}), covariates)
