"""What columns of summaries are commonly called. Words that also mean something else are left out."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

type NameWords = tuple[str, ...]

_COUNTED_NOUNS = MappingProxyType(
    {
        "n": "units users visitors subjects patients participants customers sessions observations",
        "events": "events conversions converted converters successes responders buyers purchasers deaths",
        "non_events": "nonevents nonconverters nonresponders failures",
        "positive": "positive positives payers",
    }
)
"""Things that are counted, and may have a number word before them."""
# Before a noun that is counted, as in number of users.
_NUMBER_WORDS = ("n", "num", "number of", "count of", "total")
_PLAIN_NAMES = MappingProxyType(
    {
        "n": "n|count|nobs|n obs|sample size|samplesize",
        "non_events": "non events|no events|non converters|non responders|not converted",
        "mean": "mean|avg|average|mean outcome",
        "sd": "sd|std|stdev|std dev|stddev|standard deviation",
        "se": "se|sei|sem|std err|std error|stderr|standard error",
        "total": "total|sum|sum y",
        "sum_squares": "sum squares|sum of squares|sum sq|sumsq|sum y2|squares",
        "exposure": "exposure|person time|person years|person days|patient years|patient days|time at risk",
        "log_mean": "log mean|mean log",
        "log_sd": "log sd|log std|sd log|std log",
        "value": "value|outcome value",
        "count": "frequency|freq",
        "estimate": "estimate|effect|effect size|yi|y|coef|coefficient|beta|ate|difference|diff|mean difference|smd|"
        "log or|logor|log odds ratio|log rr|logrr|log risk ratio|log irr|log hr",
    }
)
_ARM_NAMES = (
    "arm|variant|variation|treatment|treatment arm|treatment group|experiment arm|experiment group|test group|treated"
)
_PERHAPS_ARM_NAMES = "group|condition|assignment|bucket"
_DERIVED_NAMES = (
    "rate|cr|cvr|ctr|conversion|percent|percentage|pct|proportion|share|p|pval|pvalue|lift|uplift|z|t|lower|"
    "upper|ci|low|high|var|vi|variance|index|unnamed|column0|rowid"
)
"""Words of columns that may be computed from the numbers, or count rows."""

CONTROL_LABELS = frozenset({"control", "placebo"})
"""Labels that leave no doubt which arm the others are compared with."""
POOLED_LABELS = frozenset({"total", "all", "overall", "both", "pooled", "combined", "sum"})
"""Labels of what may be no arm, but all arms together."""

METAFOR_ROLES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ai": ("events", "1"), "bi": ("non_events", "1"), "n1i": ("n", "1"), "m1i": ("mean", "1"), "sd1i": ("sd", "1"),
        "ci": ("events", "2"), "di": ("non_events", "2"), "n2i": ("n", "2"), "m2i": ("mean", "2"), "sd2i": ("sd", "2"),
        "x1i": ("events", "1"), "t1i": ("exposure", "1"), "x2i": ("events", "2"), "t2i": ("exposure", "2"),
        "tpos": ("events", "treated"), "tneg": ("non_events", "treated"),
        "cpos": ("events", "control"), "cneg": ("non_events", "control"),
    }
)  # fmt: skip
"""Roles and arms of the R package metafor, whose groups are 1 and 2, and of its data set dat.bcg."""


def _build_roles() -> dict[NameWords, str]:
    """Build the roles of all names: plain ones, and nouns with and without a number word."""
    role_by_words = {tuple(word.split()): role for role, words in _PLAIN_NAMES.items() for word in words.split("|")}
    for role, nouns in _COUNTED_NOUNS.items():
        for noun in nouns.split():
            role_by_words[(noun,)] = role
            role_by_words |= {(*number.split(), noun): role for number in _NUMBER_WORDS}
    return role_by_words


ROLE_BY_WORDS = MappingProxyType(_build_roles())
"""Role of each name that leaves no doubt, by its words."""
# Longer prefixes of a name need not be looked up.
MAX_ROLE_WORDS = max(map(len, ROLE_BY_WORDS))


def _parse_names(joined_names: str) -> frozenset[NameWords]:
    """Parse names that are joined by bars."""
    return frozenset(tuple(word.split()) for word in joined_names.split("|"))


ARM_WORDS, PERHAPS_ARM_WORDS = _parse_names(_ARM_NAMES), _parse_names(_PERHAPS_ARM_NAMES)
DERIVED_WORDS = frozenset(_DERIVED_NAMES.split("|"))


def split_words(name: str) -> NameWords:
    """Split a column's name into its words, whatever is between them.

    Examples
    --------
    >>> split_words("Number of Users"), split_words("n_old"), split_words("mean.log")
    (('number', 'of', 'users'), ('n', 'old'), ('mean', 'log'))
    """
    return tuple(match.group().casefold() for match in _match_words(name))


def _match_words(name: str) -> list[re.Match[str]]:
    return list(re.finditer(r"[^\W_]+", name))


def split_role_and_arm(name: str) -> Iterator[tuple[str, str, str]]:
    """Split a column's name in every way into a role and an arm: role, arm for comparing, and arm as written.

    Examples
    --------
    >>> [list(split_role_and_arm(name)) for name in ("sample size (New design)", "old.events", "n2i")]
    [[('n', 'new design', 'New design')], [('events', 'old', 'old')], [('n', '2', '2')]]
    """
    if name in METAFOR_ROLES:
        role, arm = METAFOR_ROLES[name]
        yield role, arm, arm
    matches, words = _match_words(name), split_words(name)
    if words in ROLE_BY_WORDS:
        return
    # The longest role first, so that "n obs old" is of the arm old and not of the arm obs old.
    word_counts = range(min(MAX_ROLE_WORDS, len(words) - 1), 0, -1)
    leading = next((size for size in word_counts if words[:size] in ROLE_BY_WORDS), 0)
    trailing = next((size for size in word_counts if words[-size:] in ROLE_BY_WORDS), 0)
    if leading:
        yield (
            ROLE_BY_WORDS[words[:leading]],
            " ".join(words[leading:]),
            name[matches[leading].start() : matches[-1].end()],
        )
    if trailing:
        yield (
            ROLE_BY_WORDS[words[-trailing:]],
            " ".join(words[:-trailing]),
            name[: matches[-trailing - 1].end()].lstrip("_ "),
        )


def is_error_of(error: str, estimate: str) -> bool:
    """Tell whether a column is called after the standard error of another, such as se_logor of logor."""
    words, estimate_words = split_words(error), split_words(estimate)
    # The words before the estimate's name, if it ends with that, and those after it, if it begins with it.
    other_words = (
        words[: -len(estimate_words)] if words[-len(estimate_words) :] == estimate_words else (),
        words[len(estimate_words) :] if words[: len(estimate_words)] == estimate_words else (),
    )
    return bool(estimate_words) and any(ROLE_BY_WORDS.get(rest) == "se" for rest in other_words)


def is_derived(name: str) -> bool:
    """Tell whether a column is called after what is computed from numbers, or after nothing."""
    words = split_words(name)
    return not words or bool(DERIVED_WORDS & {words[0], words[-1]})
