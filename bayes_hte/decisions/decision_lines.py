"""Write decisions as lines for a terminal: who gets what, and why."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import pandas as pd

from bayes_hte._support.phrases import shorten_text

MAX_LINES: Final = 40
"""Decisions that are written one by one; of more, those that call for an action, as far as there is room."""


def list_decision_lines(decision_table: pd.DataFrame, label_columns: Sequence[str]) -> list[str]:
    """List a line for every decision: the segment, what is decided, and the reason.

    Parameters
    ----------
    decision_table : pandas.DataFrame
        With the columns decision and why; one row per segment and arm, or more that say the same.
    label_columns : sequence of str
        Columns that name a row, such as the dimensions and ``arm``.

    Returns
    -------
    list of str
        The first counts the decisions.

    Examples
    --------
    >>> rows = [("mobile", "new", "ship", "It helps."), ("tablet", "new", "undecided", "Too few units.")]
    >>> table = pd.DataFrame(rows, columns=["device", "arm", "decision", "why"])
    >>> for line in list_decision_lines(table, ["device", "arm"]):
    ...     print(line)
    decisions: 1 ship, 1 undecided
      mobile · new: ship. It helps.
      tablet · new: undecided. Too few units.
    """
    rows = decision_table[[*label_columns, "decision", "why"]].drop_duplicates()
    counts = Counter(rows["decision"])
    # In the order of the rule: what is acted on first, what is left for later last.
    order = ("ship", "stop", "equivalent", "undecided")
    lines = ["decisions: " + ", ".join(f"{counts[each]} {each}" for each in order if counts[each])]
    shown = rows if len(rows) <= MAX_LINES else rows[rows["decision"] != "undecided"].head(MAX_LINES)
    for *labels, decision, reason in shown.itertuples(index=False, name=None):
        label = " · ".join(shorten_text(str(each)) for each in labels)
        lines.append(f"  {label}: {decision}. {reason}")
    if len(shown) < len(rows):
        lines.append(f"  … and {len(rows) - len(shown):,} more: see effects.csv")
    return lines
