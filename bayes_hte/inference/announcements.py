"""Sentences to a person who waits: what is about to happen, why, and for about how long."""

import math


def announce(sentence: str) -> None:
    """Print one sentence on standard error, as wide as the terminal; called only where progress is shown."""
    from rich.console import Console  # the library that draws PyMC's progress bar

    # Names of segments and models are text, whatever brackets they hold.
    Console(stderr=True).print(sentence, markup=False, highlight=False)


def describe_duration(seconds: float) -> str:
    """Describe roughly how long something takes.

    Examples
    --------
    >>> describe_duration(3.2), describe_duration(47), describe_duration(150), describe_duration(9000)
    ('a few seconds', 'about 50 seconds', 'about 3 minutes', 'about 2.5 hours')
    """
    if seconds < 10:
        return "a few seconds"
    # It is a guess within a factor of two: tens of seconds, whole minutes, half hours.
    if seconds < 95:
        return f"about {10 * math.ceil(seconds / 10 - 0.5)} seconds"
    if seconds < 5400:
        return f"about {math.floor(seconds / 60 + 0.5)} minutes"
    return f"about {math.floor(seconds / 1800 + 0.5) / 2:g} hours"
