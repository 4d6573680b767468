"""A model as PyMC source, given the arrays of the cell table; a test runs it against the package's own."""

from bayes_hte.spec.distributions import LKJ, Distribution
from bayes_hte.spec.model import Model
from bayes_hte.structure import (
    AMOUNT,
    CHANCE,
    NUISANCE_DIMS,
    Coefficient,
    Hyper,
    coefficients,
    hyperparameters,
    illustrated,
    term_name,
)


def pymc_text(model: Model) -> str:
    """The model as PyMC source."""
    shown = illustrated(model)
    lines = (
        []
        if shown is model
        else ["# for example with the dimensions device and plan; index[dimension]: of every segment"]
    )
    model = shown
    lines.append("with pm.Model(coords=coords) as model:")
    asked = coefficients(model)
    if model.effect.correlation is not None:
        asked = list(reversed(asked))  # the effect is tied to the baseline's offset
    for number, coefficient in enumerate(asked):
        lines += [""] * bool(number) + _coefficient(coefficient, model)
    if model.nuisance is not None:
        lines += [""]
        lines += [line for name, prior in model.nuisance.given.items() for line in _nuisance(name, prior)]
    lines += ["", *_predictor(model), *_LIKELIHOOD[model.family]]
    return "\n".join(lines)


WIDTH = 120
"""Longer lines are split where that is easy."""


def _call(name: str, prior: Distribution, dims: tuple[str, ...], *more: str) -> str:
    parameters = [f"{key}={value:.6g}" for key, value in prior.model_dump(exclude={"dist"}, exclude_none=True).items()]
    return f'pm.{prior.dist}("{name}", {", ".join([*parameters, *more])}{_dims(dims)})'


def _assigned(name: str, expression: str, dims: tuple[str, ...]) -> list[str]:
    """A named quantity; a long expression is given a line of its own."""
    line = f'    {name} = pm.Deterministic("{name}", {expression}{_dims(dims)})'
    if len(line) <= WIDTH:
        return [line]
    return [f"    value = {expression}", f'    {name} = pm.Deterministic("{name}", value{_dims(dims)})']


def _variable(name: str, prior: Distribution, dims: tuple[str, ...]) -> list[str]:
    """A prior; a correlation is twice a Beta less one."""
    if not isinstance(prior, LKJ):
        return [f"    {name} = {_call(name, prior, dims)}"]
    half = f'    half = pm.Beta("{name}_half", alpha={prior.eta:.6g}, beta={prior.eta:.6g}{_dims(dims)})'
    return [half, *_assigned(name, "2 * half - 1", dims)]


def _dims(dims: tuple[str, ...]) -> str:
    if not dims:
        return ""
    quoted = ", ".join(f'"{dim}"' for dim in dims)
    return f", dims=({quoted})" if len(dims) > 1 else f", dims={quoted}"


def _nuisance(name: str, prior: Distribution) -> list[str]:
    dims = NUISANCE_DIMS[name]
    if name != "cutpoints":
        return _variable(name, prior, dims)
    start = '    start = np.linspace(-1, 1, len(coords["cutpoint"]))'
    return [start, f"    {name} = {_call(name, prior, dims, 'transform=ordered', 'initval=start')}"]


def _coefficient(asked: Coefficient, model: Model) -> list[str]:
    name, pool, dims = asked.name, asked.pool, asked.dims
    hyper = hyperparameters(model)
    if asked.pooling == "none":
        return _variable(name, pool.mean, dims)
    lines = []
    if f"{name}_mean" in hyper:
        lines += _variable(f"{name}_mean", *_of(hyper, f"{name}_mean"))
    if asked.pooling == "complete" or pool.between is None:
        shape = ", ".join(['len(coords["segment"])', *("1" for _ in dims[1:])])
        return [*lines, *_assigned(name, f"pt.zeros(({shape})) + {name}_mean", dims)]
    lines += _variable(f"{name}_between", *_of(hyper, f"{name}_between"))
    structure, centre = _centre(asked, hyper)
    spread, total = _spread(asked)
    return [*lines, *structure, *spread, *_assigned(name, f"{centre}{total}", dims)]


def _of(hyper: dict[str, Hyper], name: str) -> tuple[Distribution, tuple[str, ...]]:
    found = hyper[name]
    return found.prior, found.dims


def _centre(asked: Coefficient, hyper: dict[str, Hyper]) -> tuple[list[str], str]:
    """What a segment's effect is drawn around, and the lines that lead there."""
    name, lines = asked.name, list[str]()
    parts = [f"{name}_mean"] if f"{name}_mean" in hyper else []
    if f"{name}_slope" in hyper:
        lines += _variable(f"{name}_slope", *_of(hyper, f"{name}_slope"))
        parts.append(f"covariates @ {name}_slope")  # (segment, covariate), in SDs over segments
    for term in asked.pool.by:
        level, dims = term_name(name, term), (term, *asked.dims[1:])
        lines += _variable(f"{level}_between", *_of(hyper, f"{level}_between"))
        lines.append(f'    {level}_offset = pm.Normal("{level}_offset"{_dims(dims)})')
        lines += _assigned(level, f"{level}_between * {level}_offset", dims)
        parts.append(f'{level}[index["{term}"]]')
    if len(parts) > 1:
        return [*lines, f"    centre = {' + '.join(parts)}"], "centre + "
    return lines, f"{parts[0]} + " if parts else ""


def _spread(asked: Coefficient) -> tuple[list[str], str]:
    """How far a segment is from its centre, and the lines that lead there."""
    name, dims = asked.name, asked.dims
    effect = asked.effect
    between = f"{name}_between"
    if effect is None:
        return [f'    {name}_offset = pm.Normal("{name}_offset"{_dims(dims)})'], f"{between} * {name}_offset"
    if effect.strata:
        column = "[:, None]" if effect.shared_between and len(dims) > 1 else ""
        between = f'{between}[index["{effect.strata}"]]{column}'
    if effect.shape == "student_t":
        lines = [f'    {name}_offset = pm.StudentT("{name}_offset", nu={effect.nu or 4:g}{_dims(dims)})']
        return lines, f"{between} * {name}_offset"
    lines = [f'    {name}_offset = pm.Normal("{name}_offset"{_dims(dims)})']
    if effect.shape == "horseshoe":
        lines.append(f'    wide = {between} * pm.HalfCauchy("{name}_local_offset", beta=1{_dims(dims)})')
        lines += _assigned(f"{name}_local", f"{effect.slab:g} * wide / ({effect.slab:g}**2 + wide**2) ** 0.5", dims)
        between = f"{name}_local"
    if effect.correlation is not None:
        rho = f"{name}_correlation"
        lines += _variable(rho, effect.correlation, dims[1:])
        base = f"{name.replace('effect', 'baseline')}_offset[:, None]"
        lines.append(f"    tied = {rho} * {base} + (1 - {rho}**2) ** 0.5 * {name}_offset")
        return lines, f"{between} * tied"
    return lines, f"{between} * {name}_offset"


def _predictor(model: Model) -> list[str]:
    if model.baseline is None:
        return ["    eta = effect[segment_index, arm_index - 1]"]
    lines = []
    for prefix in (CHANCE, AMOUNT) if model.amount is not None else ("",):
        lines += [
            '    nothing = pt.zeros((len(coords["segment"]), 1))',
            f"    {prefix}with_control = pt.concatenate([nothing, {prefix}effect], axis=1)",
            f"    {prefix}eta = {prefix}baseline[segment_index] + {prefix}with_control[segment_index, arm_index]",
        ]
    return lines


_LIKELIHOOD = {
    "binomial": ['    pm.Binomial("events", n=n, logit_p=eta, observed=events, dims="cell")'],
    "normal": [
        '    pm.Normal("mean", eta, sigma[arm_index] / np.sqrt(n), observed=mean, dims="cell")',
        "    # sums of squares and degrees of freedom within cells, added up for each arm",
        '    pm.Gamma("ss", alpha=freedom / 2, beta=0.5 / sigma**2, observed=ss)',
    ],
    "mean": ['    pm.Normal("mean", eta, se, observed=mean, dims="cell")'],
    "estimate": ['    pm.Normal("estimate", eta, se, observed=estimate, dims="cell")'],
    "poisson": ['    pm.Poisson("events", mu=exposure * pt.exp(eta), observed=events, dims="cell")'],
    "negative_binomial": [
        "    # histogram[cell, value]: how many units have each count",
        "    law = pm.NegativeBinomial.dist(mu=pt.exp(eta)[:, None], alpha=alpha[arm_index][:, None])",
        '    pm.Potential("histogram", (histogram * pm.logp(law, value[None, :])).sum())',
    ],
    "two_part": [
        '    pm.Binomial("positive", n=n, logit_p=chance_eta, observed=positive, dims="cell")',
        "    some = np.flatnonzero(positive > 0)",
        "    se = sigma[arm_index[some]] / np.sqrt(positive[some])",
        '    pm.Normal("log_mean", amount_eta[some], se, observed=log_mean[some])',
        "    # sums of squares and degrees of freedom within cells, added up for each arm",
        '    pm.Gamma("log_ss", alpha=freedom / 2, beta=0.5 / sigma**2, observed=log_ss)',
    ],
    "ordinal": [
        "    below = pm.math.sigmoid(cutpoints[None, :] - eta[:, None])",
        "    ends = pt.zeros((len(n), 1))",
        "    levels = pt.concatenate([below, ends + 1], axis=1) - pt.concatenate([ends, below], axis=1)",
        '    pm.Multinomial("histogram", n=n, p=levels, observed=histogram)',
    ],
    "piecewise_exponential": [
        "    cell, interval = np.nonzero(at_risk > 0)",
        "    log_hazard = eta[cell] + pt.concatenate([pt.zeros(1), hazards])[interval]",
        "    expected = at_risk[cell, interval] * pt.exp(log_hazard)",
        '    pm.Poisson("failures", mu=expected, observed=failures[cell, interval])',
    ],
}
