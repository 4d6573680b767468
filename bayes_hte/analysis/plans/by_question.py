"""`ByQuestion`: values of the questions of a plan, looked up by metric and breakdown as people write them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bayes_hte._support.phrases import quote_names
from bayes_hte.spec.questions.list_questions import QuestionKey, title_question
from bayes_hte.spec.questions.planned_metric import name_breakdown
from bayes_hte.spec.questions.registration import RegistrationStatus


class ByQuestion[T](Mapping[QuestionKey, T]):
    """A mapping from (metric, breakdown) to what there is of that question.

    Keys are a metric's name and a tuple of dimensions, ``("bought", ("device", "customer"))``. To look up, a breakdown
    may also be written as a list, as its name ``"device × customer"``, or, of one dimension, as ``"device"``; the order
    of dimensions does not matter.

    Examples
    --------
    >>> table = ByQuestion({("bought", ("device",)): 1, ("bought", ("device", "plan")): 2})
    >>> table["bought", "device"], table["bought", ["plan", "device"]], table["bought", "device × plan"]
    (1, 2, 2)
    """

    __slots__ = ("_failed", "_values")

    def __init__(self, values: Mapping[QuestionKey, T], failed: Mapping[QuestionKey, str] | None = None) -> None:
        """Keep the values, and why others are not there."""
        self._values = dict(values)
        self._failed = dict(failed or {})

    def __getitem__(self, key: Any) -> T:
        """Look a question up.

        Raises
        ------
        KeyError
            If there is no such question, or it has no answer: the error says which there are, or why.
        """
        # A linear search: plans have dozens of questions, not thousands.
        if (found := _find_key(self._values, key)) is not None:
            return self._values[found]
        if (failed := _find_key(self._failed, key)) is not None:
            raise KeyError(f"{title_question(failed)} could not be fitted: {self._failed[failed]}")
        raise KeyError(f"no question {key!r}; there are {quote_names(list(map(title_question, self._values)))}")

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a value for a question."""
        return _find_key(self._values, key) is not None

    def __iter__(self) -> Iterator[QuestionKey]:
        """Iterate over the keys, in the order of the plan."""
        return iter(self._values)

    def __len__(self) -> int:
        """Count the values."""
        return len(self._values)

    def __repr__(self) -> str:
        """Name the questions and their values."""
        return f"{type(self).__name__}({', '.join(f'{title_question(key)}: {value}' for key, value in self.items())})"


class RegisteredQuestions(ByQuestion[RegistrationStatus]):
    """Of every question whether it was registered; true as a whole only if all were.

    Examples
    --------
    >>> registered = RegisteredQuestions({("bought", ("device",)): RegistrationStatus(False, ("no lock",))})
    >>> bool(registered), str(registered["bought", "device"])
    (False, 'exploratory')
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        """Tell whether every question was registered."""
        return all(self.values())

    def table(self) -> pd.DataFrame:
        """Tabulate the questions: metric, breakdown, registered, why not, changes of the plan since the lock."""
        rows = [
            (
                metric,
                name_breakdown(dimensions),
                status.registered,
                "; ".join(status.reasons),
                "; ".join(status.changes),
            )
            for (metric, dimensions), status in self.items()
        ]
        return pd.DataFrame(rows, columns=["metric", "breakdown", "registered", "why", "changes"])


def _find_key(values: Mapping[QuestionKey, Any], key: object) -> QuestionKey | None:
    """Find the key that is meant."""
    if not (isinstance(key, tuple | list) and len(key) == 2):
        return None
    # Two parts, whatever holds them: JSON has lists where Python has tuples.
    metric, breakdown = key
    for known_key in values:
        if known_key[0] == metric and _is_breakdown(breakdown, known_key[1]):
            return known_key
    return None


def _is_breakdown(stated: object, dimensions: tuple[str, ...]) -> bool:
    # The names are compared, never split: a dimension may have a cross in its own name.
    if isinstance(stated, str):
        return stated == name_breakdown(dimensions)
    return isinstance(stated, tuple | list) and sorted(map(str, stated)) == sorted(dimensions)
