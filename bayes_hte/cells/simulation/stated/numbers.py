"""Check single numbers of a design: counts of units or days, and standard deviations."""

import math

from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.errors import ArgumentError

LARGEST_UNIT_COUNT = 10**15
"""Sums of whole numbers stay exact in double precision up to nine times this."""


def check_count(value: object, argument_name: str, noun: str) -> int:
    """Check that a value is a whole number of 1 or more, and return it as an int.

    Raises
    ------
    ArgumentError
        If it is not; the message says of what it is the number.
    """
    number = to_float(value)
    # 1e8 is how people write a hundred million.
    if number is None or not math.isfinite(number) or number != math.floor(number) or number > LARGEST_UNIT_COUNT:
        raise ArgumentError(f"{argument_name} is {describe_value(value)}; give a whole number of {noun}")
    if number < 1:
        raise ArgumentError(f"{argument_name}={int(number)} leaves nothing to simulate; give 1 or more {noun}")
    return int(number)


def check_sd(stated_sd: object, value_name: str) -> float:
    """Check that a value is a standard deviation, and return it as a float.

    Raises
    ------
    ArgumentError
        If it is no finite number of 0 or more.
    """
    standard_deviation = to_float(stated_sd)
    if standard_deviation is None or not math.isfinite(standard_deviation) or standard_deviation < 0:
        raise ArgumentError(
            f"{value_name} is {describe_value(stated_sd)}; a standard deviation is a number of 0 or more"
        )
    return standard_deviation
