"""The planned shares of the arms: what the randomisation was meant to give."""

import json
import math
from collections.abc import Mapping

import xarray as xr

from bayes_hte import schema
from bayes_hte.asked import described, number
from bayes_hte.cells.labels import level_of
from bayes_hte.cells.sources import listed
from bayes_hte.errors import DataError
from bayes_hte.schema import ARM

SHARES = "shares"


def with_shares(cells: xr.Dataset, shares: Mapping[str, float]) -> xr.Dataset:
    """State which share of the units each arm was planned to get.

    Parameters
    ----------
    cells
        A cell table of units, dims (segment, arm).
    shares
        The share of each arm, or numbers in proportion to them: ``{"old": 1, "new": 1}`` are halves. An arm is named
        by its text, or by the number or boolean that the data held.

    Returns
    -------
    xarray.Dataset
        The cells, with the shares, which together are 1, in the attribute ``shares``.

    Raises
    ------
    DataError
        If an arm has no share, a share no arm, or one is not a finite number above 0; or if the cells hold published
        estimates, which have no units to count.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> table = pd.DataFrame({"device": "tv", "arm": ["old", "new"], "n": [90, 10], "bought": [9, 2]})
    >>> cells = from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="bought")
    >>> with_shares(cells, {"old": 9, "new": 1}).attrs["shares"]
    '{"old": 0.9, "new": 0.1}'
    """
    if schema.kind_of(schema.check(cells)) == "estimates":
        raise DataError("published estimates have no units of which an arm could have a share; leave the shares out")
    arms = [str(arm) for arm in cells[ARM].values]
    return cells.assign_attrs({SHARES: json.dumps(_checked(shares, arms), ensure_ascii=False)})


def planned(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> dict[str, float] | None:
    """The planned share of each arm, in the order of the arms; None if nobody said. `shares` are asked first.

    Raises
    ------
    DataError
        If the shares are not those of the arms.
    """
    arms = [str(arm) for arm in cells[ARM].values]
    if shares is not None:
        return _checked(shares, arms)
    if SHARES not in cells.attrs:
        return None
    try:
        stored = json.loads(cells.attrs[SHARES])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the attribute shares is no JSON: {cells.attrs[SHARES]!r}; set it with hte.cells.with_shares"
        ) from error
    if isinstance(stored, dict) and set(arms) <= set(stored):  # arms may have been taken away since
        stored = {arm: stored[arm] for arm in arms}
    return _checked(stored, arms)


def _checked(shares: object, arms: list[str]) -> dict[str, float]:
    if not isinstance(shares, Mapping):
        raise DataError(f"shares must name the share of each arm, as {dict.fromkeys(arms, 1)}; not {described(shares)}")
    named = {level_of(arm): share for arm, share in shares.items()}
    if len(named) < len(shares):
        raise DataError(f"shares name an arm twice: {listed([*shares])}; state one share of every arm")
    unknown = [arm for arm in named if arm not in arms]
    if unknown:
        raise DataError(f"shares name {listed(unknown)}, but no unit is in such an arm; arms are {listed(arms)}")
    lacking = [arm for arm in arms if arm not in named]
    if lacking:
        raise DataError(f"shares lack {listed(lacking)}; state the planned share of every arm: {listed(arms)}")
    sizes = {arm: _size(arm, named[arm]) for arm in arms}
    total = math.fsum(sizes.values())
    return {arm: size / total for arm, size in sizes.items()}


def _size(arm: str, share: object) -> float:
    size = number(share)
    if size is None or not math.isfinite(size) or not size > 0:
        raise DataError(f"the share of {arm!r} is {described(share)}; it must be a number greater than 0")
    return size
