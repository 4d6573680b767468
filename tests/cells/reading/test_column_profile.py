"""A profile is the same for every form of a file, and equals counting in Python."""

from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from bayes_hte import ArgumentError, DataError
from bayes_hte.cells import DataSource
from bayes_hte.cells.reading.column_profile import ColumnProfile, TableProfile, profile_table


def profile(path: Path | str, arm: str | None = "arm", keys: list[str] | None = None) -> TableProfile:
    return profile_table(DataSource(path), lambda _: (arm, keys or []))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["old", "new"]), st.sampled_from(["a", "b", "none", 'c, "d"', "é\n2"]), st.integers(0, 3)
        ),
        min_size=2,
        max_size=60,
    )
)  # fmt: skip
def test_levels_and_their_spread_over_arms_are_counted(rows, tmp_path):
    table = pd.DataFrame(rows, columns=["arm", "plan", "visits"])
    for path in (tmp_path / "rows.csv", tmp_path / "rows.parquet"):
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path)
        found = profile(path)
        assert found.n_rows == len(rows)
        assert found.get_column("plan").levels == Counter(table["plan"])
        assert found.get_column("visits").levels == Counter(map(str, table["visits"]))
        for arm, part in table.groupby("arm"):
            assert found.get_column("plan").levels_by_arm[str(arm)] == Counter(part["plan"])
        visits = found.get_column("visits")
        assert (visits.minimum, visits.maximum) == (table["visits"].min(), table["visits"].max())
        assert visits.is_number
        assert visits.is_whole


def test_kinds_of_columns_are_told_from_every_row(tmp_path):
    table = pd.DataFrame(
        {
            "arm": ["old", "new"] * 20_000,
            "late": ["1"] * 39_999 + ["2.0-rc1"],  # a word far down: no column of numbers
            "spent": ["1,5", "2"] * 20_000,
            "grouped": ["1,500", "2"] * 20_000,  # thousands, or thousandths: nobody can tell
            "lacking": ["NA", "3"] * 20_000,
            "told": ["none", "some"] * 20_000,
            "flag": ["True", "False"] * 20_000,
            "day": ["2026-03-02", "2026-03-03 10:00:00"] * 20_000,
            "nothing": [None] * 40_000,
            "user": range(40_000),
        }
    )
    table.to_csv(tmp_path / "rows.csv", index=False, sep=";")
    found = profile(tmp_path / "rows.csv", keys=["user"])
    kinds = {
        column.name: (column.is_number, column.is_boolean, column.is_date, column.n_present) for column in found.columns
    }
    assert kinds == {
        "arm": (False, False, False, 40_000), "late": (False, False, False, 40_000),
        "grouped": (False, False, False, 40_000), "spent": (True, False, False, 40_000),
        "lacking": (True, False, False, 20_000),
        "told": (False, False, False, 40_000), "flag": (False, True, False, 40_000),
        "day": (False, False, True, 40_000), "nothing": (False, False, False, 0), "user": (True, False, False, 40_000),
    }  # fmt: skip
    assert found.get_column("spent").has_decimal_commas
    assert found.get_column("flag").is_binary
    assert found.get_column("lacking").levels == {"3": 20_000}
    assert found.get_column("told").levels == {"none": 20_000, "some": 20_000}
    assert found.get_column("user").n_distinct == 40_000  # exact, where it was asked for
    assert found.get_column("user").levels == {}


@pytest.mark.parametrize("name", ['a"b', "a; drop table x", "ünï cöde", "c0", "count(*)", "a'b", " padded "])
def test_hostile_names_are_names(name, tmp_path):
    pd.DataFrame({name: ["x", "y"], "arm": ["old", "new"]}).to_parquet(tmp_path / "rows.parquet")
    assert profile(tmp_path / "rows.parquet").get_column(name).levels == {"x": 1, "y": 1}


def test_a_server_and_a_file_without_rows_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="a plan is proposed from a file"):
        profile_table(DataSource(connection="URL", table="x"), lambda _: (None, []))
    (tmp_path / "rows.csv").write_text("arm,plan\n")
    with pytest.raises(DataError, match="has no rows"):
        profile(tmp_path / "rows.csv")


def test_a_column_of_two_values_is_binary_only_as_zero_and_one_or_true_and_false():
    def column(**changes) -> ColumnProfile:
        return ColumnProfile("y", n_present=4, n_numbers=4, is_whole=True, **changes)

    assert column(minimum=0.0, maximum=1.0).is_binary
    assert not column(minimum=1.0, maximum=2.0).is_binary
    assert not ColumnProfile("y", n_present=4, n_numbers=3, is_whole=True, minimum=0.0, maximum=1.0).is_binary
