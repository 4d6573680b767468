"""Clashes of names: of a model's own variables and dims with those that a dimension's name leads to.

A dimension `device` in ``effect.by`` makes a dim of that name and the variables effect_device, effect_device_between
and effect_device_offset. A Dataset cannot hold a variable and a dim of one name, and a model no two variables.
"""

from collections.abc import Iterable, Iterator, Sequence

from bayes_hte.errors import ModelError
from bayes_hte.model.parameters import Coefficient, collect_hyperparameters, list_coefficients, name_term_variable
from bayes_hte.model.pymc.linear_terms import BETWEEN_SCORE, SHARED_OFFSET
from bayes_hte.spec.model import EVERY_DIMENSION, Model, Pool

SAMPLER_DIMS = ("chain", "draw", "cell", "unconstrained_parameter")
"""Dims that samples and data have in any model; the last is what nutpie calls the axis of what it samples."""
_TERM_ENDINGS = ("", "_between", "_offset")
"""Endings of the variables that `bayes_hte.model.pymc.pooling` makes of a term; a test compares them with PyMC's."""
_PYMC_ENDINGS = ("__", "__data")
"""Endings of PyMC's names for transformed variables, and of ours for data."""


def check_colons(model: Model, dimension_names: Iterable[str]) -> None:
    """Raise if the model names a dimension that reads like a term of several.

    Raises
    ------
    ModelError
        The message names it.
    """
    terms = _list_terms(model)
    # Colons on both sides, so that "a:b" is found in the term "a:b:c" and not in "aa:b".
    for name in dimension_names:
        if ":" in name and any(term == EVERY_DIMENSION or f":{name}:" in f":{term}:" for term in terms):
            raise ModelError(
                f"this model cannot tell the dimension {name!r} from a term of several dimensions, which are divided "
                "by a colon; rename the column"
            )


def check_name_clashes(model: Model, own_dims: Iterable[str], observed_names: Sequence[str]) -> None:
    """Raise if a dimension that the model names leads to a name that something else has.

    Parameters
    ----------
    model : Model
        With every dimension in place of ``"*"``.
    own_dims : iterable of str
        Dims of the model whatever dimensions it names.
    observed_names : sequence of str
        Its observed variables.

    Raises
    ------
    ModelError
        The message names the dimension.
    """
    terms_by_variable = dict.fromkeys(_list_own_variables(model, observed_names), "")
    for term, name in _list_term_variables(model):
        if name in terms_by_variable or name.endswith(_PYMC_ENDINGS):
            raise _make_clash_error(term, name, terms_by_variable.get(name, ""))
        terms_by_variable[name] = term
    # A term is the name of a dim as well, and a Dataset holds no variable that has a dim's name.
    known_dims = {*own_dims, *SAMPLER_DIMS}
    for term in _list_terms(model):
        if term in known_dims or term in terms_by_variable:
            raise _make_clash_error(term, term, terms_by_variable.get(term, ""))


def _make_clash_error(term: str, clashing_name: str, other_term: str) -> ModelError:
    clash_reason = "the model has of its own"
    if other_term not in ("", term):
        clash_reason = f"the dimension {other_term!r} leads to as well"
    return ModelError(
        f"in this model the dimension {term!r} leads to the name {clashing_name!r}, which {clash_reason}; "
        "rename the column"
    )


def _list_terms(model: Model) -> list[str]:
    """List what divides segments: dimensions, terms of several, and strata."""
    terms = [term for coefficient in list_coefficients(model) for term in coefficient.pool_priors.by]
    return list(dict.fromkeys([*terms, *([model.effect.strata] if model.effect.strata else [])]))


def _list_term_variables(model: Model) -> Iterator[tuple[str, str]]:
    for coefficient in list_coefficients(model):
        for term in coefficient.pool_priors.by:
            for name_ending in _TERM_ENDINGS:
                yield term, f"{name_term_variable(coefficient.name, term)}{name_ending}"


def _list_own_variables(model: Model, observed_names: Sequence[str]) -> set[str]:
    # Without terms, so that only variables are left that no dimension's name leads to.
    bare_pools = {name: pool.model_copy(update={"by": ()}) for name, pool in _collect_pools(model).items()}
    coefficient_names = {
        f"{coefficient.name}{name_ending}"
        for coefficient in list_coefficients(model)
        for name_ending in _list_name_endings(coefficient)
    }
    sampled_names = {SHARED_OFFSET, BETWEEN_SCORE}
    bare_hyperparameters = collect_hyperparameters(model.model_copy(update=bare_pools))
    return {*bare_hyperparameters, *coefficient_names, *observed_names, *sampled_names}


def _collect_pools(model: Model) -> dict[str, Pool]:
    return {name: pool for name, pool in (("effect", model.effect), ("baseline", model.baseline)) if pool is not None}


def _list_name_endings(coefficient: Coefficient) -> list[str]:
    """List the endings of variables that `model.pymc.pooling` makes of a coefficient beside its hyperparameters."""
    if coefficient.pooling != "partial":
        return [""]
    effect_priors = coefficient.effect_priors
    return [
        "",
        "_offset",
        *(["_local", "_local_offset"] if effect_priors is not None and effect_priors.shape == "horseshoe" else []),
        *(["_correlation_half"] if effect_priors is not None and effect_priors.correlation is not None else []),
    ]
