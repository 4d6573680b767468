"""One small model of every family and of every structure."""

from typing import Any

from bayes_hte import Model

NORMAL: dict[str, Any] = {"dist": "Normal", "mu": 0.2, "sigma": 1.1}


HALF: dict[str, Any] = {"dist": "HalfNormal", "sigma": 0.6}


NUISANCE: dict[str, dict[str, Any]] = {
    "normal": {"sigma": HALF},
    "two_part": {"sigma": HALF},
    "negative_binomial": {"alpha": {"dist": "LogNormal", "mu": 0.3, "sigma": 1.0}},
    "ordinal": {"cutpoints": {"dist": "Normal", "sigma": 2.0}},
    "piecewise_exponential": {"hazards": {"dist": "StudentT", "nu": 4.0, "sigma": 1.0}},
}


FAMILIES = [
    "binomial",
    "normal",
    "mean",
    "estimate",
    "poisson",
    "negative_binomial",
    "ordinal",
    "piecewise_exponential",
]


STRUCTURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "covariate": {"covariates": ["age"], "slope": {"dist": "Normal", "sigma": 0.7}},
    "student": {"shape": "student_t", "nu": 5.0},
    "correlated": {"correlation": {"dist": "LKJ", "eta": 2.0}},
    "strata": {"strata": "plan"},
    "shared": {"shared_between": True},
    "all": {"covariates": ["age"], "slope": HALF | {"dist": "Normal"}, "strata": "device", "shared_between": True,
            "correlation": {"dist": "LKJ", "eta": 1.5}},
}  # fmt: skip


def stated(family: str, structure: dict[str, Any], **changes: Any) -> Model:
    """A model of a family with a structure of its effects."""
    content: dict[str, Any] = {"family": family, "effect": {"mean": NORMAL, "between": HALF, **structure}}
    if family != "estimate":
        content["baseline"] = {"mean": NORMAL, "between": HALF}
    if family == "ordinal":
        content["baseline"] = {"between": HALF}
    if family == "two_part":
        content["amount"] = {"effect": {"mean": NORMAL, "between": HALF}, "baseline": {"mean": NORMAL, "between": HALF}}
    if family in NUISANCE:
        content["nuisance"] = NUISANCE[family]
    return Model.model_validate(content | changes)
