"""Write counts and names in sentences: of messages, notes, checks and reports."""

from collections.abc import Sequence

MAX_NAMES_SHOWN = 20
"""Names that a message lists before it stops: more would hide what the message says."""


def write_count(noun_count: int, singular_noun: str, plural_noun: str) -> str:
    """Write a count with its noun.

    Examples
    --------
    >>> write_count(1, "unit", "units"), write_count(1200, "unit", "units")
    ('1 unit', '1,200 units')
    """
    return f"{noun_count:,} {singular_noun if noun_count == 1 else plural_noun}"


def quote_names(names: Sequence[str]) -> str:
    """List names in quotes, up to `MAX_NAMES_SHOWN` of them.

    Examples
    --------
    >>> quote_names(["age", "arm"])
    "'age', 'arm'"
    """
    # A label may hold a comma: only quotes tell where it ends.
    quoted_text = ", ".join(repr(name) for name in names[:MAX_NAMES_SHOWN])
    return quoted_text + (f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else "")
