"""The design of a simulated experiment: who is in it, what is true of them, and how many are observed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bayes_hte._support.validation import describe_value, to_int
from bayes_hte.cells.simulation.outcomes.law import OutcomeLaw
from bayes_hte.cells.simulation.stated.numbers import check_count
from bayes_hte.cells.simulation.stated.segments import ArmDesign, PopulationDesign, StatedValues, check_shares
from bayes_hte.cells.simulation.stated.unit_structure import UnitStructure
from bayes_hte.errors import ArgumentError

MAX_DAY_COUNT = 100_000
"""Days of an experiment: 273 years."""


@dataclass(frozen=True, slots=True)
class SizeDesign:
    """How many units there are, and how they are spread over days, segments and arms.

    Attributes
    ----------
    unit_count : int
        Units of one experiment.
    day_shares : array
        Share of the units that arrive on each day, (day,).
    is_fixed : bool
        Whether every cell has its expected number of units, rounded, in place of a multinomial one.
    """

    unit_count: int
    day_shares: StatedValues
    is_fixed: bool


@dataclass(frozen=True, slots=True)
class Design:
    """A simulated experiment before its truth is drawn: who is in it, the law of the outcome, and sizes."""

    segments: PopulationDesign
    arms: ArmDesign
    law: OutcomeLaw
    sizes: SizeDesign
    structure: UnitStructure


def read_sizes(n: object, days: object, *, is_fixed: bool) -> SizeDesign:
    """Read the number of units, and the days on which they arrive: their number, or the share of each.

    Raises
    ------
    ArgumentError
        If there are no units or no days, or the shares of the days do not add up to 1.
    """
    unit_count = check_count(n, "n", "units")
    if days is None or (day_count := to_int(days)) is not None:
        day_count = 1 if days is None else check_count(days, "days", "days")
        if day_count > MAX_DAY_COUNT:
            raise ArgumentError(f"days is {day_count:,}, and an experiment has {MAX_DAY_COUNT:,} at most; give fewer")
        day_shares = np.full(day_count, 1 / day_count)
    elif isinstance(days, str) or not isinstance(days, Iterable):
        raise ArgumentError(f"days is {describe_value(days)}; give their number, or the share of units on each day")
    else:
        # Named, so that the message about a wrong share says of which day it is.
        named_shares = {f"day {i + 1}": share for i, share in enumerate(days)}
        if not named_shares:
            raise ArgumentError("days is empty, so nobody would arrive; give one share per day")
        day_shares = np.array(list(check_shares(named_shares, "the days").values()))
    return SizeDesign(unit_count, day_shares, is_fixed)
