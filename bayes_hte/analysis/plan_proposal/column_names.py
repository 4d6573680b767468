"""What names of columns, and labels of arms, say of what they hold: words only, in no order that data could change."""

import re
import unicodedata
from collections.abc import Iterable

from bayes_hte.cells.summaries.column_vocabulary import ARM_WORDS, PERHAPS_ARM_WORDS


def _parse_words(joined_words: str) -> frozenset[str]:
    return frozenset(joined_words.split())


_ARM_PARTS = _parse_words(
    """
    arm arms variant variation treatment treat treated exposed assignment bucket group cohort experiment testgroup
    condition randomised randomized
    """
)
# What is done to people in one arm: a column of few values named so says who got it.
_INTERVENTIONS = _parse_words(
    """
    incentive offer coupon discount voucher reminder nudge vaccine vaccinated drug dose placebo intervention campaign
    promo promotion banner feature redesign
    """
)
_STRONG_ARM_LABELS = _parse_words("control placebo treatment treated holdout ctrl untreated variant test")
_WEAK_ARM_LABELS = _parse_words("old new a b baseline current")
_CONTROL_LABELS = (
    "control", "controls", "ctrl", "placebo", "holdout", "untreated", "no treatment", "usual care", "standard care",
    "status quo", "baseline", "current", "default", "original", "old", "standard", "none", "off", "no", "false", "a",
    "0",
)  # fmt: skip
"""Labels of controls, the surest first."""
_CONTROL_BEGINNINGS = ("control", "kontroll", "contrôle", "témoin", "no ", "not ", "ohne ", "sans ", "sin ")
_ID_WORDS = _parse_words("id ids uuid guid key hash email mail phone cookie token session visitor")
_UNIT_WORDS = _parse_words("user customer client visitor patient subject person member account household order")
_EARLIER_WORDS = _parse_words("pre before prior previous past history historical baseline lag former age tenure")
_LATER_WORDS = _parse_words("post after since follow followup response result outcome endline")
# Numbers that are no outcome: weights, counters of rows, places on a map.
_SIZE_WORDS = _parse_words("weight weights exposure index row rownum unnamed latitude longitude lat lon zip postcode")
_OUTCOME_WORDS = _parse_words(
    """
    outcome y target label result results response converted conversions spend spent revenue amount value score visit
    visits clicks purchases orders sales total metric kpi
    """
)


def split_name(name: str) -> tuple[str, ...]:
    """Split a name into lower-case words without accents, at case changes, digits and what is no letter.

    Examples
    --------
    >>> split_name("isNewUser_id2")
    ('is', 'new', 'user', 'id')
    """
    plain = "".join(mark for mark in unicodedata.normalize("NFKD", name) if not unicodedata.combining(mark))
    return tuple(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain).casefold()))


def rate_arm_name(name: str) -> int:
    """Rate how much a name sounds like a column of arms: 3 surely, 2 likely, 0 not at all."""
    words = split_name(name)
    if words in ARM_WORDS:
        return 3
    if words in PERHAPS_ARM_WORDS or _ARM_PARTS & set(words):
        return 2
    return 1 if _INTERVENTIONS & set(words) else 0


def rate_arm_labels(labels: Iterable[str]) -> int:
    """Rate how much labels sound like arms: 3 where one is a control or a treatment, 1 for old and new, a and b."""
    simple = {label.strip().casefold() for label in labels}
    if simple & _STRONG_ARM_LABELS or any(label.startswith(_CONTROL_BEGINNINGS) for label in simple):
        return 3
    return 1 if len(simple & _WEAK_ARM_LABELS) == len(simple) else 0


def find_control(labels: Iterable[str]) -> str | None:
    """Find the label that names a control, the surest first; None where none does.

    Examples
    --------
    >>> find_control(["new", "old"]), find_control(["Mens E-Mail", "No E-Mail"]), find_control(["red", "blue"])
    ('old', 'No E-Mail', None)
    """
    # Sorted, so that the order of rows in a file decides nothing.
    label_by_simple = {label.strip().casefold(): label for label in sorted(labels)}
    for known in _CONTROL_LABELS:
        if known in label_by_simple:
            return label_by_simple[known]
    return next((label for simple, label in label_by_simple.items() if simple.startswith(_CONTROL_BEGINNINGS)), None)


def names_units(name: str) -> bool:
    """Tell whether a name is that of an identifier: user_id, customer, e-mail."""
    # A column called customer names customers; customer_type says of what kind they are.
    words = split_name(name)
    return bool(words) and (bool(_ID_WORDS & set(words)) or (len(words) == 1 and words[0].rstrip("s") in _UNIT_WORDS))


def sounds_earlier(name: str) -> bool:
    """Tell whether a name says that a value was known before treatment."""
    return bool(_EARLIER_WORDS & set(split_name(name)))


def sounds_later(name: str) -> bool:
    """Tell whether a name says that a value came about after treatment."""
    return bool(_LATER_WORDS & set(split_name(name)))


def is_size_name(name: str) -> bool:
    """Tell whether a name is that of a weight, an index or a place: numbers that are no outcome."""
    return bool(_SIZE_WORDS & set(split_name(name)))


def is_outcome_name(name: str) -> bool:
    """Tell whether a name is one that outcomes commonly have."""
    return bool(_OUTCOME_WORDS & set(split_name(name)))
