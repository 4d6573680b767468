"""Outcome families: one file holds everything about one kind of outcome. To add one, add a file and a line here."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from bayes_hte.model.families import (
    binomial,
    estimate,
    mean,
    negative_binomial,
    normal,
    ordinal,
    piecewise_exponential,
    poisson,
    two_part,
)
from bayes_hte.model.families.family import Family
from bayes_hte.spec.family_rules import FamilyName

FAMILIES: Final[Mapping[FamilyName, Family]] = MappingProxyType(
    {
        "binomial": binomial.FAMILY,
        "normal": normal.FAMILY,
        "mean": mean.FAMILY,
        "estimate": estimate.FAMILY,
        "poisson": poisson.FAMILY,
        "negative_binomial": negative_binomial.FAMILY,
        "two_part": two_part.FAMILY,
        "ordinal": ordinal.FAMILY,
        "piecewise_exponential": piecewise_exponential.FAMILY,
    }
)

__all__ = ["FAMILIES", "Family"]
