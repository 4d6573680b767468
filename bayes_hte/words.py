"""A model as mathematics and as sentences: what is assumed, for people. Needs no PyMC; its source is in `source`."""

import math

from bayes_hte.families import FAMILIES
from bayes_hte.pooling import DEFAULT_NU
from bayes_hte.priors import as_text, central_interval, upper_bound
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Effect, Model, Pool
from bayes_hte.structure import EXAMPLE_DIMENSIONS, Coefficient, coefficients, illustrated

_LIKELIHOOD = {
    "binomial": ["events[s, a] ~ Binomial(n[s, a], p[s, a])", "logit p[s, a] = baseline[s] + effect[s, a]"],
    "normal": ["y[i] ~ Normal(baseline[s] + effect[s, a], sigma[a])   for unit i of segment s in arm a"],
    "mean": ["mean[s, a] ~ Normal(baseline[s] + effect[s, a], se[s, a])"],
    "estimate": ["estimate[s, a] ~ Normal(effect[s, a], se[s, a])"],
    "poisson": [
        "events[s, a] ~ Poisson(exposure[s, a] * rate[s, a])",
        "log rate[s, a] = baseline[s] + effect[s, a]",
    ],
    "negative_binomial": [
        "y[i] ~ NegativeBinomial(m[s, a], alpha[a])   for unit i of segment s in arm a; Var y = m + m² / alpha",
        "log m[s, a] = baseline[s] + effect[s, a]",
    ],
    "two_part": [
        "positive[s, a] ~ Binomial(n[s, a], p[s, a])",
        "logit p[s, a] = chance_baseline[s] + chance_effect[s, a]",
        "log y[i] ~ Normal(amount_baseline[s] + amount_effect[s, a], sigma[a])   for units with y[i] > 0",
        "baseline, effect: of the log of the mean, p exp(amount + sigma² / 2)",
    ],
    "ordinal": ["P(y[i] ≤ level k) = logistic(cutpoints[k] - baseline[s] - effect[s, a])   for unit i of s in arm a"],
    "piecewise_exponential": [
        "failures[s, a, j] ~ Poisson(at_risk[s, a, j] * hazard[s, a, j])   in interval j",
        "log hazard[s, a, j] = baseline[s] + hazards[j] + effect[s, a]   hazards of the first interval 0",
    ],
}
_OUTCOME = {
    "binomial": "Each unit did it or did not; effects are log odds ratios between an arm and the control.",
    "normal": "The outcome is continuous with one standard deviation per arm; effects are differences in means.",
    "mean": "Each cell's mean is close to normal (central limit theorem); effects are differences in means.",
    "estimate": "Each estimate is normal around its true effect with the standard error that was published.",
    "poisson": "Events come one by one over an exposure; effects are log rate ratios between an arm and the control.",
    "negative_binomial": "Counts per unit vary more than chance alone would have them; effects are logs of ratios of "
    "means.",
    "two_part": "Most outcomes are 0 and the others log-normal; effects are logs of ratios of means, made of an effect "
    "on the chance of a positive outcome and one on its size.",
    "ordinal": "Answers are ordered levels; effects are log odds ratios for a higher answer, the same at every level.",
    "piecewise_exponential": "Hazards are constant within intervals and proportional between arms; effects are log "
    "hazard ratios.",
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
    shown = illustrated(model)
    if shown is not model:
        lines.insert(0, f"with {' and '.join(EXAMPLE_DIMENSIONS)}, for example, as the dimensions")
    for coefficient in coefficients(shown):
        lines += _pool_lines(coefficient)
    if model.nuisance is not None:
        index = {"sigma": "[a]", "alpha": "[a]", "cutpoints": "[k]", "hazards": "[j]"}
        lines += [f"{name}{index[name]} ~ {as_text(prior)}{', ascending' if name == 'cutpoints' else ''}"
                  for name, prior in model.nuisance.given.items()]  # fmt: skip
    if model.units == "control_sd":
        lines.append("in SDs of the control's outcome; the baseline is measured from the control's overall mean")
    return lines


def _pool_lines(asked: Coefficient) -> list[str]:
    name, pool = asked.name, asked.pool
    each, shared = ("[s, a]", "[a]") if len(asked.dims) > 1 else ("[s]", "")
    if asked.pooling == "none":
        return [f"{name}{each} ~ {as_text(pool.mean)}"]
    if asked.pooling == "complete" or pool.between is None:
        return [f"{name}{each} = {name}_mean{shared}", f"{name}_mean{shared} ~ {as_text(pool.mean)}"]
    effect = asked.effect or Effect(mean=pool.mean or pool.between, between=pool.between)
    between = f"{name}_between{_between_index(effect, shared)}"
    centre = f"{name}_mean{shared}" if pool.mean is not None else "0"
    lines = [f"{name}{each} ~ {_law(effect, _centre(asked, centre, shared), between)}"]
    if pool.mean is not None:
        lines.append(f"{name}_mean{shared} ~ {as_text(pool.mean)}")
    lines.append(f"{between} ~ {as_text(pool.between)}")
    return lines + _structure_lines(asked, effect, shared)


def _between_index(effect: Effect, shared: str) -> str:
    parts = [f"{effect.strata} of s"] * bool(effect.strata) + ["a"] * (bool(shared) and not effect.shared_between)
    return f"[{', '.join(parts)}]" if parts else ""


def _centre(asked: Coefficient, centre: str, shared: str) -> str:
    inner = ", a" if shared else ""
    terms = [f"{asked.name}_{term.replace(':', '_')}[{term} of s{inner}]" for term in asked.pool.by]
    slopes = [
        f"{asked.name}_slope[{name}{inner}] * {name}[s]" for name in (asked.effect.covariates if asked.effect else ())
    ]
    return " + ".join([centre, *terms, *slopes])


def _law(effect: Effect, centre: str, between: str) -> str:
    match effect.shape:
        case "student_t":
            return f"StudentT({effect.nu or DEFAULT_NU:g}, {centre}, {between})"
        case "horseshoe":
            return f"Normal({centre}, local[s, a])"
    return f"Normal({centre}, {between})"


def _structure_lines(asked: Coefficient, effect: Effect, shared: str) -> list[str]:
    name, pool, lines = asked.name, asked.pool, []
    for term in pool.by:
        variable, inner = f"{name}_{term.replace(':', '_')}", ", a" if shared else ""
        scale = f"{variable}_between{'' if effect.shared_between else shared}"
        prior = pool.by_between or pool.between
        lines += [f"{variable}[l{inner}] ~ Normal(0, {scale})", f"{scale} ~ {as_text(prior)}" if prior else ""]
    if effect.slope is not None:
        lines.append(f"{name}_slope ~ {as_text(effect.slope)}   per SD of a covariate over segments, centred")
    if effect.shape == "horseshoe":
        lines.append(f"local[s, a] = {effect.slab:g} w / sqrt({effect.slab:g}² + w²),   w = {name}_between λ[s, a]")
        lines.append("λ[s, a] ~ HalfCauchy(1)")
    if effect.correlation is not None:
        lines.append(
            f"correlation of baseline[s] and effect[s, a]: {name}_correlation[a] ~ {as_text(effect.correlation)}"
        )
    return lines


def sentences(model: Model) -> list[str]:
    """What the model assumes and what its priors imply, a sentence each."""
    found = [_OUTCOME[model.family], _POOLING[model.pooling], *_structure(model.effect)]
    part = " of the chance of a positive outcome" if model.amount is not None else ""
    found += _coefficient_sentences(model, model.effect, part)
    if model.amount is not None:
        found += _coefficient_sentences(model, model.amount.effect, " of the size of positive outcomes", ratio="ratio")
    if model.baseline is not None:
        found.append(_baseline_sentence(model))
    return found + _nuisance_sentences(model)


def _structure(effect: Effect) -> list[str]:
    found = []
    if effect.by:
        names = "every dimension" if "*" in effect.by else ", ".join(effect.by)
        found.append(f"Levels of {names} have effects of their own, which add up; what they leave is the segment's.")
    if effect.covariates:
        found.append(f"A segment's effect may depend on its {', '.join(effect.covariates)}, in a straight line.")
    if effect.shape == "student_t":
        found.append("A few segments may lie far out: the common distribution has heavy tails (Student's t).")
    if effect.shape == "horseshoe":
        found.append("Most segments have the common effect and a few stand out (regularised horseshoe).")
    if effect.correlation is not None:
        found.append(
            "Effects may be larger, or smaller, where the control does better (correlation with the baseline)."
        )
    if effect.strata:
        found.append(f"How much segments differ may differ between the levels of {effect.strata}.")
    if effect.shared_between:
        found.append("Segments differ equally much under every arm.")
    return found


def _coefficient_sentences(model: Model, pool: Pool, part: str, ratio: str | None = None) -> list[str]:
    ratio = ratio or ("odds ratio" if model.amount is not None else FAMILIES[model.family].ratio)
    low, high = central_interval(pool.mean)
    where = f"{_amount(model, low)} and {_amount(model, high)}"
    if ratio is not None:
        article = "an" if ratio[0] in "aeiou" else "a"
        where = f"{article} {ratio} between {math.exp(low):.2g} and {math.exp(high):.2g}"
    else:
        where = f"between {where}"
    whose = "Each segment's effect" if model.pooling == "none" else "Common effect"
    found = [f"{whose}{part}: 9 times in 10 {where}."]
    if model.pooling == "partial" and pool.between is not None:
        found.append(_difference_sentence(model, pool, pool.between, part, ratio))
    return found


def _difference_sentence(model: Model, pool: Pool, between: Distribution, part: str, ratio: str | None) -> str:
    """What the prior of the between-segment SD, at its median, says of segments; 1.645 SDs hold 9 of 10."""
    effect = pool if isinstance(pool, Effect) else Effect(mean=pool.mean or between, between=between)
    tau, bound = upper_bound(between, 0.5), _amount(model, upper_bound(between), ratio)
    alike = " with the same covariates" if effect.covariates else ""
    if effect.shape == "horseshoe":
        return (
            f"Scale of the differences between most segments{part}: 9 times in 10 below {bound}; the few that stand "
            f"out may differ by an SD of up to {_amount(model, effect.slab or 0.0, ratio)}."
        )
    beyond = ", beyond what their levels say" if pool.by else ""
    first = f"Between-segment SD{part}{beyond}: 9 times in 10 below {bound}"
    if effect.shape == "student_t":
        from scipy import special

        reach = _size(model, float(special.stdtrit(effect.nu or DEFAULT_NU, 0.95)) * tau, ratio)
        centre = "what its levels say" if pool.by else f"that of segments{alike}" if alike else "the common effect"
        return f"{first}; at its prior median, 9 times in 10 a segment's effect is within {reach} of {centre}."
    if pool.by:
        levels = pool.by_between or between
        typical = _size(model, 1.645 * math.sqrt(2) * math.hypot(tau, upper_bound(levels, 0.5)), ratio)
        return (
            f"{first}; between the levels of a dimension: 9 times in 10 below "
            f"{_amount(model, upper_bound(levels), ratio)}; at their prior medians, 9 times in 10 two "
            f"segments{alike} that differ in one dimension have effects that differ by less than {typical}."
        )
    typical = _size(model, 1.645 * math.sqrt(2) * tau, ratio)
    two = f"the effects of two segments{alike}" if alike else "two segments' effects"
    return f"{first}; at its prior median, 9 times in 10 {two} differ by less than {typical}."


def _size(model: Model, difference: float, ratio: str | None) -> str:
    """How large a difference on the link scale is, in words."""
    if not ratio:
        return _amount(model, difference)
    return f"a factor of {math.exp(difference):.2g} in {'odds' if ratio == 'odds ratio' else f'the {ratio}'}"


def _baseline_sentence(model: Model) -> str:
    baseline = model.baseline
    if baseline is None:
        raise AssertionError("asked for the baseline of a model that has none")
    if baseline.mean is None:
        return "Control's answers in an average segment are set by the cutpoints; segments' own are pooled around them."
    low, high = central_interval(baseline.mean)
    link = "logit" if model.amount is not None else FAMILIES[model.family].link
    if link == "logit":
        rates = [1 / (1 + math.exp(-value)) for value in (low, high)]
        where = f"9 times in 10 between {rates[0]:.2%} and {rates[1]:.2%}"
    elif link == "log":
        where = f"9 times in 10 between {math.exp(low):.2g} and {math.exp(high):.2g}"
    else:
        where = f"9 times in 10 between {_amount(model, low)} and {_amount(model, high)}"
        where += " from the control's overall mean" if model.units == "control_sd" else ""
    what = {"piecewise_exponential": "hazard in the first interval", "poisson": "rate",
            "two_part": "chance of a positive outcome"}.get(model.family, "mean")  # fmt: skip
    if baseline.pooling == "none":
        return f"Control's {what} in each segment, on its own: {where}."
    return f"Control's {what}, pooled over segments as well: {where}."


def _nuisance_sentences(model: Model) -> list[str]:
    if model.nuisance is None:
        return []
    found = []
    for name, prior in model.nuisance.given.items():
        match name:
            case "sigma" if model.amount is not None:
                found.append(f"SD of the log of positive outcomes: 9 times in 10 below {upper_bound(prior):.3g}.")
            case "sigma":
                found.append(f"SD within an arm: 9 times in 10 below {_amount(model, upper_bound(prior))}.")
            case "alpha":
                low, high = central_interval(prior)
                found.append(
                    f"Variance of a count with mean 1: 9 times in 10 between {1 + 1 / high:.2g} and {1 + 1 / low:.2g}."
                )
            case "cutpoints":
                low, high = (1 / (1 + math.exp(-value)) for value in central_interval(prior))
                found.append(
                    f"Share at or below a level in an average segment: 9 times in 10 between {low:.2%} and {high:.2%}."
                )
            case "hazards":
                low, high = (math.exp(value) for value in central_interval(prior))
                found.append(
                    f"Hazard of a later interval relative to the first: 9 times in 10 between {low:.2g} and {high:.2g}."
                )
    return found


def _amount(model: Model, value: float, ratio: str | None = None) -> str:
    if model.units == "control_sd":
        return f"{value:.3g} control SDs"
    ratio = ratio or FAMILIES[model.family].ratio
    unit = "" if ratio is None else " log-odds" if ratio == "odds ratio" else " on the log scale"
    return f"{value:.3g}{unit}"
