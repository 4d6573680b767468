"""Say what is weak about a cell table, in sentences a person can act on; the worst first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte import schema
from bayes_hte.cells.balance import attrition, imbalance
from bayes_hte.cells.oddities import outliers, reversals
from bayes_hte.cells.randomisation import doubts
from bayes_hte.cells.sources import counted
from bayes_hte.cells.wording import NAMED, label, quoted, some, where
from bayes_hte.schema import ARM, INTERVAL, SEGMENT, VALUE

FEW = 10
"""Below this an arm's mean says next to nothing: its standard error is a third of a standard deviation or more."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the checks found, as sentences.

    Attributes
    ----------
    unfair : tuple of str
        What may make every comparison of the arms wrong: their shares of the units, dimensions that the treatment may
        have changed, units that are repeated or in several arms, differed before it or were lost at different rates.
    others : tuple of str
        The notes of the reduction; then what turns round, is carried by one unit, missing, tiny or constant.
    """

    unfair: tuple[str, ...]
    others: tuple[str, ...]


def check(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> tuple[str, ...]:
    """Say what is weak about the cells before any model sees them; nothing here prevents an analysis.

    Parameters
    ----------
    cells
        A cell table, dims (segment, arm).
    shares
        The planned share of each arm, or numbers in proportion to them; in place of those that the cells state.

    Returns
    -------
    tuple of str
        What may make the comparison of the arms wrong; the notes of the reduction; then what turns round, hangs on one
        unit, is missing, tiny or constant. Empty if there is nothing to say.

    Raises
    ------
    DataError
        If this is no cell table, or the shares are not those of the arms.

    Notes
    -----
    These are tests, and speak where p < .001:

    - the arms' shares of the units against the planned ones, overall and, with Holm's correction, in each segment; see
      `sample_ratio`. Where no plan is stated the arms are held to equal shares, and segments to each other;
    - for each dimension, whether its levels are distributed alike over the arms: a chi-square test of independence,
      with Holm's correction for the number of dimensions. Levels of which an arm expects fewer than 5 units are put
      together. A dimension with a level that the treatment changes is uneven, though the randomisation was sound;
    - means of what was measured before treatment (``pre_mean``): Welch's test and an analysis of variance, both of
      which must agree, with Holm's correction for the number of covariates;
    - the rate of missing numbers (``n_missing``): a chi-square test. Rows are taken to be missing one by one, also
      where a unit has several.

    So a sound experiment, analysed with its planned shares, raises each of the five alarms with probability .001, and
    some alarm with probability .005 at most. In 20,000 simulated ones with eight segments in two dimensions, three
    covariates and 2 % missing numbers, 0.48 % raised one.

    The rest are facts, not tests: a cell of 10 units or more of which one makes up more than half of the sum of
    squares; an effect with one sign in every segment and the other one in their sum (said only where segments' shares
    differ between the arms by more than chance); empty cells, and cells of fewer than 10 units.

    References
    ----------
    Fabijan et al. 2019, Diagnosing sample ratio mismatch in online controlled experiments, KDD '19.
    Kohavi, Tang & Xu 2020, Trustworthy online controlled experiments, chapters 3 and 21.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> table = pd.DataFrame(
    ...     {
    ...         "device": ["mobile", "mobile", "tv"],
    ...         "arm": ["old", "new", "old"],
    ...         "n": [100, 100, 9],
    ...         "bought": [10, 12, 5],
    ...     }
    ... )
    >>> cells = from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="bought")
    >>> for sentence in check(cells):
    ...     print(sentence)
    1 segment lacks an arm: tv (no new); kept, but the effect there comes from the prior
    1 segment has fewer than 10 units in an arm: tv; what is said there is mostly borrowed from the other segments
    """
    found = findings(cells, shares)
    return (*found.unfair, *found.others)


def findings(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> Findings:
    """What `check` says, in two parts: what comes before any result, and what to know of the data."""
    schema.check(cells)
    there = schema.present(cells)
    unfair = [*doubts(cells, shares), *schema.doubts(cells), *attrition(cells), *imbalance(cells)]
    others = [
        *schema.notes(cells),
        *reversals(cells),
        *outliers(cells),
        *_missing_arms(there),
        *_nothing(there),
        *_tiny(cells),
        *_constant(cells),
        *_no_events(cells),
    ]
    return Findings(tuple(dict.fromkeys(unfair)), tuple(dict.fromkeys(others)))


def _missing_arms(there: xr.DataArray) -> list[str]:
    """Segments that have some arms, but not all."""
    lacking = there[ARM].values[~there.any(SEGMENT).values]
    sentences = [
        f"the arm {quoted(arm)} has no data in any segment; its effects come from the prior" for arm in lacking
    ]
    seen = there.sel({ARM: there.any(SEGMENT)})
    partial = seen.any(ARM) & ~seen.all(ARM)
    count = int(partial.sum())
    if count:
        verb = counted(count, "segment lacks", "segments lack")
        names = _named(partial, lambda i: f"{_label(seen, i)} ({_absent(seen, i)})")
        sentences.append(f"{verb} an arm: {names}; kept, but the effect there comes from the prior")
    return sentences


def _absent(seen: xr.DataArray, segment: int) -> str:
    arms = seen[ARM].values[~seen.transpose(SEGMENT, ARM).values[segment]]
    return some([f"no {label(arm)}" for arm in arms])


def _nothing(there: xr.DataArray) -> list[str]:
    empty = ~there.any(ARM)
    count = int(empty.sum())
    if not count:
        return []
    verb = counted(count, "segment has", "segments have")
    return [f"{verb} no data in any arm: {_named(empty)}; kept, but all said of it comes from the prior"]


def _tiny(cells: xr.Dataset) -> list[str]:
    if "n" not in cells:
        return []
    tiny = ((cells["n"] > 0) & (cells["n"] < FEW)).any(ARM)
    count = int(tiny.sum())
    if not count:
        return []
    verb = counted(count, "segment has", "segments have")
    return [
        f"{verb} fewer than {FEW} units in an arm: {_named(tiny)}; "
        "what is said there is mostly borrowed from the other segments"
    ]


def _constant(cells: xr.Dataset) -> list[str]:
    """Cells of two units or more whose outcomes are all equal; one unit cannot vary."""
    if "ss" in cells:
        constant = (cells["n"] > 1) & (cells["ss"] == 0)
    elif "histogram" in cells:
        constant = (cells["n"] > 1) & (cells["histogram"].max(VALUE) == cells["n"])
    elif "events" in cells and "exposure" not in cells:
        constant = (cells["n"] > 1) & ((cells["events"] == 0) | (cells["events"] == cells["n"]))
    else:
        return []
    count = int(constant.sum())
    if not count:
        return []
    verb = counted(count, "cell has", "cells have")
    return [f"{verb} no variation in the outcome{where(constant)}; raw estimates there look more certain than they are"]


def _no_events(cells: xr.Dataset) -> list[str]:
    """Cells with rates or survival in which nothing happened, though there was time for it."""
    if "exposure" in cells:
        idle = (cells["exposure"] > 0) & (cells["events"] == 0)
    elif "failures" in cells:
        idle = (cells["n"] > 0) & (cells["failures"].sum(INTERVAL) == 0)
    else:
        return []
    count = int(idle.sum())
    if not count:
        return []
    return [f"no events in {counted(count, 'cell', 'cells')}{where(idle)}; raw estimates there are 0 or unbounded"]


def _label(cells: xr.DataArray, segment: int) -> str:
    return label(cells[SEGMENT].values[segment])


def _named(segments: xr.DataArray, word: Callable[[int], str] | None = None) -> str:
    """The first few segments where a condition holds, and how many more there are."""
    found = np.flatnonzero(segments.values)
    shown = [_label(segments, int(i)) if word is None else word(int(i)) for i in found[:NAMED]]
    return some(shown + [""] * (len(found) - len(shown)))
