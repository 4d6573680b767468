"""What columns of summaries are commonly called. Words that also mean something else are left out."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

type Words = tuple[str, ...]

_COUNTED = MappingProxyType(
    {
        "n": "units users visitors subjects patients participants customers sessions observations",
        "events": "events conversions converted converters successes responders buyers purchasers deaths",
        "non_events": "nonevents nonconverters nonresponders failures",
        "positive": "positive positives payers",
    }
)
"""Things that are counted, and may have a number word before them."""
_NUMBER_WORDS = ("n", "num", "number of", "count of", "total")
_PLAIN = MappingProxyType(
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
_ARM = (
    "arm|variant|variation|treatment|treatment arm|treatment group|experiment arm|experiment group|test group|treated"
)
_PERHAPS_ARM = "group|condition|assignment|bucket"
_DERIVED = (
    "rate|cr|cvr|ctr|conversion|percent|percentage|pct|proportion|share|p|pval|pvalue|lift|uplift|z|t|lower|"
    "upper|ci|low|high|var|vi|variance|index|unnamed|column0|rowid"
)
"""Of what may be computed from the numbers, or counts rows."""

CONTROLS = frozenset({"control", "placebo"})
"""Labels that leave no doubt which arm the others are compared with."""
TOGETHER = frozenset({"total", "all", "overall", "both", "pooled", "combined", "sum"})
"""Labels of what may be no arm, but all arms together."""

METAFOR: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ai": ("events", "1"), "bi": ("non_events", "1"), "n1i": ("n", "1"), "m1i": ("mean", "1"), "sd1i": ("sd", "1"),
        "ci": ("events", "2"), "di": ("non_events", "2"), "n2i": ("n", "2"), "m2i": ("mean", "2"), "sd2i": ("sd", "2"),
        "x1i": ("events", "1"), "t1i": ("exposure", "1"), "x2i": ("events", "2"), "t2i": ("exposure", "2"),
        "tpos": ("events", "treated"), "tneg": ("non_events", "treated"),
        "cpos": ("events", "control"), "cneg": ("non_events", "control"),
    }
)  # fmt: skip
"""Roles and arms of the R package metafor, whose groups are 1 and 2, and of its data set dat.bcg."""


def _sets() -> dict[Words, str]:
    known = {tuple(word.split()): role for role, words in _PLAIN.items() for word in words.split("|")}
    for role, nouns in _COUNTED.items():
        for noun in nouns.split():
            known[(noun,)] = role
            known |= {(*number.split(), noun): role for number in _NUMBER_WORDS}
    return known


ROLE_OF = MappingProxyType(_sets())
"""The role of each name."""
LONGEST = max(map(len, ROLE_OF))


def _names(words: str) -> frozenset[Words]:
    return frozenset(tuple(word.split()) for word in words.split("|"))


ARMS, PERHAPS_ARMS = _names(_ARM), _names(_PERHAPS_ARM)
DERIVED = frozenset(_DERIVED.split("|"))


def words_of(name: str) -> Words:
    """The words of a column's name, whatever is between them.

    Examples
    --------
    >>> words_of("Number of Users"), words_of("n_old"), words_of("mean.log")
    (('number', 'of', 'users'), ('n', 'old'), ('mean', 'log'))
    """
    return tuple(match.group().casefold() for match in _found(name))


def _found(name: str) -> list[re.Match[str]]:
    return list(re.finditer(r"[^\W_]+", name))


def with_arms(name: str) -> Iterator[tuple[str, str, str]]:
    """What a column may mean that is called after a role and an arm: role, arm for comparing, and arm as written.

    Examples
    --------
    >>> list(with_arms("sample size (New design)")), list(with_arms("old.events")), list(with_arms("n2i"))
    ([('n', 'new design', 'New design')], [('events', 'old', 'old')], [('n', '2', '2')])
    """
    if name in METAFOR:
        role, arm = METAFOR[name]
        yield role, arm, arm
    found, words = _found(name), words_of(name)
    if words in ROLE_OF:
        return
    sizes = range(min(LONGEST, len(words) - 1), 0, -1)
    first = next((size for size in sizes if words[:size] in ROLE_OF), 0)
    last = next((size for size in sizes if words[-size:] in ROLE_OF), 0)
    if first:
        yield ROLE_OF[words[:first]], " ".join(words[first:]), name[found[first].start() : found[-1].end()]
    if last:
        yield ROLE_OF[words[-last:]], " ".join(words[:-last]), name[: found[-last - 1].end()].lstrip("_ ")


def is_of(error: str, estimate: str) -> bool:
    """Whether a column is called after the standard error of another, such as se_logor of logor."""
    words, of = words_of(error), words_of(estimate)
    rests = (words[: -len(of)] if words[-len(of) :] == of else (), words[len(of) :] if words[: len(of)] == of else ())
    return bool(of) and any(ROLE_OF.get(rest) == "se" for rest in rests)


def is_derived(name: str) -> bool:
    """Whether a column is called after what is computed from numbers, or after nothing."""
    words = words_of(name)
    return not words or bool(DERIVED & {words[0], words[-1]})
