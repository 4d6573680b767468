"""unit= and cluster=: what is counted of units with several rows, and of those that are in several arms."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from bayes_hte.cells import from_rows
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table


def people(n: int = 60) -> dict[str, list[Any]]:
    """One row per user; a village per five users, in one arm each."""
    draw = np.random.default_rng(1)
    return {
        "user": [f"u{i}" for i in range(n)],
        "village": [i // 5 for i in range(n)],
        "arm": ["old" if (i // 5) % 2 else "new" for i in range(n)],
        "device": draw.choice(["mobile", "tv"], n).tolist(),
        "y": draw.normal(size=n).tolist(),
    }


def more(columns: dict[str, list[Any]], *rows: tuple[Any, Any, Any]) -> dict[str, list[Any]]:
    """With further rows: user, village and arm."""
    users, villages, arms = (list(column) for column in zip(*rows, strict=True))
    added = {"user": users, "village": villages, "arm": arms, "device": ["tv"] * len(rows), "y": [0.5] * len(rows)}
    return {name: column + added[name] for name, column in columns.items()}


def said(cells: xr.Dataset) -> list[str]:
    """The notes, and what makes the comparison of the arms doubtful."""
    return [*cell_table.list_notes(cells), *json.loads(cells.attrs.get("doubts", "[]"))]


def notes(data: Any, **asked: Any) -> list[str]:
    return said(read(data, **asked))


def read(data: Any, **asked: Any) -> xr.Dataset:
    keys: dict[str, Any] = {"outcome": "y", "arm": "arm", "control": "old", "segments": ["device"]}
    return from_rows(data, **{**keys, **asked})


def test_nothing_is_said_of_units_with_one_row(engine):
    assert notes(engine(people()), unit="user") == []


def test_units_with_several_rows_are_counted(engine):
    columns = more(people(), ("u0", 0, "new"), ("u0", 0, "new"), ("u5", 1, "old"))
    assert notes(engine(columns), unit="user") == [
        "2 of 60 units in 'user' have more than one row: standard errors take them for different units and are too "
        "small; add up their rows first, or pass cluster='user'"
    ]


def test_one_unit_is_spoken_of_in_the_singular(engine):
    found = notes(engine(more(people(), ("u0", 0, "new"))), unit="user")
    assert found[0].startswith("1 of 60 units in 'user' has more than one row")


def test_units_in_several_arms_are_counted(engine):
    columns = more(people(), ("u0", 0, "old"), ("u1", 0, "old"), ("u2", 0, "new"))
    crossed, repeated = notes(engine(columns), unit="user")
    assert crossed == (
        "2 of 60 units in 'user' are in more than one arm: they saw both, and effects are blurred; find out how that "
        "happened, and leave these units out"
    )
    assert repeated.startswith("3 of 60 units in 'user' have more than one row")


def test_rows_without_a_unit_or_an_arm_say_nothing(engine):
    columns = more(people(), (None, 0, "new"), (None, 0, "old"), ("u0", 0, None))
    assert notes(engine(columns), unit="user", drop_missing=True) == ["1 row has no arm in 'arm'; dropped"]


def test_numbers_are_names_of_units_too(engine):
    columns = people() | {"user": [i // 2 for i in range(60)]}
    assert notes(engine(columns), unit="user")[-1].startswith("30 of 30 units in 'user' have more than one row")


def test_rows_of_a_cluster_are_told_from_clusters(engine):
    cells = read(engine(people()), cluster="village")
    (note,) = said(cells)
    assert int(cells["n_rows"].sum()) == 60
    villages = pd.DataFrame(people()).groupby(["device", "arm"])["village"].nunique()
    for (device, arm), number in villages.items():
        assert int(cells["n"].sel(segment=device, arm=arm)) == number
    assert note.startswith("the units of analysis are 12 clusters in 'village'; 11 have rows in several levels of")


def test_clusters_in_several_arms_are_counted(engine):
    columns = more(people(), ("v0", 0, "old"), ("v1", 1, "new"), ("v2", 2, "new"))
    found = notes(engine(columns), cluster="village")
    assert found[-1] == (
        "2 of 12 clusters in 'village' have rows in more than one arm, so arms were not assigned by cluster: standard "
        "errors take the arms for independent, which overstates them where outcomes of a cluster are alike; check that "
        "this is the unit that was randomised"
    )
    assert sum("more than one arm" in note for note in found) == 1


def test_one_cluster_is_spoken_of_in_the_singular():
    found = notes(pd.DataFrame(more(people(), ("v0", 0, "old"))), cluster="village")
    assert "1 of 12 clusters in 'village' has rows in more than one arm" in found[-1]


def test_a_unit_that_is_the_cluster_is_not_said_to_be_repeated(engine):
    cells = read(engine(people()), cluster="village", unit="village")
    assert int(cells["n_rows"].sum()) == 60
    assert not any("more than one arm" in note for note in said(cells))
    assert not any("more than one row" in note for note in said(cells))


def test_users_in_clusters_are_checked_apart(engine):
    columns = more(people(), ("u0", 0, "new"))
    found = notes(engine(columns), cluster="village", unit="user")
    assert [note for note in found if "'user'" in note] == found[-1:]
    assert found[-1].startswith("1 of 60 units in 'user' has more than one row")


def test_a_dimension_may_be_asked_for_in_bins_beside_a_unit(engine):
    columns = people() | {"age": [20 + i % 40 for i in range(60)]}
    found = notes(engine(columns), unit="user", segments=["age"], bins={"age": [40]})
    assert found == ["age is cut at 40"]


@pytest.mark.parametrize("asked", [{"unit": "usr"}, {"cluster": "vilage"}])
def test_a_column_that_is_not_there_is_named(asked):
    (name,) = asked.values()
    with pytest.raises(DataError, match=f"lacks the column '{name}'; did you mean"):
        read(pd.DataFrame(people()), **asked)


def test_the_arm_is_no_unit():
    with pytest.raises(ArgumentError, match="'arm' is used twice"):
        read(pd.DataFrame(people()), cluster="arm")
