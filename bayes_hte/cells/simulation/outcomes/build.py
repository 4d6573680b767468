"""Build the law of an outcome from the name of its family and what is stated of its units."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypedDict

from bayes_hte._support.phrases import quote_names
from bayes_hte._support.validation import describe_value
from bayes_hte.cells.simulation.outcomes.binary import BinaryLaw
from bayes_hte.cells.simulation.outcomes.counts import PoissonLaw
from bayes_hte.cells.simulation.outcomes.gaussian import GaussianLaw
from bayes_hte.cells.simulation.outcomes.law import OutcomeLaw
from bayes_hte.cells.simulation.stated.segments import ArmDesign, PopulationDesign, StatedValues
from bayes_hte.cells.simulation.stated.values import spread_over_arms
from bayes_hte.errors import ArgumentError


class OutcomeKeywords(TypedDict, total=False):
    """What the units of a family have besides a mean; each may be a number, or numbers by segment, level or arm."""

    sd: Any
    exposure: Any


type LawMaker = Callable[[str, PopulationDesign, ArmDesign, Mapping[str, Any]], OutcomeLaw]


def _spread_positive(
    keyword: str, options: Mapping[str, Any], names: tuple[PopulationDesign, ArmDesign], default: float | None = None
) -> StatedValues:
    """Spread an option over segments and all arms, and check that it is above 0; (segment, arm)."""
    segments, arms = names
    stated = options.get(keyword, default)
    if stated is None:
        raise ArgumentError(f"{keyword} is missing: state it as a number above 0, or by segment, level or arm")
    values = spread_over_arms(stated, segments, arms.names, keyword)
    if not (values > 0).all():
        raise ArgumentError(f"{keyword} is {values.min():.4g} in some cell; it must be above 0")
    return values


def _make_binary(column: str, segments: PopulationDesign, arms: ArmDesign, options: Mapping[str, Any]) -> OutcomeLaw:
    return BinaryLaw(column)


def _make_gaussian(column: str, segments: PopulationDesign, arms: ArmDesign, options: Mapping[str, Any]) -> OutcomeLaw:
    return GaussianLaw(column, _spread_positive("sd", options, (segments, arms), default=1.0))


def _make_poisson(column: str, segments: PopulationDesign, arms: ArmDesign, options: Mapping[str, Any]) -> OutcomeLaw:
    return PoissonLaw(column, _spread_positive("exposure", options, (segments, arms), default=1.0))


LAW_MAKERS: Final[Mapping[str, tuple[LawMaker, tuple[str, ...]]]] = MappingProxyType(
    {
        "binomial": (_make_binary, ()),
        "normal": (_make_gaussian, ("sd",)),
        "mean": (_make_gaussian, ("sd",)),
        "poisson": (_make_poisson, ("exposure",)),
    }
)
"""How the law of each family is made, and the options that it takes."""


def build_law(
    family: object, column: str, names: tuple[PopulationDesign, ArmDesign], options: Mapping[str, Any]
) -> OutcomeLaw:
    """Build the law of a family's outcome.

    Raises
    ------
    ArgumentError
        If the family is not known, or does not have one of the options, or one is missing or impossible.
    """
    if not isinstance(family, str) or family not in LAW_MAKERS:
        raise ArgumentError(f"family is {describe_value(family)}; it must be one of {quote_names(list(LAW_MAKERS))}")
    make_law, known_options = LAW_MAKERS[family]
    if unknown_options := [name for name in options if name not in known_options]:
        known_phrase = f"its options are {quote_names(known_options)}" if known_options else "it has no such options"
        raise ArgumentError(f"outcomes of family {family!r} have no {quote_names(unknown_options)}: {known_phrase}")
    return make_law(column, *names, options)
