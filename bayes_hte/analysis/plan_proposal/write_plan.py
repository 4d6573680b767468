"""Write a proposal as the text of a plan: TOML whatever columns are called, with the reason of every guess."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from bayes_hte._support.toml_text import write_toml_key, write_toml_value
from bayes_hte.analysis.plan_proposal.propose_plan import PlanProposal, ProposedKey

MAX_LINE = 110
"""Characters of a line: an editor beside a browser shows as many."""
BLANK_MARK = "FILL IN"
"""How comments call what could not be found."""


def write_plan(proposal: PlanProposal, place: Mapping[str, Any], heading: Sequence[str]) -> str:
    """Write a plan.

    Parameters
    ----------
    proposal
        What is proposed.
    place
        Keys of [data] that say where the data are.
    heading
        Lines of comment at the top.
    """
    # Every value goes through TOML's own quoting, and every reason through make_comment: both may hold a file's words.
    lines = [f"# {make_comment(text)}" for text in heading]
    lines += ["", f"title = {write_toml_value(proposal.title)}"]
    lines += ['# question = "For whom does it work?"', *_write_keys(proposal.top), "", "[data]"]
    lines += [f"{write_toml_key(key)} = {write_toml_value(value)}" for key, value in place.items()]
    lines += [*_write_keys(proposal.data), "", "[report]", *_write_keys(proposal.report)]
    if not proposal.report:
        lines.append(
            "# higher_is_better = true            # or false: nothing is called help or harm while it is doubtful"
        )
    lines.append("# rope = 0.01                          # the smallest effect that matters")
    if proposal.remarks:
        lines += ["", "# The other columns:"]
        lines += [f"# - {make_comment(remark)}" for remark in proposal.remarks]
    return "\n".join(lines) + "\n"


def _write_keys(proposed_keys: Sequence[ProposedKey]) -> list[str]:
    """Write keys with their reasons, beside them where the line stays short, else above."""
    lines = []
    for proposed in proposed_keys:
        comment = f"# {BLANK_MARK if proposed.is_blank else 'guessed'}: {make_comment(proposed.reason)}"
        key_line = f"{proposed.key} = {write_toml_value(proposed.value)}"
        beside = f"{key_line}  {comment}"
        above = textwrap.wrap(comment, MAX_LINE, subsequent_indent="#   ", break_on_hyphens=False)
        lines += [beside] if len(beside) <= MAX_LINE else [*above, key_line]
    return lines


def make_comment(text: str) -> str:
    r"""Make a text fit for one line of comment: what is no printable character is shown as a mark.

    A line break in the name of a column would end the comment, and what follows be read as keys.

    Examples
    --------
    >>> make_comment("plan\n[data]")
    'plan�[data]'
    """
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in text)


def describe_proposal(proposal: PlanProposal) -> list[str]:
    """Describe a proposal for a terminal: a line for each guess, blanks first."""
    # What a person has to do stands first, where it is not overlooked.
    keys = [*proposal.blanks, *(key for key in (*proposal.top, *proposal.data, *proposal.report) if not key.is_blank)]
    width = max(len(proposed.key) for proposed in keys)
    return [
        f"{BLANK_MARK if proposed.is_blank else 'guessed':<8}{proposed.key:<{width + 2}}"
        + (proposed.reason if proposed.is_blank else f"{write_toml_value(proposed.value)}: {proposed.reason}")
        for proposed in keys
    ]
