"""Put rare levels together, where someone asked for it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bayes_hte.asked import described, whole
from bayes_hte.cells.grouping import Groups
from bayes_hte.cells.sources import counted, listed
from bayes_hte.errors import DataError
from bayes_hte.schema import OTHER_LEVEL

NAMED = 10
"""How many levels a note lists before it stops."""


def check_rare(rare: int | Mapping[str, int] | None, dims: Sequence[str]) -> dict[str, int]:
    """The least number of rows a level must have, by dimension.

    Raises
    ------
    DataError
        If a dimension is not there, or the number is not above 1.
    """
    if rare is None:
        return {}
    single = isinstance(rare, bool) or whole(rare) is not None
    if not single and not isinstance(rare, Mapping):
        raise DataError(
            f"rare is {described(rare)}; give a number of rows, or numbers by dimension as in {{{dims[0]!r}: 50}}"
        )
    found = {}
    for dim, given in (rare if isinstance(rare, Mapping) else dict.fromkeys(dims, rare)).items():
        if dim not in dims:
            raise DataError(f"rare names {dim!r}, which is not among the segments {listed(dims)}; add it there")
        least = whole(given)
        if least is None or least < 2:
            raise DataError(f"rare is {described(given)} for {dim!r}; give a number of rows, 2 or more")
        found[dim] = least
    return found


def merged(groups: Groups, dims: Sequence[str], rare: Mapping[str, int]) -> tuple[Groups, list[str]]:
    """Give levels with fewer rows than asked for the level (other), and say which; missing ones stay apart."""
    levels, notes = groups.levels.copy(), []
    kept = np.where(groups.arms == None, 0, groups.complete)  # noqa: E711, elementwise
    for dim, least in rare.items():
        column = levels[dims.index(dim)]
        sizes: Counter[str] = Counter()
        for level, rows in zip(column, kept, strict=True):
            if level is not None:
                sizes[level] += int(rows)
        few = {level: size for level, size in sizes.items() if size < least}
        if not few:
            continue
        column[np.array([level in few for level in column])] = OTHER_LEVEL
        ordered = sorted(few.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{level} ({size:,})" for level, size in ordered[:NAMED])
        more = f" and {len(few) - NAMED:,} more" if len(few) > NAMED else ""
        verb = counted(len(few), "level", "levels")
        notes.append(f"{verb} of {dim} with fewer than {least:,} rows form the level {OTHER_LEVEL}: {shown}{more}")
    return replace(groups, levels=levels), notes
