"""Build the law of an outcome from the name of its family and what is stated of its units."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypedDict

import numpy as np

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import describe_value, to_float
from bayes_hte.cells.simulation.outcomes.binary import BinaryLaw
from bayes_hte.cells.simulation.outcomes.counts import PoissonLaw
from bayes_hte.cells.simulation.outcomes.estimates import EstimateLaw
from bayes_hte.cells.simulation.outcomes.gaussian import GaussianLaw
from bayes_hte.cells.simulation.outcomes.histograms import NegativeBinomialLaw, OrdinalLaw
from bayes_hte.cells.simulation.outcomes.law import OutcomeLaw
from bayes_hte.cells.simulation.outcomes.survival import SurvivalLaw
from bayes_hte.cells.simulation.outcomes.two_part import TwoPartLaw
from bayes_hte.cells.simulation.stated.segments import ArmDesign, PopulationDesign, StatedValues, check_shares
from bayes_hte.cells.simulation.stated.values import spread_over_arms, spread_over_segments
from bayes_hte.errors import ArgumentError


class OutcomeKeywords(TypedDict, total=False):
    """What the units of a family have besides a mean; numbers may be stated by segment, level or arm."""

    sd: Any
    exposure: Any
    alpha: Any
    answers: Any
    chance: Any
    chance_part: float
    log_sd: Any
    breaks: Any
    relative_hazards: Any
    horizon: float
    follow_up: float
    se: Any


type DesignNames = tuple[PopulationDesign, ArmDesign]
type LawMaker = Callable[[str, DesignNames, Mapping[str, Any]], OutcomeLaw]


def _spread_positive(keyword: str, options: Mapping[str, Any], names: DesignNames, default: float) -> StatedValues:
    """Spread an option over segments and all arms, and check that it is above 0; (segment, arm)."""
    segments, arms = names
    # A spread may be that of the treated alone: an arm can change more than the mean.
    values = spread_over_arms(options.get(keyword, default), segments, arms.names, keyword)
    if not (values > 0).all():
        raise ArgumentError(f"{keyword} is {values.min():.4g} in some cell; it must be above 0")
    return values


def _read_positive(keyword: str, options: Mapping[str, Any], default: float) -> float:
    number = to_float(options.get(keyword, default))
    if number is None or not math.isfinite(number) or number <= 0:
        raise ArgumentError(f"{keyword} is {describe_value(options[keyword])}; give a number above 0")
    return number


def _make_binary(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    return BinaryLaw(column)


def _make_gaussian(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    return GaussianLaw(column, _spread_positive("sd", options, names, 1.0))


def _make_poisson(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    return PoissonLaw(column, _spread_positive("exposure", options, names, 1.0))


def _make_negative_binomial(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    return NegativeBinomialLaw(column, _spread_positive("alpha", options, names, 1.0))


def _make_estimates(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    return EstimateLaw(column, _spread_positive("se", options, names, 0.1))


def _make_ordinal(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    stated_answers = options.get("answers", (0.2, 0.2, 0.2, 0.2, 0.2))
    if isinstance(stated_answers, str | Mapping) or not isinstance(stated_answers, Iterable):
        raise ArgumentError(
            f"answers is {describe_value(stated_answers)}; give the share of every level, from 1 up, such as "
            "[0.1, 0.2, 0.4, 0.3]"
        )
    # Named, so that the message about a wrong share says of which level it is.
    named_shares = {f"level {i + 1}": share for i, share in enumerate(stated_answers)}
    if len(named_shares) < 2:
        raise ArgumentError("answers states fewer than two levels, so nothing could differ; give a share for each")
    cumulative = np.cumsum(list(check_shares(named_shares, "the answers").values()))[:-1]
    # P(y ≤ k) = logistic(cutpoint k), in the control of an average segment
    return OrdinalLaw(column, np.log(cumulative) - np.log1p(-cumulative))


def _make_two_part(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    chance = spread_over_segments(options.get("chance", 0.1), names[0], "chance")
    if not ((chance > 0) & (chance < 1)).all():
        raise ArgumentError(
            f"chance is {chance.min() if chance.min() <= 0 else chance.max():.4g}; the chance of an outcome above 0 "
            "lies between 0 and 1"
        )
    # Half and half unless stated: a change that sells to more people and more to each.
    chance_part = to_float(options.get("chance_part", 0.5))
    if chance_part is None or not math.isfinite(chance_part):
        raise ArgumentError(f"chance_part is {describe_value(options['chance_part'])}; give a number such as 0.5")
    return TwoPartLaw(column, chance[:, None], _spread_positive("log_sd", options, names, 1.0), chance_part)


def _make_survival(column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    horizon = _read_positive("horizon", options, 1.0)
    # Everybody is followed up to the horizon unless stated: nothing is then censored before it.
    follow_up = _read_positive("follow_up", options, horizon)
    if follow_up < horizon:
        raise ArgumentError(f"follow_up={follow_up:g} ends before the horizon, {horizon:g}; follow units up to it")
    edges = [0.0, *_read_numbers("breaks", options.get("breaks", ())), follow_up]
    if any(earlier >= later for earlier, later in itertools.pairwise(edges)):
        raise ArgumentError(
            f"breaks are {edges[1:-1]}; give times in ascending order, above 0 and below the follow-up, {follow_up:g}"
        )
    relative_hazards = _read_numbers("relative_hazards", options.get("relative_hazards", (1.0,) * (len(edges) - 1)))
    if len(relative_hazards) != len(edges) - 1 or min(relative_hazards) <= 0:
        raise ArgumentError(
            f"relative_hazards are {relative_hazards}; give a number above 0 for each of the {len(edges) - 1} intervals"
        )
    # Relative to the first interval, whose hazard is the baseline's.
    hazards = np.array(relative_hazards) / relative_hazards[0]
    return SurvivalLaw(column, np.array(edges), hazards, horizon)


def _read_numbers(keyword: str, stated: object) -> list[float]:
    numbers = [to_float(value) for value in stated] if isinstance(stated, Iterable) else [None]
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if len(known) < len(numbers):
        raise ArgumentError(f"{keyword} is {describe_value(stated)}; give a list of numbers")
    return known


LAW_MAKERS: Final[Mapping[str, tuple[LawMaker, tuple[str, ...]]]] = MappingProxyType(
    {
        "binomial": (_make_binary, ()),
        "normal": (_make_gaussian, ("sd",)),
        "mean": (_make_gaussian, ("sd",)),
        "estimate": (_make_estimates, ("se",)),
        "poisson": (_make_poisson, ("exposure",)),
        "negative_binomial": (_make_negative_binomial, ("alpha",)),
        "two_part": (_make_two_part, ("chance", "chance_part", "log_sd")),
        "ordinal": (_make_ordinal, ("answers",)),
        "piecewise_exponential": (_make_survival, ("breaks", "relative_hazards", "horizon", "follow_up")),
    }
)
"""How the law of each family is made, and the options that it takes."""


def build_law(family: object, column: str, names: DesignNames, options: Mapping[str, Any]) -> OutcomeLaw:
    """Build the law of a family's outcome.

    Raises
    ------
    ArgumentError
        If the family is not known, or does not have one of the options, or one is impossible.
    """
    if not isinstance(family, str) or family not in LAW_MAKERS:
        raise ArgumentError(f"family is {describe_value(family)}; it must be one of {quote_names(list(LAW_MAKERS))}")
    # An option of another family would be passed over in silence, and the data be other than their reader thinks.
    make_law, known_options = LAW_MAKERS[family]
    if unknown_options := [name for name in options if name not in known_options]:
        known_phrase = f"its options are {quote_names(known_options)}" if known_options else "leave it out"
        raise ArgumentError(f"outcomes of family {family!r} have no {quote_names(unknown_options)}; {known_phrase}")
    return make_law(column, names, options)
