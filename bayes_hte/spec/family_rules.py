"""Rules of a model file that follow from its outcome family: which tables and keys it has.

A file is checked before any family is imported, for that takes xarray and SciPy: what its keys depend on stands here,
one line per family, and all else about a family in its own file, `bayes_hte/model/families/<name>.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticKnownError


@dataclass(frozen=True, slots=True)
class FamilyRules:
    """Tables and keys of one family's model files.

    Attributes
    ----------
    nuisance_name : str or None
        The prior that the table [nuisance] holds; None where there is no such table.
    has_baseline : bool
        Whether the control's mean is part of the model.
    has_baseline_mean : bool
        Whether baselines have a common mean; cutpoints play its role.
    has_amount : bool
        Whether the family has a second part, in the tables [amount.effect] and [amount.baseline].
    allows_control_sd : bool
        Whether priors may be in SDs of the control's outcome: unit-level outcomes on an identity link.
    """

    nuisance_name: str | None = None
    has_baseline: bool = True
    has_baseline_mean: bool = True
    has_amount: bool = False
    allows_control_sd: bool = False


FAMILY_RULES: Final[Mapping[str, FamilyRules]] = {
    "binomial": FamilyRules(),
    "normal": FamilyRules(nuisance_name="sigma", allows_control_sd=True),
    "mean": FamilyRules(allows_control_sd=True),
    "estimate": FamilyRules(has_baseline=False),
    "poisson": FamilyRules(),
    "negative_binomial": FamilyRules(nuisance_name="alpha"),
    "two_part": FamilyRules(nuisance_name="sigma", has_amount=True),
    "ordinal": FamilyRules(nuisance_name="cutpoints", has_baseline_mean=False),
    "piecewise_exponential": FamilyRules(nuisance_name="hazards"),
}


def _check_family_name(family_name: object) -> str:
    """Return the name of a known family, or raise the error that pydantic has for a `Literal`."""
    if isinstance(family_name, str) and family_name in FAMILY_RULES:
        return family_name
    *first_names, last_name = [repr(known_name) for known_name in FAMILY_RULES]
    raise PydanticKnownError("literal_error", {"expected": f"{', '.join(first_names)} or {last_name}"})


# Not a Literal, which would be a second list of the names.
FamilyName = Annotated[
    str, PlainValidator(_check_family_name), WithJsonSchema({"enum": list(FAMILY_RULES), "type": "string"})
]
"""The name of an outcome family, a key of `FAMILY_RULES`."""
