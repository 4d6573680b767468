"""A model as mathematics and as sentences, for people who ask what is assumed.

Needs no PyMC; the model's PyMC source is in `pymc_source`, what is said of the likelihood in the family's file. In
formulas s is a segment, a an arm, i a unit.
"""

import math
from functools import partial

from bayes_hte.model.families import FAMILIES
from bayes_hte.model.families.family import OutcomePart
from bayes_hte.model.parameters import EXAMPLE_DIMENSIONS, Coefficient, list_coefficients, with_example_dimensions
from bayes_hte.model.priors import compute_central_interval, compute_upper_bound, format_prior
from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.model import Baseline, Effect, Model, Pool

_POOLING_SENTENCES = {
    "partial": "Effects are partially pooled: each segment's effect is drawn from a common distribution, so that "
    "small segments shrink toward the common effect, exactly as much as their own data warrant.",
    "none": "Effects are not pooled: every segment stands alone.",
    "complete": "Effects are completely pooled: all segments are assumed to have one and the same effect.",
}


def write_mathematics(model: Model) -> list[str]:
    """Write the model as lines of mathematics, likelihood first."""
    family = FAMILIES[model.family]
    formula_lines = list(family.formula_lines)
    shown_model = with_example_dimensions(model)
    if shown_model is not model:
        formula_lines.insert(0, f"with {' and '.join(EXAMPLE_DIMENSIONS)}, for example, as the dimensions")
    for coefficient in list_coefficients(shown_model):
        formula_lines += _write_coefficient(coefficient)
    if family.nuisance is not None and model.nuisance is not None:
        nuisance, prior = family.nuisance, model.nuisance.stated_priors[family.nuisance.name]
        order_text = ", ascending" if nuisance.is_ordered else ""
        formula_lines.append(f"{nuisance.name}[{nuisance.index_letter}] ~ {format_prior(prior)}{order_text}")
    if model.units == "control_sd":
        formula_lines.append(
            "in SDs of the control's outcome; the baseline is measured from the control's overall mean"
        )
    return formula_lines


def _write_coefficient(coefficient: Coefficient) -> list[str]:
    name, pool_priors = coefficient.name, coefficient.pool_priors
    own_index, arm_index = ("[s, a]", "[a]") if len(coefficient.dims) > 1 else ("[s]", "")
    if coefficient.pooling == "none":
        return [f"{name}{own_index} ~ {format_prior(pool_priors.mean)}"]
    if coefficient.pooling == "complete" or pool_priors.between is None:
        return [
            f"{name}{own_index} = {name}_mean{arm_index}",
            f"{name}_mean{arm_index} ~ {format_prior(pool_priors.mean)}",
        ]
    # A baseline has no structure: it is written as an effect that has none.
    plain_mean = pool_priors.mean or pool_priors.between
    effect_priors = coefficient.effect_priors or Effect(mean=plain_mean, between=pool_priors.between)
    between_name = f"{name}_between{_write_between_index(effect_priors, arm_index)}"
    centre_text = f"{name}_mean{arm_index}" if pool_priors.mean is not None else "0"
    distribution_text = _write_distribution(
        effect_priors, _write_centre(coefficient, centre_text, arm_index), between_name
    )
    formula_lines = [f"{name}{own_index} ~ {distribution_text}"]
    if pool_priors.mean is not None:
        formula_lines.append(f"{name}_mean{arm_index} ~ {format_prior(pool_priors.mean)}")
    formula_lines.append(f"{between_name} ~ {format_prior(pool_priors.between)}")
    return formula_lines + _write_structure(coefficient, effect_priors, arm_index)


def _write_between_index(effect_priors: Effect, arm_index: str) -> str:
    index_parts = [f"{effect_priors.strata} of s"] if effect_priors.strata else []
    index_parts += ["a"] if arm_index and not effect_priors.shared_between else []
    return f"[{', '.join(index_parts)}]" if index_parts else ""


def _write_centre(coefficient: Coefficient, centre_text: str, arm_index: str) -> str:
    arm_suffix = ", a" if arm_index else ""
    term_texts = [
        f"{coefficient.name}_{term.replace(':', '_')}[{term} of s{arm_suffix}]" for term in coefficient.pool_priors.by
    ]
    slope_texts = [
        f"{coefficient.name}_slope[{name}{arm_suffix}] * {name}[s]"
        for name in (coefficient.effect_priors.covariates if coefficient.effect_priors else ())
    ]
    return " + ".join([centre_text, *term_texts, *slope_texts])


def _write_distribution(effect_priors: Effect, centre_text: str, between_name: str) -> str:
    match effect_priors.shape:
        case "student_t":
            return f"StudentT({effect_priors.tail_nu:g}, {centre_text}, {between_name})"
        case "horseshoe":
            return f"Normal({centre_text}, local[s, a])"
    return f"Normal({centre_text}, {between_name})"


def _write_structure(coefficient: Coefficient, effect_priors: Effect, arm_index: str) -> list[str]:
    name, pool_priors, formula_lines = coefficient.name, coefficient.pool_priors, []
    for term in pool_priors.by:
        term_variable, arm_suffix = f"{name}_{term.replace(':', '_')}", ", a" if arm_index else ""
        between_name = f"{term_variable}_between{'' if effect_priors.shared_between else arm_index}"
        prior = pool_priors.get_level_prior(term)
        formula_lines += [
            f"{term_variable}[l{arm_suffix}] ~ Normal(0, {between_name})",
            f"{between_name} ~ {format_prior(prior)}" if prior else "",
        ]
    if effect_priors.slope is not None:
        formula_lines.append(
            f"{name}_slope ~ {format_prior(effect_priors.slope)}   per SD of a covariate over segments, centred"
        )
    if effect_priors.shape == "horseshoe":
        formula_lines.append(
            f"local[s, a] = {effect_priors.slab:g} w / sqrt({effect_priors.slab:g}² + w²),   w = {name}_between λ[s, a]"
        )
        formula_lines.append("λ[s, a] ~ HalfCauchy(1)")
    if effect_priors.correlation is not None:
        prior_text = format_prior(effect_priors.correlation)
        formula_lines.append(f"correlation of baseline[s] and effect[s, a]: {name}_correlation[a] ~ {prior_text}")
    return formula_lines


def describe_model(model: Model) -> list[str]:
    """Describe what the model assumes and what its priors imply, a sentence each."""
    family = FAMILIES[model.family]
    sentences = [
        family.outcome_sentence,
        _POOLING_SENTENCES[model.pooling],
        *_describe_structure(model.effect),
    ]
    part_effects: list[Pool] = [model.effect] if model.amount is None else [model.effect, model.amount.effect]
    for part, pool_priors in zip(family.listed_parts, part_effects, strict=True):
        sentences += _describe_coefficient(model, pool_priors, part)
    if model.baseline is not None:
        sentences.append(_describe_baseline(model, model.baseline))
    if family.nuisance is not None and model.nuisance is not None:
        prior = model.nuisance.stated_priors[family.nuisance.name]
        sentences.append(family.nuisance.describe_prior(prior, partial(_phrase_amount, model)))
    return sentences


def _describe_structure(effect_priors: Effect) -> list[str]:
    sentences = []
    if effect_priors.by:
        dimension_text = "every dimension" if "*" in effect_priors.by else ", ".join(effect_priors.by)
        sentences.append(
            f"Levels of {dimension_text} have effects of their own, which add up; what they leave is the segment's."
        )
    if effect_priors.covariates:
        sentences.append(
            f"A segment's effect may depend on its {', '.join(effect_priors.covariates)}, in a straight line."
        )
    if effect_priors.shape == "student_t":
        sentences.append("A few segments may lie far out: the common distribution has heavy tails (Student's t).")
    if effect_priors.shape == "horseshoe":
        sentences.append("Most segments have the common effect and a few stand out (regularised horseshoe).")
    if effect_priors.correlation is not None:
        sentences.append(
            "Effects may be larger, or smaller, where the control does better (correlation with the baseline)."
        )
    if effect_priors.strata:
        sentences.append(f"How much segments differ may differ between the levels of {effect_priors.strata}.")
    if effect_priors.shared_between:
        sentences.append("Segments differ equally much under every arm.")
    return sentences


def _describe_coefficient(model: Model, pool_priors: Pool, part: OutcomePart) -> list[str]:
    part_phrase, ratio_name = part.prior_phrase, part.ratio_name
    # All ranges are of 9 times in 10, the default probability of intervals and bounds of priors.
    low, high = compute_central_interval(pool_priors.mean)
    range_text = f"{_phrase_amount(model, low)} and {_phrase_amount(model, high)}"
    if ratio_name is not None:
        article = "an" if ratio_name[0] in "aeiou" else "a"
        range_text = f"{article} {ratio_name} between {math.exp(low):.2g} and {math.exp(high):.2g}"
    else:
        range_text = f"between {range_text}"
    subject_text = "Each segment's effect" if model.pooling == "none" else "Common effect"
    sentences = [f"{subject_text}{part_phrase}: 9 times in 10 {range_text}."]
    if model.pooling == "partial" and pool_priors.between is not None:
        sentences.append(_describe_differences(model, pool_priors, pool_priors.between, part_phrase, ratio_name))
    return sentences


def _describe_differences(
    model: Model, pool_priors: Pool, between_prior: Distribution, part_phrase: str, ratio_name: str | None
) -> str:
    """Describe how much segments differ where the between-segment SD is at its prior median."""
    plain_mean = pool_priors.mean or between_prior
    effect_priors = pool_priors if isinstance(pool_priors, Effect) else Effect(mean=plain_mean, between=between_prior)
    median_tau = compute_upper_bound(between_prior, 0.5)
    between_bound = _phrase_amount(model, compute_upper_bound(between_prior), ratio_name)
    covariate_phrase = " with the same covariates" if effect_priors.covariates else ""
    if effect_priors.shape == "horseshoe":
        return (
            f"Scale of the differences between most segments{part_phrase}: 9 times in 10 below {between_bound}; the "
            "few that stand out may differ by an SD of up to "
            f"{_phrase_amount(model, effect_priors.slab or 0.0, ratio_name)}."
        )
    level_phrase = ", beyond what their levels say" if pool_priors.by else ""
    first_clause = f"Between-segment SD{part_phrase}{level_phrase}: 9 times in 10 below {between_bound}"
    if effect_priors.shape == "student_t":
        from scipy import special

        # 9 of 10 values of Student's t are within its 95 % quantile of the centre.
        central_distance = float(special.stdtrit(effect_priors.tail_nu, 0.95)) * median_tau
        segment_reach = _phrase_difference(model, central_distance, ratio_name)
        centre_phrase = f"that of segments{covariate_phrase}" if covariate_phrase else "the common effect"
        if pool_priors.by:
            centre_phrase = "what its levels say"
        return (
            f"{first_clause}; at its prior median, 9 times in 10 a segment's effect is within {segment_reach} of "
            f"{centre_phrase}."
        )
    if pool_priors.by:
        # The widest of the dimensions' priors: the sentence is about how far segments may lie apart.
        level_priors = [pool_priors.get_level_prior(term) or between_prior for term in pool_priors.by]
        level_prior = max(level_priors, key=lambda prior: compute_upper_bound(prior, 0.5))
        # Two segments differ by Normal(0, √2 √(tau² + level tau²)), of which 1.645 SDs hold 9 of 10.
        central_distance = 1.645 * math.sqrt(2) * math.hypot(median_tau, compute_upper_bound(level_prior, 0.5))
        typical_difference = _phrase_difference(model, central_distance, ratio_name)
        return (
            f"{first_clause}; between the levels of a dimension: 9 times in 10 below "
            f"{_phrase_amount(model, compute_upper_bound(level_prior), ratio_name)}; at their prior medians, 9 times "
            f"in 10 two segments{covariate_phrase} that differ in one dimension have effects that differ by less than "
            f"{typical_difference}."
        )
    # Two segments differ by Normal(0, √2 tau).
    typical_difference = _phrase_difference(model, 1.645 * math.sqrt(2) * median_tau, ratio_name)
    segment_pair = f"the effects of two segments{covariate_phrase}" if covariate_phrase else "two segments' effects"
    return (
        f"{first_clause}; at its prior median, 9 times in 10 {segment_pair} differ by less than {typical_difference}."
    )


def _phrase_difference(model: Model, difference: float, ratio_name: str | None) -> str:
    """Phrase how large a difference on the link scale is."""
    if not ratio_name:
        return _phrase_amount(model, difference)
    return f"a factor of {math.exp(difference):.2g} in {'odds' if ratio_name == 'odds ratio' else f'the {ratio_name}'}"


def _describe_baseline(model: Model, baseline_priors: Baseline) -> str:
    family = FAMILIES[model.family]
    if baseline_priors.mean is None:
        if family.baseline_sentence is None:
            raise AssertionError(f'family "{family.name}" needs the mean of baselines')
        return family.baseline_sentence
    low, high = compute_central_interval(baseline_priors.mean)
    # Of an outcome of several parts, the table [baseline] is that of the first.
    link_name = family.listed_parts[0].link
    if link_name == "logit":
        # rate = 1 / (1 + e^−eta)
        rate_bounds = [1 / (1 + math.exp(-value)) for value in (low, high)]
        range_text = f"9 times in 10 between {100 * rate_bounds[0]:.2f} % and {100 * rate_bounds[1]:.2f} %"
    elif link_name == "log":
        range_text = f"9 times in 10 between {math.exp(low):.2g} and {math.exp(high):.2g}"
    else:
        range_text = f"9 times in 10 between {_phrase_amount(model, low)} and {_phrase_amount(model, high)}"
        range_text += " from the control's overall mean" if model.units == "control_sd" else ""
    if baseline_priors.pooling == "none":
        return f"Control's {family.baseline_noun} in each segment, on its own: {range_text}."
    return f"Control's {family.baseline_noun}, pooled over segments as well: {range_text}."


def _phrase_amount(model: Model, link_value: float, ratio_name: str | None = None) -> str:
    if model.units == "control_sd":
        return f"{link_value:.3g} control SDs"
    ratio_name = ratio_name or FAMILIES[model.family].ratio_name
    unit_text = "" if ratio_name is None else " log-odds" if ratio_name == "odds ratio" else " on the log scale"
    return f"{link_value:.3g}{unit_text}"
