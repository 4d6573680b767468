"""Counts, numbers and names in sentences: nouns agree with counts, and no rounding hides what a reader asks for."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayes_hte._support.phrases import (
    MAX_NAMES_SHOWN,
    format_bound,
    format_interval,
    format_share,
    quote_names,
    write_count,
)


def test_only_one_takes_the_singular() -> None:
    assert [write_count(n, "row has", "rows have") for n in (0, 1, 2, 12_345)] == [
        "0 rows have",
        "1 row has",
        "2 rows have",
        "12,345 rows have",
    ]


def test_names_beyond_the_limit_are_counted() -> None:
    names = [f"c{i}" for i in range(MAX_NAMES_SHOWN + 2)]
    assert quote_names(names[:-2]) == ", ".join(map(repr, names[:-2]))
    assert quote_names(names) == f"{quote_names(names[:-2])} and 2 more"


@given(bound=st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-8), places=st.integers(0, 4))
def test_the_end_of_an_interval_shows_on_which_side_of_zero_it_is(bound: float, places: int) -> None:
    shown = float(format_bound(bound, places).replace("−", "-").replace(",", ""))
    assert (shown > 0, shown < 0) == (bound > 0, bound < 0)


def test_an_interval_that_nearly_touches_zero_has_more_digits_only_there() -> None:
    assert format_interval(0.004, 1.23, 1) == "+0.004 to +1.2"
    assert format_interval(-0.004, 1.23, 1, sign=False) == "−0.004 to 1.2"


@pytest.mark.parametrize("share", [1e-9, 0.001, 0.004, 0.996, 0.999, 1 - 1e-9])
def test_a_share_is_all_or_nothing_only_if_it_is_exactly_that(share: float) -> None:
    assert not re.fullmatch(r"(0|100)(\.0)?\s%", format_share(share))
    assert [format_share(value) for value in (0.0, 1.0)] == ["0\N{NO-BREAK SPACE}%", "100\N{NO-BREAK SPACE}%"]
