"""A model as PyMC source, given the arrays of the cell table; a test runs it against the package's own model.

Variables of the source have the names of `model.parameters`; what is not sampled has short names (wide, tied).
"""

from bayes_hte.model.families import FAMILIES
from bayes_hte.model.families.family import NuisanceParameter
from bayes_hte.model.parameters import (
    Coefficient,
    HyperparameterSpec,
    collect_hyperparameters,
    list_coefficients,
    name_term_variable,
    with_example_dimensions,
)
from bayes_hte.spec.distributions import LKJ, Distribution
from bayes_hte.spec.model import Model


def write_pymc_source(model: Model) -> str:
    """Write the model as PyMC source."""
    shown_model = with_example_dimensions(model)
    source_lines = []
    if shown_model is not model:
        source_lines.append("# for example with the dimensions device and plan; index[dimension]: of every segment")
    model = shown_model
    source_lines.append("with pm.Model(coords=coords) as model:")
    coefficients = list_coefficients(model)
    if model.effect.correlation is not None:
        # The effect is tied to the baseline's offset, which must stand before it.
        coefficients = list(reversed(coefficients))
    for position, coefficient in enumerate(coefficients):
        source_lines += [""] * bool(position) + _write_coefficient(coefficient, model)
    family = FAMILIES[model.family]
    if family.nuisance is not None and model.nuisance is not None:
        source_lines += ["", *_write_nuisance(family.nuisance, model.nuisance.stated_priors[family.nuisance.name])]
    source_lines += ["", *_write_predictor(model), *family.pymc_lines]
    return "\n".join(source_lines)


MAX_LINE_WIDTH = 120
"""Longest line of the source, as in this package; longer ones are split where that is easy."""


def _write_prior_call(variable_name: str, prior: Distribution, dims: tuple[str, ...], *extra_arguments: str) -> str:
    parameter_texts = [
        f"{key}={value:.6g}" for key, value in prior.model_dump(exclude={"dist"}, exclude_none=True).items()
    ]
    return f'pm.{prior.dist}("{variable_name}", {", ".join([*parameter_texts, *extra_arguments])}{_write_dims(dims)})'


def _write_deterministic(variable_name: str, expression: str, dims: tuple[str, ...]) -> list[str]:
    """Write a named quantity; a long expression is given a line of its own."""
    source_line = f'    {variable_name} = pm.Deterministic("{variable_name}", {expression}{_write_dims(dims)})'
    if len(source_line) <= MAX_LINE_WIDTH:
        return [source_line]
    return [
        f"    value = {expression}",
        f'    {variable_name} = pm.Deterministic("{variable_name}", value{_write_dims(dims)})',
    ]


def _write_prior(variable_name: str, prior: Distribution, dims: tuple[str, ...]) -> list[str]:
    """Write a prior; a correlation is twice a Beta less one."""
    # LKJ(eta) of two quantities: (correlation + 1) / 2 ~ Beta(eta, eta)
    if not isinstance(prior, LKJ):
        return [f"    {variable_name} = {_write_prior_call(variable_name, prior, dims)}"]
    half_line = (
        f'    half = pm.Beta("{variable_name}_half", alpha={prior.eta:.6g}, beta={prior.eta:.6g}{_write_dims(dims)})'
    )
    return [half_line, *_write_deterministic(variable_name, "2 * half - 1", dims)]


def _write_dims(dims: tuple[str, ...]) -> str:
    if not dims:
        return ""
    quoted_dims = ", ".join(f'"{dim}"' for dim in dims)
    return f", dims=({quoted_dims})" if len(dims) > 1 else f", dims={quoted_dims}"


def _write_nuisance(nuisance: NuisanceParameter, prior: Distribution) -> list[str]:
    name, dims = nuisance.name, nuisance.dims
    if not nuisance.is_ordered:
        return _write_prior(name, prior, dims)
    return [
        f'    start = np.linspace(-1, 1, len(coords["{dims[0]}"]))',
        f"    {name} = {_write_prior_call(name, prior, dims, 'transform=ordered', 'initval=start')}",
    ]


def _write_coefficient(coefficient: Coefficient, model: Model) -> list[str]:
    name, pool_priors, dims = coefficient.name, coefficient.pool_priors, coefficient.dims
    hyperparameters = collect_hyperparameters(model)
    if coefficient.pooling == "none":
        return _write_prior(name, pool_priors.mean, dims)
    source_lines = []
    if f"{name}_mean" in hyperparameters:
        source_lines += _write_prior(f"{name}_mean", *_get_prior_and_dims(hyperparameters, f"{name}_mean"))
    if coefficient.pooling == "complete" or pool_priors.between is None:
        shape_text = ", ".join(['len(coords["segment"])', *("1" for _ in dims[1:])])
        return [*source_lines, *_write_deterministic(name, f"pt.zeros(({shape_text})) + {name}_mean", dims)]
    source_lines += _write_prior(f"{name}_between", *_get_prior_and_dims(hyperparameters, f"{name}_between"))
    structure_lines, centre_text = _write_centre(coefficient, hyperparameters)
    deviation_lines, deviation_text = _write_deviation(coefficient)
    return [
        *source_lines,
        *structure_lines,
        *deviation_lines,
        *_write_deterministic(name, f"{centre_text}{deviation_text}", dims),
    ]


def _get_prior_and_dims(
    hyperparameters: dict[str, HyperparameterSpec], variable_name: str
) -> tuple[Distribution, tuple[str, ...]]:
    hyperparameter = hyperparameters[variable_name]
    return hyperparameter.prior, hyperparameter.dims


def _write_centre(coefficient: Coefficient, hyperparameters: dict[str, HyperparameterSpec]) -> tuple[list[str], str]:
    """Write the centre of a segment's effect: the lines that lead there, and the term that it adds."""
    name, source_lines = coefficient.name, list[str]()
    centre_terms = [f"{name}_mean"] if f"{name}_mean" in hyperparameters else []
    if f"{name}_slope" in hyperparameters:
        source_lines += _write_prior(f"{name}_slope", *_get_prior_and_dims(hyperparameters, f"{name}_slope"))
        # covariates: (segment, covariate), in SDs over segments
        centre_terms.append(f"covariates @ {name}_slope")
    for term in coefficient.pool_priors.by:
        level_name, dims = name_term_variable(name, term), (term, *coefficient.dims[1:])
        source_lines += _write_prior(
            f"{level_name}_between", *_get_prior_and_dims(hyperparameters, f"{level_name}_between")
        )
        source_lines.append(f'    {level_name}_offset = pm.Normal("{level_name}_offset"{_write_dims(dims)})')
        source_lines += _write_deterministic(level_name, f"{level_name}_between * {level_name}_offset", dims)
        centre_terms.append(f'{level_name}[index["{term}"]]')
    if len(centre_terms) > 1:
        return [*source_lines, f"    centre = {' + '.join(centre_terms)}"], "centre + "
    return source_lines, f"{centre_terms[0]} + " if centre_terms else ""


def _write_deviation(coefficient: Coefficient) -> tuple[list[str], str]:
    """Write the deviation of a segment from its centre: the lines that lead there, and the product itself."""
    name, dims = coefficient.name, coefficient.dims
    effect_priors = coefficient.effect_priors
    between_text = f"{name}_between"
    if effect_priors is None:
        return [f'    {name}_offset = pm.Normal("{name}_offset"{_write_dims(dims)})'], f"{between_text} * {name}_offset"
    if effect_priors.strata:
        column_text = "[:, None]" if effect_priors.shared_between and len(dims) > 1 else ""
        between_text = f'{between_text}[index["{effect_priors.strata}"]]{column_text}'
    if effect_priors.shape == "student_t":
        source_lines = [
            f'    {name}_offset = pm.StudentT("{name}_offset", nu={effect_priors.tail_nu:g}{_write_dims(dims)})'
        ]
        return source_lines, f"{between_text} * {name}_offset"
    source_lines = [f'    {name}_offset = pm.Normal("{name}_offset"{_write_dims(dims)})']
    if effect_priors.shape == "horseshoe":
        # scale = slab w / √(slab² + w²),   w = between λ,   λ ~ HalfCauchy(1)
        source_lines.append(
            f'    wide = {between_text} * pm.HalfCauchy("{name}_local_offset", beta=1{_write_dims(dims)})'
        )
        source_lines += _write_deterministic(
            f"{name}_local", f"{effect_priors.slab:g} * wide / ({effect_priors.slab:g}**2 + wide**2) ** 0.5", dims
        )
        between_text = f"{name}_local"
    if effect_priors.correlation is not None:
        # offset = ρ baseline offset + √(1 − ρ²) own offset
        correlation_name = f"{name}_correlation"
        source_lines += _write_prior(correlation_name, effect_priors.correlation, dims[1:])
        baseline_offset = f"{name.replace('effect', 'baseline')}_offset[:, None]"
        source_lines.append(
            f"    tied = {correlation_name} * {baseline_offset} + (1 - {correlation_name}**2) ** 0.5 * {name}_offset"
        )
        return source_lines, f"{between_text} * tied"
    return source_lines, f"{between_text} * {name}_offset"


def _write_predictor(model: Model) -> list[str]:
    if model.baseline is None:
        return ["    eta = effect[segment_index, arm_index - 1]"]
    source_lines = []
    # The control's effect is a column of zeros before those of the other arms.
    for part in FAMILIES[model.family].listed_parts:
        part_prefix = part.prefix
        source_lines += [
            '    nothing = pt.zeros((len(coords["segment"]), 1))',
            f"    {part_prefix}with_control = pt.concatenate([nothing, {part_prefix}effect], axis=1)",
            f"    {part_prefix}eta = {part_prefix}baseline[segment_index] "
            f"+ {part_prefix}with_control[segment_index, arm_index]",
        ]
    return source_lines
