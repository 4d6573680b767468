"""Bad rows and bad files: every error says what is wrong, what was found, and the way out."""

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_rows
from bayes_hte.cells.reading.files.open_files import connect_to_duckdb
from bayes_hte.errors import ArgumentError, DataError


def small(**changes: Any) -> pd.DataFrame:
    """Eight users, two devices, two arms."""
    columns = {
        "device": ["mobile"] * 4 + ["tv"] * 4,
        "arm": ["old", "old", "new", "new"] * 2,
        "spent": [1.0, 3.0, 4.0, 8.0, 0.0, 2.0, 1.0, 5.0],
    }
    return pd.DataFrame(columns | changes)


def read(data: Any, **changes: Any) -> xr.Dataset:
    keywords: dict[str, Any] = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["device"]}
    return from_rows(data, **(keywords | changes))


def test_files_have_no_way_to_a_network():
    with connect_to_duckdb() as connection:
        for name in ("autoinstall_known_extensions", "autoload_known_extensions"):
            assert connection.execute("select current_setting(?)", [name]).fetchone() == (False,)


BAD_DATA = {
    "missing column": (
        small().rename(columns={"device": "devices"}),
        {},
        r"lacks the column 'device'; did you mean 'devices'\?; columns are 'devices', 'arm', 'spent'",
    ),
    "missing columns": (small(), {"outcome": "zz", "arm": "qq"}, "lacks the columns 'zz', 'qq'; columns are"),
    "column used twice": (small(), {"outcome": "arm"}, "'arm' is used twice, for outcome and for arm"),
    "dimension used twice": (
        small(),
        {"segments": ["device", "device"]},
        "'device' is used twice, for segments and for segments",
    ),
    "unknown control": (
        small(),
        {"control": "odl"},
        r"control arm 'odl'; arms in 'arm' are 'new', 'old'; did you mean 'old'\?",
    ),
    "far control": (small(), {"control": "zz"}, "name one of them as the control"),
    "one arm": (small(arm="old"), {}, "all units are in one arm, 'old'"),
    "text outcome": (small(spent=list("abcdefgh")), {}, "'spent' has dtype String, and a mean needs numbers"),
    "date outcome": (small(spent=pd.Timestamp("2024-01-01")), {}, "'spent' has dtype Datetime"),
    "object outcome": (small(spent=[1, 2, 3, "x", 5, 6, 7, 8]), {}, "'spent' has dtype Object"),
    "missing and infinite": (
        small(spent=[np.nan, np.nan, np.inf, 1, 2, 3, 4, 5]),
        {},
        r"2 of 8 outcomes in 'spent' are missing and 1 infinite; clean them or pass drop_missing=True \(--drop-",
    ),
    "infinite": (small(spent=[-np.inf, 0, 0, 1, 2, 3, 4, 5]), {}, "1 of 8 outcomes in 'spent' is infinite; clean"),
    "missing arms": (
        small(arm=["old", None, "new", None] * 2),
        {},
        "4 rows have no arm in 'arm'; clean them or pass drop_missing",
    ),
    "nothing left": (
        small(spent=np.nan),
        {"drop_missing": True},
        "8 of 8 outcomes in 'spent' are missing: no row is left",
    ),
    "no rows": (small().iloc[:0], {}, "pandas.DataFrame has no rows"),
    "constant": (small(spent=3.5), {}, "the outcome does not vary: 'spent' is 3.5 for every unit"),
    "no events": (small(spent=[0] * 8), {}, "no events in any cell"),
    "always": (small(spent=[True] * 8), {}, "'spent' is 1 for every unit"),
    "id": (small(device=range(8)), {}, r"'device' has 8 levels for 8 units; did you mean an id\?"),
    "near id": (
        pd.concat([small(device=range(8 * i, 8 * i + 8)) for i in range(9)] + [small()] * 7),
        {},
        r"'device' has 74 levels for 128 units; did you mean an id",
    ),
    "no name": (small(), {"outcome": ["spent"]}, r"outcome must be the name of one column, not \['spent'\]"),
    "numbered columns": (
        pd.DataFrame(np.ones((4, 2))),
        {},
        "lacks the columns 'spent', 'arm', 'device'; columns are 0, 1",
    ),
    "no dimension": (small(), {"segments": []}, "segments is empty"),
    "one number": (small(), {"segments": 3}, r"segments is 3; give a list of columns, such as \['device'\]"),
    "reserved": (
        small().rename(columns={"device": "pooling"}),
        {"segments": ["pooling"]},
        "uses the name 'pooling' itself",
    ),
    "segment of two": (small(segment="a"), {"segments": ["segment", "device"]}, "uses the name 'segment' itself"),
    "slash": (small().rename(columns={"device": "a/b"}), {"segments": ["a/b"]}, "without '/'"),
    "no table": ([1, 2], {}, "data of type builtins.list is no table; give a pandas"),
    "series": (small()["spent"], {}, "data of type pandas.Series is no table"),
    "repeated names": (
        small().set_axis(["device", "arm", "arm"], axis=1),
        {},
        "column names repeat in the pandas.DataFrame",
    ),
    "suffix": ("rows.json", {}, "'rows.json' is no file that can be read here; known endings are .csv"),
    "no file": ("nowhere/rows.csv", {}, "there is no file 'nowhere/rows.csv'"),
    "no match": ("nowhere/*.parquet", {}, "there is no file"),
    "https": (
        "https://example.org/rows.csv",
        {},
        "an address .* and nothing is fetched from a network; download the file",
    ),
    "s3": (Path("s3://bucket/rows.parquet"), {}, "given as an address"),
}


@pytest.mark.parametrize(("data", "changes", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_input_is_named_with_the_way_out(data, changes, message):
    with pytest.raises((ArgumentError, DataError), match=message):
        read(data, **changes)


def test_half_as_many_levels_as_units_is_no_id():
    read(pd.concat([small(device=range(8 * i, 8 * i + 8)) for i in range(7)] + [small()] * 9))


BAD_FILES = {
    "zero bytes": ("rows.csv", b"", r"is empty \(0 bytes\)"),
    "header only": ("rows.csv", b"device,arm,spent\n", "file rows.csv has no rows"),
    "no parquet": ("rows.parquet", b"PAR1 and nothing more", "cannot read file rows.parquet: .*magic bytes"),
    "no gzip": ("rows.csv.gz", b"\x1f\x8b\x08abc", "cannot read file rows.csv.gz: .*"),
    "not utf-8": ("rows.csv", b"device,arm,spent\ntv,old,1\n\xff\xfe\x00,new,2\n", "is not text in UTF-8; save it"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_broken_file_is_named_in_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    if "cannot read" in message:
        assert isinstance(caught.value.__cause__, duckdb.Error)


def test_a_parquet_file_cut_short_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    small().to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cannot read file rows\.parquet"):
        read(path)


def test_only_columns_of_the_file_itself_are_said_to_be_there(tmp_path):
    small().to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match=r"lacks the column 'colour'; columns are 'device', 'arm', 'spent'$"):
        read(tmp_path / "rows.csv", segments="colour")


def test_a_near_file_name_is_suggested(tmp_path):
    small().to_csv(tmp_path / "hillstrom.csv", index=False)
    with pytest.raises(DataError, match=r"did you mean 'hillstrom.csv'\?"):
        read(tmp_path / "hilstrom.csv")


def test_a_relation_whose_connection_was_closed_is_named():
    connection = duckdb.connect()
    relation = connection.sql("select 'a' as device, 'old' as arm, 1 as spent")
    connection.close()
    with pytest.raises(DataError, match=r"cannot read duckdb\.DuckDBPyRelation"):
        read(relation)


def test_more_cells_than_could_be_small_are_refused_before_they_are_fetched(monkeypatch):
    monkeypatch.setattr("bayes_hte.cells.units.group_by.MAX_GROUPS", 10)
    many = pd.concat([small(device=i) for i in range(6)])
    with pytest.raises(DataError, match=r"more than 10 cells, and the dimension 'device' has 6 levels or more"):
        read(many)


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-inf", "Infinity"])
def test_words_for_no_number_in_a_csv_outcome_are_counted_and_can_be_dropped(tmp_path, word):
    path = tmp_path / "rows.csv"
    lines = [f"{arm},{device},{i % 5}.5" for i in range(20) for arm in ("a", "b") for device in ("tv", "web")]
    path.write_text("arm,device,y\n" + "\n".join(lines) + f"\na,tv,{word}\n")
    ask = {"outcome": "y", "arm": "arm", "control": "a", "segments": ["device"]}
    with pytest.raises(DataError, match="1 of 81 outcomes"):
        from_rows(path, **ask)
    assert int(from_rows(path, **ask, drop_missing=True)["n"].sum()) == 80


@pytest.mark.parametrize("value", [["x"], {"x": 1}], ids=["list", "dict"])
def test_a_dimension_that_holds_containers_is_refused(value: object) -> None:
    units = pd.DataFrame({"y": [0, 1, 0, 1], "arm": list("abab"), "tags": [value] * 4})
    with pytest.raises(DataError, match=r"'tags' cannot all be grouped by.*must hold a single value"):
        from_rows(units, outcome="y", arm="arm", control="a", segments=["tags"])
