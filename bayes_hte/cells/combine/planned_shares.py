"""The planned shares of the arms: what the randomisation was meant to give."""

import json
import math
from collections.abc import Mapping

import xarray as xr

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.reading.labels import format_level
from bayes_hte.errors import ArgumentError, DataError
from bayes_hte.spec import cell_table
from bayes_hte.spec.cell_table import ARM

# Of the cell table: JSON, absent where nobody stated shares.
SHARES_ATTRIBUTE = "shares"


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
    ArgumentError
        If the shares are no mapping, name an arm twice, or one is not a finite number above 0.
    DataError
        If an arm has no share, or a share no arm; or if the cells hold published estimates, which have no units to
        count.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayes_hte.cells import from_summary
    >>> table = pd.DataFrame({"device": "tv", "arm": ["old", "new"], "n": [90, 10], "bought": [9, 2]})
    >>> cells = from_summary(table, arm="arm", control="old", segments=["device"], n="n", events="bought")
    >>> with_shares(cells, {"old": 9, "new": 1}).attrs["shares"]
    '{"old": 0.9, "new": 0.1}'
    """
    if cell_table.identify_kind(cell_table.check_cell_table(cells)) == "estimates":
        raise DataError("published estimates have no units of which an arm could have a share; leave the shares out")
    arm_names = [str(arm) for arm in cells[ARM].values]
    return cells.assign_attrs({SHARES_ATTRIBUTE: json.dumps(_normalise_shares(shares, arm_names), ensure_ascii=False)})


def read_planned_shares(cells: xr.Dataset, shares: Mapping[str, float] | None = None) -> dict[str, float] | None:
    """Read the planned share of each arm, in the order of the arms: `shares`, else those of the cells, else None.

    Raises
    ------
    ArgumentError
        If `shares` is no mapping from arms to finite numbers above 0.
    DataError
        If the shares are not those of the arms, or those that the table holds are broken.
    """
    arm_names = [str(arm) for arm in cells[ARM].values]
    if shares is not None:
        return _normalise_shares(shares, arm_names)
    if SHARES_ATTRIBUTE not in cells.attrs:
        return None
    try:
        stored_shares = json.loads(cells.attrs[SHARES_ATTRIBUTE])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the attribute shares is no JSON: {cells.attrs[SHARES_ATTRIBUTE]!r}; set it with hte.cells.with_shares"
        ) from error
    if isinstance(stored_shares, dict) and set(arm_names) <= set(stored_shares):  # arms may have been taken away since
        stored_shares = {arm: stored_shares[arm] for arm in arm_names}
    try:
        return _normalise_shares(stored_shares, arm_names)
    except ArgumentError as error:
        raise DataError(str(error)) from error  # the table's fault here, not the call's


def _normalise_shares(shares: object, arm_names: list[str]) -> dict[str, float]:
    """Check that every arm has a share, and divide the shares by their sum."""
    if not isinstance(shares, Mapping):
        raise ArgumentError(
            f"shares must name the share of each arm, as {dict.fromkeys(arm_names, 1)}; not {describe_value(shares)}"
        )
    # 1 and "1" name the same arm.
    named_shares = {format_level(arm): share for arm, share in shares.items()}
    if len(named_shares) < len(shares):
        raise ArgumentError(f"shares name an arm twice: {quote_names([*shares])}; state one share of every arm")
    unknown_arms = [arm for arm in named_shares if arm not in arm_names]
    if unknown_arms:
        raise DataError(
            f"shares name {quote_names(unknown_arms)}, but no unit is in such an arm; arms are {quote_names(arm_names)}"
        )
    missing_arms = [arm for arm in arm_names if arm not in named_shares]
    if missing_arms:
        raise DataError(
            f"shares lack {quote_names(missing_arms)}; state the planned share of every arm: {quote_names(arm_names)}"
        )
    arm_sizes = {arm: _check_share(arm, named_shares[arm]) for arm in arm_names}
    # Exactly rounded, so that the order of the arms does not matter.
    total_size = math.fsum(arm_sizes.values())
    return {arm: size / total_size for arm, size in arm_sizes.items()}


def _check_share(arm: str, raw_share: object) -> float:
    """Check that a share is a finite number above 0, and return it as float."""
    size = to_float(raw_share)
    if size is None or not math.isfinite(size) or not size > 0:
        raise ArgumentError(f"the share of {arm!r} is {describe_value(raw_share)}; it must be a number greater than 0")
    return size
