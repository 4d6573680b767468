"""Answers on a scale: which answers there are, in which order, and the numbers 1, 2, … that stand for words.

The order is the data's own, where a column of categories has one, or stated as `levels`. Nothing guesses it: the order
of the alphabet would put "agree" below "disagree" and turn every effect round.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.reading.engines import fetch_rows_or_none
from bayes_hte.cells.reading.labels import format_label, format_labels
from bayes_hte.cells.reading.level_order import list_categories
from bayes_hte.cells.reading.text_numbers import NUMBERS_NEEDED
from bayes_hte.errors import ArgumentError, DataError

if TYPE_CHECKING:
    import narwhals.stable.v2 as nw

type AnswerLevels = Sequence[str] | Sequence[float]
"""All answers that could be given, the lowest first: words, or numbers in ascending order."""

MAX_SHOWN_ANSWERS = 5
"""Answers off the scale that a message shows."""
MAX_READ_ANSWERS = 1000
"""Rows that are read for such a message."""

WAY_TO_STATE_ORDER = 'for answers in words state their order, the lowest first, as levels=["low", "middle", "high"]'
"""What messages say of words whose order nobody stated."""


@dataclass(frozen=True, slots=True)
class AnswerScale:
    """The answers that could be given, in order: their numbers, and their words where they are no numbers."""

    numbers: tuple[float, ...]
    words: tuple[str, ...] = ()

    def convert_words(self, raw_values: Sequence[Any], role: str) -> npt.NDArray[np.float64]:
        """Convert words to their numbers, NaN where missing; raise DataError for a word that is off the scale."""
        number_of_word = dict(zip(self.words, self.numbers, strict=True))
        labels = format_labels(raw_values)
        strays = [label for label in labels if label is not None and label not in number_of_word]
        if strays:
            raise _make_stray_error(role, strays, self.words)
        return np.array([np.nan if label is None else number_of_word[label] for label in labels], dtype=np.float64)

    def refuse_strays(self, outcome_values: npt.NDArray[np.float64], subject: str) -> None:
        """Raise DataError for numbers that are off the scale; missing ones are none."""
        strays = np.setdiff1d(outcome_values[np.isfinite(outcome_values)], self.numbers)
        if strays.size:
            names = [f"{number:g}" for number in self.numbers]
            raise _make_stray_error(subject, [f"{value:g}" for value in strays], names)

    def name_answers(self, numbers: npt.NDArray[np.float64]) -> list[str]:
        """Name answers by their words, or by their numbers where these are all there is."""
        name_of_number = dict(zip(self.numbers, self.words or map("{:g}".format, self.numbers), strict=True))
        return [name_of_number[number] for number in numbers.tolist()]


def _make_stray_error(subject: str, strays: Sequence[str], known_answers: Sequence[str]) -> DataError:
    distinct_strays = list(dict.fromkeys(strays))
    shown = quote_names(distinct_strays[:MAX_SHOWN_ANSWERS]) + (
        ", …" if len(distinct_strays) > MAX_SHOWN_ANSWERS else ""
    )
    return DataError(
        f"{subject} holds answers that are not among its levels: {shown}; the levels are "
        f"{quote_names(known_answers)}: add what is missing, or correct the column"
    )


@contextmanager
def explain_order(column: str, *, role: str, takes_answers: bool = True) -> Iterator[None]:
    """Add to an error about words in a column, or in its role, how to state their order."""
    try:
        yield
    except DataError as error:
        is_about_words = NUMBERS_NEEDED.search(str(error)) is not None
        if (
            takes_answers
            and is_about_words
            and str(error).startswith((f"{role} ", f"the {role} {column!r}", f"the column {column!r}"))
        ):
            raise DataError(f"{error}; {WAY_TO_STATE_ORDER}") from error
        raise


def parse_levels(levels: AnswerLevels | None) -> AnswerScale | None:
    """Parse the levels that a caller states; None without any.

    Raises
    ------
    ArgumentError
        If there are fewer than two, one is repeated, or they are neither all words nor numbers in ascending order.

    Examples
    --------
    >>> parse_levels(["bad", "good"]).numbers, parse_levels([1, 3, 5]).words
    ((1.0, 2.0), ())
    """
    if levels is None:
        return None
    if isinstance(levels, str) or not hasattr(levels, "__iter__"):
        raise ArgumentError(f"levels is {describe_value(levels)}; give a list, as in ['low', 'middle', 'high']")
    answers: list[Any] = list(levels)
    if len(answers) < 2 or len(set(map(format_label, answers))) < len(answers):
        raise ArgumentError(f"levels must be two or more different answers, not {describe_value(levels)}")
    return _make_scale(answers)


def _make_scale(answers: Sequence[Any]) -> AnswerScale:
    """Make the scale of distinct answers; raise ArgumentError if numbers are not in order, or among words."""
    if all(isinstance(answer, str) for answer in answers):
        words = [label or "" for label in format_labels(answers)]
        return AnswerScale(tuple(float(i) for i in range(1, len(words) + 1)), tuple(words))
    numbers = [None if isinstance(answer, str) else to_float(answer) for answer in answers]
    finite = [number for number in numbers if number is not None and np.isfinite(number)]
    if len(finite) < len(answers) or any(np.diff(finite) <= 0):
        raise ArgumentError("levels must be all words, or all numbers in ascending order: the lowest answer first")
    return AnswerScale(tuple(finite))


def find_scale(frame: "nw.LazyFrame[Any]", column: str, stated_scale: AnswerScale | None) -> AnswerScale | None:
    """Find the scale of a column: the stated one, or that of its own ordered categories; None where it has none.

    Categories that are numbers are counted in themselves where they ascend; else they are words like others.
    """
    if stated_scale is not None:
        return stated_scale
    categories = list_categories(frame, column)
    if len(categories) < 2:
        return None
    try:
        return _make_scale(categories)
    except ArgumentError:  # 5 before 1, or numbers among words: an order of its own, so that they are words
        return _make_scale([label or "" for label in format_labels(categories)])


def number_answers(
    frame: "nw.LazyFrame[Any]", picked_name: str, scale: AnswerScale, *, column: str
) -> "nw.LazyFrame[Any]":
    """Put the numbers of the answers, float64, in the place of a column; missing answers stay missing.

    Raises
    ------
    DataError
        If an answer is not on the scale.
    """
    import narwhals.stable.v2 as nw

    answers: list[Any] = [*scale.words] or [*scale.numbers]
    text_or_number = nw.col(picked_name).cast(nw.String if scale.words else nw.Float64)
    # Engines write a missing value as the text None or nan: it is told from these before.
    known_frame = frame.filter(~nw.col(picked_name).is_null())
    stray_rows = fetch_rows_or_none(
        known_frame.select(answer=text_or_number).filter(~nw.col("answer").is_in(answers)).head(MAX_READ_ANSWERS)
    )
    if stray_rows:
        names = list(scale.words) or [f"{number:g}" for number in scale.numbers]
        strays = [format_label(answer) or "" for (answer,) in stray_rows]
        raise _make_stray_error(f"the outcome {column!r}", strays, names)
    # What is none of the others is the highest answer, for strays are refused above.
    numbered: nw.Expr = nw.lit(scale.numbers[-1])
    for answer, number in zip(answers[:-1], scale.numbers[:-1], strict=True):
        numbered = nw.when(text_or_number == answer).then(nw.lit(number)).otherwise(numbered)
    return frame.with_columns(nw.when(~nw.col(picked_name).is_null()).then(numbered).alias(picked_name))


def describe_scale(scale: AnswerScale | None, outcome_values: npt.NDArray[np.float64]) -> list[str]:
    """Describe in notes how words were numbered, and which answers nobody gave; `outcome_values` are those given."""
    if scale is None:
        return []
    numbered = ", ".join(f"{number:g} = {word}" for word, number in zip(scale.words, scale.numbers, strict=False))
    unchosen = scale.name_answers(np.setdiff1d(scale.numbers, outcome_values))
    noun, verb = ("answer", "stays") if len(unchosen) == 1 else ("answers", "stay")
    return [
        *([f"answers in words are numbered in their order: {numbered}"] if scale.words else []),
        *([f"nobody gave the {noun} {quote_names(unchosen)}, which {verb} on the scale"] if unchosen else []),
    ]
