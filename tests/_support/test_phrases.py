"""Counts and names in sentences: a noun agrees with its count, and no message lists names without end."""

from bayes_hte._support.phrases import MAX_NAMES_SHOWN, quote_names, write_count


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
