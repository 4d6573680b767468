"""Names that a model has twice: of its own variables and dims, and of those that a dimension's name leads to.

A dimension `device` in ``effect.by`` makes a dim of that name and the variables effect_device, effect_device_between
and effect_device_offset. A Dataset cannot hold a variable and a dim of one name, and a model no two variables.
"""

from collections.abc import Iterable, Iterator, Sequence

from bayes_hte.errors import ModelError
from bayes_hte.spec.model import EVERY_DIMENSION, Model, Pool
from bayes_hte.structure import Coefficient, coefficients, hyperparameters, term_name

SAMPLER_DIMS = ("chain", "draw", "cell", "unconstrained_parameter")
"""Dims that samples and data have in any model; the last is what nutpie calls the axis of what it samples."""
_OF_TERMS = ("", "_between", "_offset")
"""What `bayes_hte.pooling` makes of a term, besides what it makes of a coefficient: a test compares with PyMC."""
_PYMC = ("__", "__data")
"""How PyMC's names for transformed variables end, and ours for data."""


def check_colons(model: Model, dimensions: Iterable[str]) -> None:
    """Raise if the model names a dimension that reads like a term of several.

    Raises
    ------
    ModelError
        The message names it.
    """
    terms = _terms(model)
    for name in dimensions:
        if ":" in name and any(term == EVERY_DIMENSION or f":{name}:" in f":{term}:" for term in terms):
            raise ModelError(
                f"this model cannot tell the dimension {name!r} from a term of several dimensions, which are divided "
                "by a colon; rename the column"
            )


def check_names(model: Model, own_dims: Iterable[str], observed: Sequence[str]) -> None:
    """Raise if a dimension that the model names leads to a name that something else has.

    Parameters
    ----------
    model : Model
        With every dimension in place of ``"*"``.
    own_dims : iterable of str
        Dims of the model whatever dimensions it names.
    observed : sequence of str
        Its observed variables.

    Raises
    ------
    ModelError
        The message names the dimension.
    """
    variables = dict.fromkeys(_own_variables(model, observed), "")
    for term, name in _variables_of_terms(model):
        if name in variables or name.endswith(_PYMC):
            raise _taken(term, name, variables.get(name, ""))
        variables[name] = term
    dims = {*own_dims, *SAMPLER_DIMS}
    for term in _terms(model):
        if term in dims or term in variables:
            raise _taken(term, term, variables.get(term, ""))


def _taken(term: str, name: str, other: str) -> ModelError:
    whose = "the model has of its own" if other in ("", term) else f"the dimension {other!r} leads to as well"
    return ModelError(
        f"in this model the dimension {term!r} leads to the name {name!r}, which {whose}; rename the column"
    )


def _terms(model: Model) -> list[str]:
    """What divides segments: dimensions, and terms of several."""
    terms = [term for each in coefficients(model) for term in each.pool.by]
    return list(dict.fromkeys([*terms, *([model.effect.strata] if model.effect.strata else [])]))


def _variables_of_terms(model: Model) -> Iterator[tuple[str, str]]:
    for coefficient in coefficients(model):
        for term in coefficient.pool.by:
            for ending in _OF_TERMS:
                yield term, f"{term_name(coefficient.name, term)}{ending}"


def _own_variables(model: Model, observed: Sequence[str]) -> set[str]:
    bare = {name: pool.model_copy(update={"by": ()}) for name, pool in _pools(model).items()}
    made = {f"{each.name}{ending}" for each in coefficients(model) for ending in _endings(each)}
    return {*hyperparameters(model.model_copy(update=bare)), *made, *observed}


def _pools(model: Model) -> dict[str, Pool]:
    return {name: pool for name, pool in (("effect", model.effect), ("baseline", model.baseline)) if pool is not None}


def _endings(asked: Coefficient) -> list[str]:
    """What `bayes_hte.pooling` makes of a coefficient beside its hyperparameters."""
    if asked.pooling != "partial":
        return [""]
    effect = asked.effect
    return [
        "",
        "_offset",
        *([] if asked.pool.by else ["_mean_offset"]),
        *(["_local", "_local_offset"] if effect is not None and effect.shape == "horseshoe" else []),
        *(["_correlation_half"] if effect is not None and effect.correlation is not None else []),
    ]
