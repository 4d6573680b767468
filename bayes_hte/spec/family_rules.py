"""Rules of model and plan files that follow from an outcome family: which tables, keys and columns they have.

A file is checked before any family is imported, for that takes xarray and SciPy: what its keys depend on stands here,
a few lines per family, and all else about a family in its own file, `bayes_hte/model/families/<name>.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticKnownError

UnitVariance = Literal["per_arm", "per_cell"]
"""Whose variance over units a cell's standard error is computed from."""


@dataclass(frozen=True, slots=True)
class FamilyRules:
    """Tables and keys of one family's model files, and of the plans whose data it can take.

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
    rows_keys : str or None
        What a plan of rows says besides columns of outcome, arm and segments, in Markdown; None where rows of units
        are not what the family is of, or have a form of their own.
    columns_by_form : mapping
        For every other form of data the sets of columns that the family can be made of, as keys of a plan.
    allows_unit_variance : bool
        Whether standard errors come from variances over units, which an arm's cells may share.
    """

    rows_keys: str | None
    columns_by_form: Mapping[str, tuple[str, ...]]
    nuisance_name: str | None = None
    has_baseline: bool = True
    has_baseline_mean: bool = True
    has_amount: bool = False
    allows_control_sd: bool = False
    allows_unit_variance: bool = False


# Sets of columns that make the same statistics, whichever family reads them: counts, moments, units by value.
_COUNT_COLUMNS = ("n, events", "events, non_events")
_MOMENT_COLUMNS = ("n, mean, sd", "n, total, sum_squares")
_VALUE_COLUMNS = ("value, count",)
FAMILY_RULES: Final[Mapping[str, FamilyRules]] = {
    "binomial": FamilyRules("nothing; the outcome is 0 or 1, true or false", {"summary": _COUNT_COLUMNS}),
    "normal": FamilyRules("nothing", {"summary": _MOMENT_COLUMNS}, nuisance_name="sigma", allows_control_sd=True),
    "mean": FamilyRules(
        "nothing, or any of `denominator`, `weights`, `cluster`, `cuped`",
        {"summary": ("n, mean, se", *_MOMENT_COLUMNS)},
        allows_control_sd=True,
        allows_unit_variance=True,
    ),
    "estimate": FamilyRules(
        None,
        {
            "estimates": (
                "estimate, se",
                "estimate, covariance",
                "estimate, lower, upper",
                "ratio, lower, upper",
            )
        },
        has_baseline=False,
    ),
    "poisson": FamilyRules("`exposure`", {"summary": ("events, exposure", "n, events, exposure")}),
    "negative_binomial": FamilyRules('`metric = "histogram"`', {"levels": _VALUE_COLUMNS}, nuisance_name="alpha"),
    "two_part": FamilyRules(
        '`metric = "two_part"`',
        {"summary": ("n, mean, sd, positive, log_mean, log_sd",)},
        nuisance_name="sigma",
        has_amount=True,
    ),
    "ordinal": FamilyRules(
        '`metric = "histogram"`', {"levels": _VALUE_COLUMNS}, nuisance_name="cutpoints", has_baseline_mean=False
    ),
    "piecewise_exponential": FamilyRules(None, {"times": ("time, event",)}, nuisance_name="hazards"),
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
