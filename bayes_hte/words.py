"""A model as mathematics, as sentences and as PyMC source: what is assumed, for people. Needs no PyMC."""

import math

from bayes_hte.priors import as_text, central_interval, upper_bound
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Model, Pool, Pooling

_LIKELIHOOD = {
    "binomial": ["events[s, a] ~ Binomial(n[s, a], p[s, a])", "logit p[s, a] = baseline[s] + effect[s, a]"],
    "normal": ["y[i] ~ Normal(baseline[s] + effect[s, a], sigma[a])   for unit i of segment s in arm a"],
    "mean": ["mean[s, a] ~ Normal(baseline[s] + effect[s, a], se[s, a])"],
    "estimate": ["estimate[s, a] ~ Normal(effect[s, a], se[s, a])"],
}
_OUTCOME = {
    "binomial": "Each unit did it or did not; effects are log odds ratios between an arm and the control.",
    "normal": "The outcome is continuous with one standard deviation per arm; effects are differences in means.",
    "mean": "Each cell's mean is close to normal (central limit theorem); effects are differences in means.",
    "estimate": "Each estimate is normal around its true effect with the standard error that was published.",
}
_POOLING = {
    "partial": "Effects are partially pooled: each segment's effect is drawn from a common distribution, so that "
    "small segments shrink toward the common effect, exactly as much as their own data warrant.",
    "none": "Effects are not pooled: every segment stands alone.",
    "complete": "Effects are completely pooled: all segments are assumed to have one and the same effect.",
}


def mathematics(model: Model) -> list[str]:
    """The model as lines of mathematics, likelihood first."""
    lines = list(_LIKELIHOOD[model.family])
    lines += _pool_lines("effect", ("[s, a]", "[a]"), model.pooling, model.effect)
    if model.baseline is not None:
        lines += _pool_lines("baseline", ("[s]", ""), model.baseline.pooling, model.baseline)
    if model.nuisance is not None:
        lines.append(f"sigma[a] ~ {as_text(model.nuisance.sigma)}")
    if model.units == "control_sd":
        lines.append("in SDs of the control's outcome; the baseline is measured from the control's overall mean")
    return lines


def _pool_lines(name: str, index: tuple[str, str], pooling: Pooling, pool: Pool) -> list[str]:
    each, shared = index
    if pooling == "none":
        return [f"{name}{each} ~ {as_text(pool.mean)}"]
    if pooling == "complete" or pool.between is None:
        return [f"{name}{each} = {name}_mean{shared}", f"{name}_mean{shared} ~ {as_text(pool.mean)}"]
    return [
        f"{name}{each} ~ Normal({name}_mean{shared}, {name}_between{shared})",
        f"{name}_mean{shared} ~ {as_text(pool.mean)}",
        f"{name}_between{shared} ~ {as_text(pool.between)}",
    ]


def sentences(model: Model) -> list[str]:
    """What the model assumes and what its priors imply, a sentence each."""
    found = [_OUTCOME[model.family], _POOLING[model.pooling]]
    low, high = central_interval(model.effect.mean)
    found.append(f"Common effect: 9 times in 10 between {_amount(model, low)} and {_amount(model, high)}.")
    if model.family == "binomial":
        found[-1] = f"Common effect: 9 times in 10 an odds ratio between {math.exp(low):.2g} and {math.exp(high):.2g}."
    if model.pooling == "partial" and model.effect.between is not None:
        found.append(_difference_sentence(model, model.effect.between))
    if model.baseline is not None:
        found.append(_baseline_sentence(model))
    if model.nuisance is not None:
        found.append(f"SD within an arm: 9 times in 10 below {_amount(model, upper_bound(model.nuisance.sigma))}.")
    return found


def _difference_sentence(model: Model, between: Distribution) -> str:
    """Two segments differ by a normal with SD tau √2; 9 times in 10 by less than 1.645 of those."""
    tau = upper_bound(between, 0.5)
    typical = 1.645 * math.sqrt(2) * tau
    size = f"a factor of {math.exp(typical):.2g} in odds" if model.family == "binomial" else _amount(model, typical)
    return (
        f"Between-segment SD: 9 times in 10 below {_amount(model, upper_bound(between))}; at its prior median, "
        f"9 times in 10 two segments' effects differ by less than {size}."
    )


def _baseline_sentence(model: Model) -> str:
    baseline = model.baseline
    if baseline is None:
        raise AssertionError("asked for the baseline of a model that has none")
    low, high = central_interval(baseline.mean)
    if model.family == "binomial":
        rates = [1 / (1 + math.exp(-value)) for value in (low, high)]
        where = f"9 times in 10 between {rates[0]:.2%} and {rates[1]:.2%}"
    else:
        where = f"9 times in 10 between {_amount(model, low)} and {_amount(model, high)}"
        where += " from the control's overall mean" if model.units == "control_sd" else ""
    if baseline.pooling == "none":
        return f"Control's mean in each segment, on its own: {where}."
    return f"Control's mean, pooled over segments as well: {where}."


def _amount(model: Model, value: float) -> str:
    unit = {"control_sd": " control SDs", "link": " log-odds" if model.family == "binomial" else ""}[model.units]
    return f"{value:.3g}{unit}"


def pymc_text(model: Model) -> str:
    """The model as PyMC source, given the arrays of the cell table; a test runs it against the package's own."""
    lines = ["with pm.Model(coords=coords) as model:"]
    lines += _pool_source("effect", model.effect, model.pooling, ["segment", "arm"])
    if model.baseline is not None:
        lines += ["", *_pool_source("baseline", model.baseline, model.baseline.pooling, ["segment"])]
    if model.nuisance is not None:
        lines += ["", f"    sigma = {_call('sigma', model.nuisance.sigma, ['variant'])}"]
    lines += ["", *_predictor_source(model), *_likelihood_source(model)]
    return "\n".join(lines)


def _call(name: str, prior: Distribution, dims: list[str]) -> str:
    parameters = [f"{key}={value:.6g}" for key, value in prior.model_dump(exclude={"dist"}, exclude_none=True).items()]
    if dims:
        quoted = ", ".join(f'"{dim}"' for dim in dims)
        parameters.append(f"dims=({quoted})" if len(dims) > 1 else f"dims={quoted}")
    return f'pm.{prior.dist}("{name}", {", ".join(parameters)})'


def _pool_source(name: str, pool: Pool, pooling: Pooling, dims: list[str]) -> list[str]:
    everywhere = ", ".join(f'"{dim}"' for dim in dims)
    everywhere = f"({everywhere})" if len(dims) > 1 else everywhere
    if pooling == "none":
        return [f"    {name} = {_call(name, pool.mean, dims)}"]
    lines = [f"    {name}_mean = {_call(f'{name}_mean', pool.mean, dims[1:])}"]
    if pooling == "complete" or pool.between is None:
        shape = ", ".join(['len(coords["segment"])', *("1" for _ in dims[1:])])
        total = f"pt.zeros(({shape})) + {name}_mean"
    else:
        lines.append(f"    {name}_between = {_call(f'{name}_between', pool.between, dims[1:])}")
        lines.append(f'    {name}_offset = pm.Normal("{name}_offset", dims={everywhere})')
        total = f"{name}_mean + {name}_between * {name}_offset"
    return [*lines, f'    {name} = pm.Deterministic("{name}", {total}, dims={everywhere})']


def _predictor_source(model: Model) -> list[str]:
    if model.baseline is None:
        return ["    eta = effect[segment_index, arm_index - 1]"]
    return [
        '    with_control = pt.concatenate([pt.zeros((len(coords["segment"]), 1)), effect], axis=1)',
        "    eta = baseline[segment_index] + with_control[segment_index, arm_index]",
    ]


def _likelihood_source(model: Model) -> list[str]:
    match model.family:
        case "binomial":
            return ['    pm.Binomial("events", n=n, logit_p=eta, observed=events, dims="cell")']
        case "normal":
            return [
                '    pm.Normal("mean", eta, sigma[arm_index] / np.sqrt(n), observed=mean, dims="cell")',
                "    # sums of squares and degrees of freedom within cells, added up for each arm",
                '    pm.Gamma("ss", alpha=freedom / 2, beta=0.5 / sigma**2, observed=ss)',
            ]
        case "mean":
            return ['    pm.Normal("mean", eta, se, observed=mean, dims="cell")']
        case "estimate":
            return ['    pm.Normal("estimate", eta, se, observed=estimate, dims="cell")']
