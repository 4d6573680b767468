"""The background of the numbers: trust, assumptions, data, how to get them again, and what the words mean."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import xarray as xr

from bayes_hte._support.phrases import clean_text, format_count, shorten_text, write_count
from bayes_hte.cells.checks.check import collect_findings
from bayes_hte.criticism.diagnostics import MAX_RHAT, Diagnosis
from bayes_hte.decisions.direction import ask_about_direction
from bayes_hte.estimands.tables import count_all_units
from bayes_hte.estimands.weights import describe_population
from bayes_hte.inference.certificate import MAX_PARETO_K, MAX_QUADRATURE_ERROR, MIN_ESS, Certificate
from bayes_hte.model.families import Family
from bayes_hte.model.text import describe, pymc_source
from bayes_hte.model.text.model_toml import write_model_toml
from bayes_hte.report.arm_results import ArmResult
from bayes_hte.report.notation import choose_effect_format, isolate_name
from bayes_hte.spec import Plan, cell_table
from bayes_hte.spec.fit_tree import (
    describe_engine,
    get_command,
    get_file_hashes,
    get_fitted_cells,
    get_fitted_model,
    get_resolved_model,
    get_seed,
    get_stated_direction,
    get_versions,
    is_from_posterior,
    list_test_names,
)
from bayes_hte.spec.model import PoolingKind

GLOSSARY = (
    ("Segment", "One combination of levels of the dimensions, such as mobile and new customer."),
    ("Effect", "An arm’s mean outcome minus the control’s, among the units of one segment."),
    (
        "ATE",
        "The average treatment effect: the effects of all segments, averaged with their shares of the units (rows, "
        "views or weights, as the page says) in all arms together, or with equal weights where these are not known. "
        "Relative to the control it is the change of the total.",
    ),
    ("Raw estimate", "What a segment’s own data say when nothing is borrowed. For small segments it is mostly noise."),
    (
        "Partial pooling",
        "Every segment’s effect is estimated from its own data and from the other segments, weighted by how much "
        "its own data can tell. It is what keeps a lucky small segment from looking like a winner.",
    ),
    (
        "Pooling factor",
        "The share of an effect that is borrowed from other segments’ effects: 0 is own data only, 1 the others’ only. "
        "The control’s means are pooled as well, which this share does not count.",
    ),
    ("P(> 0), P(< 0)", "The probability, given the data and the assumptions, that the effect is above or below zero."),
    (
        "Interval",
        "The range that holds the true effect with the stated probability, given the data and the assumptions.",
    ),
    ("Between-segment SD (τ)", "How much true effects differ from one segment to the next."),
)

POOLING_SENTENCES: Mapping[PoolingKind, str] = MappingProxyType(
    {
        "partial": "Small segments have noisy estimates of their own. The arrows show how far each was moved toward "
        "the others. The winners and losers of a raw comparison are mostly its smallest segments.",
        "none": "Segments were not pooled: each estimate is its own, moved only by the prior. The winners and losers "
        "among small segments are mostly luck.",
        "complete": "All segments were given one common effect on the model’s scale, whatever their own data say.",
    }
)


@dataclass(frozen=True, slots=True)
class Background:
    """Plain text and pairs for the second half of the page; what is asked and warned of stands before the answer."""

    assumption_sentences: list[str]
    model_mathematics: str
    in_outcome_units: bool
    pymc_source: str
    data_facts: list[tuple[str, str]]
    direction_question: str
    validity_warnings: list[str]
    data_warnings: list[str]
    rerun_command: str
    version_facts: list[tuple[str, str]]
    file_hashes: list[tuple[str, str]]
    model_toml: str
    glossary: tuple[tuple[str, str], ...]


def collect_background(fit_tree: xr.DataTree, plan: Plan | None) -> Background:
    """Collect assumptions, data, warnings and provenance of a fit."""
    model, cells = get_fitted_model(fit_tree), get_fitted_cells(fit_tree)
    is_own_model, check_findings = is_from_posterior(fit_tree), collect_findings(cells)
    direction_question = ask_about_direction(cells, get_stated_direction(fit_tree))
    # The mathematics shows the priors as they were used: in the outcome's units, with all defaults.
    resolved_model = get_resolved_model(fit_tree)
    is_combined = bool(list_test_names(fit_tree))
    own_model_sentence = f"{model.title}: a model of your own, of which only the draws are known here."
    if is_combined:
        assumption_sentences = [*describe.describe_model(model), _describe_combination(fit_tree)]
    else:
        assumption_sentences = [own_model_sentence] if is_own_model else describe.describe_model(model)
    return Background(
        assumption_sentences=assumption_sentences,
        model_mathematics="" if is_own_model else "\n".join(describe.write_mathematics(resolved_model)),
        in_outcome_units=model.units != "link",
        pymc_source="" if is_own_model else pymc_source.write_pymc_source(resolved_model),
        data_facts=_list_data_facts(cells, plan),
        direction_question=_make_sentence(direction_question) if direction_question else "",
        validity_warnings=[_make_sentence(warning) for warning in check_findings.validity_warnings],
        data_warnings=[_make_sentence(warning) for warning in check_findings.other_findings],
        rerun_command=get_command(fit_tree)
        or ("hte.combine(first, second, ...)" if is_combined else _write_fit_call(fit_tree)),
        version_facts=_list_versions(fit_tree),
        file_hashes=_list_file_hashes(fit_tree),
        model_toml="" if is_own_model else write_model_toml(model),
        glossary=GLOSSARY,
    )


def _describe_combination(fit_tree: xr.DataTree) -> str:
    """Describe in a sentence what a fit of two tests adds to the model of one."""
    first_name, second_name = map(shorten_text, list_test_names(fit_tree))
    return (
        f"Two tests, '{first_name}' and '{second_name}', in one model: a test may move the effects of all segments, "
        "and that of each; effects are averages over both tests by their units in the segment."
    )


def describe_diagnosis(diagnosis: Diagnosis) -> list[str]:
    """Describe the diagnosis: the verdict, the problems, the notes, and the numbers behind it."""
    certificate = diagnosis.certificate
    numbers_sentence = _describe_chains(diagnosis) if certificate is None else _describe_certificate(certificate)
    refit_sentences = ["A first attempt did not pass and was repeated with smaller steps and more tuning."]
    verdict_sentence = (
        "The draws behind every number in this report passed their checks."
        if diagnosis.ok
        else "The fit behind this report did NOT pass its checks. Do not act on any number in it."
    )
    problem_sentences = [clean_text(sentence) for sentence in (*diagnosis.problems, *diagnosis.notes)]
    return [verdict_sentence, *problem_sentences, numbers_sentence, *(refit_sentences if diagnosis.refitted else [])]


def _describe_chains(diagnosis: Diagnosis) -> str:
    smallest_ess = min(diagnosis.ess_bulk_min, diagnosis.ess_tail_min)
    rhat_text = f"{diagnosis.rhat_max:.3f}" if math.isfinite(diagnosis.rhat_max) else "undefined"
    return (
        f"R-hat, which compares the chains, is at most {rhat_text} ({MAX_RHAT} is allowed); the least certain quantity "
        f"has {smallest_ess:,.0f} effective draws ({MIN_ESS:.0f} are needed); "
        f"{write_count(diagnosis.divergences, 'transition', 'transitions')} diverged (0 are allowed)."
    )


def _describe_certificate(certificate: Certificate) -> str:
    # k = −∞: there were no importance weights.
    weights_clause = (
        "Everything was integrated by quadrature; "
        if certificate.pareto_k == -math.inf
        else f"Pareto k, the tail of the importance weights, is {max(certificate.pareto_k, 0.0):.2f} "
        f"({MAX_PARETO_K} is allowed); "
    )
    return (
        f"The posterior was computed, not sampled by MCMC. {weights_clause}{certificate.effective_points:,.0f} points "
        f"are effective ({MIN_ESS:.0f} are needed); a finer quadrature rule changes the log density by "
        f"{certificate.quadrature_error:.1g} ({MAX_QUADRATURE_ERROR} is allowed)."
    )


CENTRE_PHRASE = "the centre that segments shrink to, in which those whose effects are known precisely count most"


def explain_averages(arm_result: ArmResult, family: Family, *, has_unit_counts: bool) -> str:
    """Explain the average effect and the common effect, and why they are two numbers."""
    return " ".join(
        filter(
            None,
            [
                _explain_effect_averages(arm_result, family, has_unit_counts=has_unit_counts),
                _compare_with_plain_difference(arm_result),
            ],
        )
    )


def _compare_with_plain_difference(arm_result: ArmResult) -> str:
    """Compare the average effect with the difference of the arms as they are, and say why the two differ."""
    plain_effect, plain_error = arm_result.ate_row["raw"], arm_result.ate_row["raw_se"]
    if not math.isfinite(plain_effect) or len(arm_result.readings) < 2:
        return ""
    effect_format = arm_result.effect_format
    error_text = f" ± {effect_format.format_unsigned(plain_error)}" if math.isfinite(plain_error) else ""
    plain_text = f"{effect_format.format_signed(plain_effect)}{error_text}{effect_format.unit_phrase}"
    if not arm_result.control:
        return f"Not pooled, the estimates average {plain_text}."
    return (
        f"The plain difference of the arms, without segments, pooling or adjustment, is {plain_text}. The ATE is made "
        "of the segments’ effects, which are drawn toward each other, and of their shares in all arms together: so "
        "another breakdown of the same data gives another ATE, and this difference stays."
    )


def _explain_effect_averages(arm_result: ArmResult, family: Family, *, has_unit_counts: bool) -> str:
    """Explain the average effect and the common effect, and why they are two numbers."""
    effect_format, mean_change = arm_result.effect_format, arm_result.mean_change
    ate_phrase = f"ATE ({effect_format.format_signed(arm_result.ate_row['effect'])}{effect_format.unit_phrase})"
    weights_clause = (
        f"is over {arm_result.population}"
        if has_unit_counts
        else "gives all segments one weight, as the numbers of units are unknown"
    )
    if mean_change is not None and arm_result.question.scale == "relative":
        # The change of the total, draw by draw: no segment's own ratio counts more than what it adds.
        ate_sentence = (
            f"The {ate_phrase} {weights_clause} and is the {arm_result.average_kind}: if everyone gets the treatment, "
            f"the mean of all {'units' if has_unit_counts else 'segments'} changes by {mean_change.change_text}."
        )
    elif mean_change is not None:
        # An average of ratios is not the ratio of averages: the reader needs both.
        ate_sentence = (
            f"The {ate_phrase} {weights_clause}; it is an average of the segments’ own effects on this scale. If "
            f"everyone gets the treatment, the mean of all {'units' if has_unit_counts else 'segments'} changes by "
            f"{mean_change.change_text}."
        )
    else:
        all_treated = " and answers what happens if everyone gets the treatment" if has_unit_counts else ""
        ate_sentence = f"The {ate_phrase} {weights_clause}{all_treated}."
    # Models without pooling have no common effect.
    if "effect_mean" not in arm_result.heterogeneity:
        return ate_sentence
    common_row = arm_result.heterogeneity["effect_mean"]
    link_format = choose_effect_format(family, "link", "", [common_row["ci_high"] - common_row["ci_low"]])
    common_phrase = f"The common effect ({link_format.format_signed(common_row['value'])}{link_format.unit_phrase})"
    if arm_result.pooling == "complete":
        return f"{ate_sentence} {common_phrase} is that of every segment, by assumption."
    if not has_unit_counts:
        return f"{ate_sentence} {common_phrase} is {CENTRE_PHRASE}."
    return (
        f"Two averages: {ate_sentence[:1].lower()}{ate_sentence[1:]} {common_phrase} is {CENTRE_PHRASE}. They part "
        "when large segments respond unlike small ones."
    )


def count_units(cells: xr.Dataset) -> list[tuple[str, str]]:
    """Count the units, each once: rows and the clusters that they are in, or units and what they stand for."""
    if "n" not in cells:
        return []
    unit_counts = count_all_units(cells)
    # Every treated arm has the same control.
    unit_count = float(unit_counts["n_control"].values[0]) + float(unit_counts["n_treated"].sum(skipna=False))
    if not cells.attrs["control"]:
        unit_count = float(unit_counts["n_treated"].sum())
    if "n_rows" not in cells:
        facts = [("Units", format_count(unit_count))]
    else:
        cluster_phrase = f" of {isolate_name(str(cells.attrs['cluster']))}" if "cluster" in cells.attrs else ""
        clusters_text = f"{format_count(unit_count)} clusters" if math.isfinite(unit_count) else "clusters"
        facts = [("Units", f"{format_count(float(cells['n_rows'].sum()))} rows in {clusters_text}{cluster_phrase}")]
    if "cell_size" in cells and cell_table.name_size_unit(cells) != "rows":
        facts.append(("Averages over", clean_text(describe_population(cells))))
    return facts


def explain_sizes(cells: xr.Dataset) -> list[str]:
    """Explain the columns of sizes, where the segment table has them."""
    if "cell_size" not in cells:
        return []
    unit_name = "clusters" if "n_rows" in cells else "units"
    size_name = clean_text(cell_table.name_size_unit(cells))
    return [f"“n” counts {unit_name}, and “size” {size_name}: averages over segments count each by its size."]


def _count_units_by_arm(cells: xr.Dataset) -> list[tuple[str, str]]:
    unit_name, facts = "Clusters" if "n_rows" in cells else "Units", []
    unit_counts = count_all_units(cells)
    count_by_arm = dict(zip(cell_table.list_treated_arms(cells), unit_counts["n_treated"].values, strict=True))
    if cells.attrs["control"]:
        count_by_arm = {str(cells.attrs["control"]): unit_counts["n_control"].values[0]} | count_by_arm
    for arm, unit_count in count_by_arm.items():
        facts.append((f"{unit_name} in {isolate_name(arm)}", format_count(float(unit_count))))
        if "n_rows" in cells:
            row_count = float(cells["n_rows"].sel({cell_table.ARM: arm}).sum())
            facts.append((f"Rows in {isolate_name(arm)}", format_count(row_count)))
    return facts


def _list_data_facts(cells: xr.Dataset, plan: Plan | None) -> list[tuple[str, str]]:
    cell_has_data = cell_table.has_data(cells)
    data_facts = []
    if plan is not None and plan.source:
        data_facts.append(("Source", clean_text(plan.source)))
    if recorded_source := str(cells.attrs.get("source", "")):
        data_facts.append(("Read from", clean_text(recorded_source)))
    if "n" in cells:
        data_facts += _count_units_by_arm(cells)
    else:
        data_facts.append(("Units", "not known"))
    data_facts.append(("Segments", f"{cells.sizes[cell_table.SEGMENT]:,}"))
    data_facts.append(("Cells with data", f"{int(cell_has_data.sum()):,} of {cell_has_data.size:,}"))
    return data_facts


def _make_sentence(warning_text: str) -> str:
    # Warnings are written to follow "note: ", in lower case and without a full stop.
    cleaned_text = clean_text(warning_text)
    return f"{cleaned_text[:1].upper()}{cleaned_text[1:]}."


def _write_fit_call(fit_tree: xr.DataTree) -> str:
    draw_count = fit_tree["posterior"].sizes["chain"] * fit_tree["posterior"].sizes["draw"]
    stated_direction = get_stated_direction(fit_tree)
    direction_text = "" if stated_direction is None else f", higher_is_better={stated_direction}"
    return f"bayes_hte.fit(cells, model, draws={draw_count}, seed={get_seed(fit_tree)}{direction_text})"


def _list_versions(fit_tree: xr.DataTree) -> list[tuple[str, str]]:
    posterior = fit_tree["posterior"]
    return [
        ("Seed", str(get_seed(fit_tree))),
        ("Engine", describe_engine(fit_tree)),
        ("Draws", f"{posterior.sizes['chain']} chains × {posterior.sizes['draw']:,} draws"),
        ("Versions", ", ".join(get_versions(fit_tree))),
    ]


def _list_file_hashes(fit_tree: xr.DataTree) -> list[tuple[str, str]]:
    label_by_name = {"data": "Data", "model": "Model file", "plan": "Plan file"}
    return [(label_by_name[name], file_hash) for name, file_hash in get_file_hashes(fit_tree).items()]
