"""Find labels that differ only in case, spaces or Unicode form, and fold them into one spelling on request.

"control", "Control" and "control " are three arms to a program and one to a person. Nothing is folded unasked: "us"
and "US" may be a pronoun and a country, and whose labels they are knows it.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from bayes_hte._support.phrases import write_count

FOLD_HINT = "pass fold_labels=True (fold_labels = true under [data] in a plan)"


def simplify_label(label: str) -> str:
    r"""Simplify a label to what a person compares: one case, one Unicode form, single spaces within and none around.

    Examples
    --------
    >>> simplify_label(" New  York"), simplify_label("\u00c5") == simplify_label("a\u030a")
    ('new york', True)
    """
    # NFKC: a letter with its accent as one character, full-width letters and ligatures as plain ones
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).split())


def group_similar_labels(labels: Iterable[str]) -> list[list[str]]:
    """Group distinct labels that differ only in case, spaces or Unicode form; groups of two or more."""
    labels_by_simple: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        labels_by_simple.setdefault(simplify_label(label), []).append(label)
    return [group for group in labels_by_simple.values() if len(group) > 1]


def choose_spellings(label_counts: Mapping[str, int], preferred: str | None = None) -> dict[str, str]:
    """Choose one spelling for each group of similar labels: the preferred one, else the most frequent, then the first.

    Parameters
    ----------
    label_counts : mapping
        Label -> rows that have it.
    preferred : str, optional
        A spelling that a caller used, such as that of the control.

    Returns
    -------
    dict
        Label -> the spelling that takes its place, of labels that change.

    Examples
    --------
    >>> choose_spellings({"New": 3, "new": 40, "old": 9})
    {'New': 'new'}
    """
    spelling_of_label: dict[str, str] = {}
    candidates = [*label_counts, *([preferred] if preferred is not None else [])]
    for group in group_similar_labels(candidates):
        chosen = preferred if preferred in group else max(group, key=lambda label: label_counts.get(label, 0))
        spelling_of_label |= {label: str(chosen) for label in group if label != chosen}
    return spelling_of_label


def describe_folding(spelling_of_label: Mapping[str, str], label_counts: Mapping[str, int], column: str) -> list[str]:
    """Describe in a note which labels of a column were folded into which."""
    if not spelling_of_label:
        return []
    folded_texts = [
        f"{label!r} ({write_count(label_counts.get(label, 0), 'row', 'rows')}) to {spelling!r}"
        for label, spelling in spelling_of_label.items()
    ]
    return [f"labels of {column!r} are folded: {', '.join(folded_texts)}"]


def fold_column(
    labels: Sequence[str | None], row_counts: Sequence[int], column: str, preferred: str | None = None
) -> tuple[list[str | None], list[str]]:
    """Fold the labels of one column, missing ones (None) left as they are; return them and a note.

    Parameters
    ----------
    labels : sequence of str or None
    row_counts : sequence of int
        Rows that each entry stands for.
    column : str
    preferred : str, optional
        A spelling that is kept whatever its number of rows.
    """
    label_counts: dict[str, int] = {}
    for label, row_count in zip(labels, row_counts, strict=True):
        if label is not None:
            label_counts[label] = label_counts.get(label, 0) + int(row_count)
    spelling_of_label = choose_spellings(label_counts, preferred)
    folded_labels = [None if label is None else spelling_of_label.get(label, label) for label in labels]
    return folded_labels, describe_folding(spelling_of_label, label_counts, column)
