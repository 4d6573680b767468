"""What stands behind the numbers: trust, assumptions, data, how to get them again, and what the words mean."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import xarray as xr

from bayes_hte import schema, source, words
from bayes_hte.cells.checks import findings
from bayes_hte.diagnose import MAX_PARETO_K, MAX_QUADRATURE_ERROR, MAX_RHAT, MIN_ESS, Diagnosis
from bayes_hte.effects import cells_of, engine_of, is_own, model_of
from bayes_hte.families import Family
from bayes_hte.plot.text import clean, count
from bayes_hte.report.answer import Case
from bayes_hte.report.notation import counted, measure, name
from bayes_hte.spec import Model, Plan
from bayes_hte.spec.model import Pooling

GLOSSARY = (
    ("Segment", "One combination of levels of the dimensions, such as mobile and new customer."),
    ("Effect", "An arm’s mean outcome minus the control’s, among the units of one segment."),
    (
        "ATE",
        "The average treatment effect: the effects of all segments, averaged with their shares of the units, or with "
        "equal weights where the numbers of units are not known.",
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

POOLING: Mapping[Pooling, str] = MappingProxyType(
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
    """Plain text and pairs for the second half of the page; what is `unfair` stands before the answer."""

    sentences: list[str]
    mathematics: str
    in_outcome_units: bool
    pymc: str
    data: list[tuple[str, str]]
    unfair: list[str]
    warnings: list[str]
    command: str
    versions: list[tuple[str, str]]
    hashes: list[tuple[str, str]]
    model_json: str
    glossary: tuple[tuple[str, str], ...]


def collect(tree: xr.DataTree, plan: Plan | None) -> Background:
    """Everything behind the numbers of a fit."""
    model, cells = model_of(tree), cells_of(tree)
    own, found = is_own(tree), findings(cells)
    resolved = Model.model_validate_json(tree.attrs["resolved_model"])
    return Background(
        sentences=[f"{model.title}: a model of your own, of which only the draws are known here."] if own
        else words.sentences(model),
        mathematics="" if own else "\n".join(words.mathematics(resolved)),
        in_outcome_units=model.units != "link",
        pymc="" if own else source.pymc_text(resolved),
        data=_data(cells, plan),
        unfair=[_sentence(warning) for warning in found.unfair],
        warnings=[_sentence(warning) for warning in found.others],
        command=_command(tree, plan),
        versions=_versions(tree),
        hashes=_hashes(tree),
        model_json="" if own else json.dumps(json.loads(tree.attrs["model"]), indent=2, ensure_ascii=False),
        glossary=GLOSSARY,
    )  # fmt: skip


def status(plan: Plan | None) -> str:
    """Whether the segments were declared before the test."""
    if plan is None:
        return "No plan file says that these segments were declared before the test: treat them as exploratory."
    if plan.exploratory:
        return "Exploratory: the segments were chosen after seeing the data. Replicate before acting on one of them."
    return "The segments were declared before the test, in the plan file."


def trust(diagnosis: Diagnosis) -> list[str]:
    """The diagnosis in words."""
    numbers = _of_certificate(diagnosis) if diagnosis.pareto_k is not None else _of_chains(diagnosis)
    again = ["A first attempt did not pass and was repeated with smaller steps and more tuning."]
    first = (
        "The draws behind every number in this report passed their checks."
        if diagnosis.ok
        else "The draws behind this report did NOT pass their checks. Do not act on any number in it."
    )
    problems = [clean(problem) for problem in diagnosis.problems]
    return [first, *problems, numbers, *(again if diagnosis.refitted else [])]


def _of_chains(diagnosis: Diagnosis) -> str:
    fewest = min(diagnosis.ess_bulk_min, diagnosis.ess_tail_min)
    rhat = f"{diagnosis.rhat_max:.3f}" if math.isfinite(diagnosis.rhat_max) else "undefined"
    return (
        f"R-hat, which compares the chains, is at most {rhat} ({MAX_RHAT} is allowed); the least certain quantity "
        f"has {fewest:,.0f} effective draws ({MIN_ESS:.0f} are needed); "
        f"{counted(diagnosis.divergences, 'transition', 'transitions')} diverged (0 are allowed)."
    )


def _of_certificate(diagnosis: Diagnosis) -> str:
    error = diagnosis.quadrature_error or 0.0
    weights = (
        "Everything was integrated by quadrature; "
        if diagnosis.pareto_k == -math.inf
        else f"Pareto k, the tail of the importance weights, is {max(diagnosis.pareto_k or 0.0, 0.0):.2f} "
        f"({MAX_PARETO_K} is allowed); "
    )
    return (
        f"The posterior was computed, not sampled by MCMC. {weights}{diagnosis.ess_bulk_min:,.0f} points are effective "
        f"({MIN_ESS:.0f} are needed); a finer quadrature rule changes the log density by {error:.1g} "
        f"({MAX_QUADRATURE_ERROR} is allowed)."
    )


def centre(case: Case, family: Family, *, units: bool) -> str:
    """What the average effect and the common effect say, and why they are two numbers; `units` says if n is known."""
    average = f"ATE ({case.measure.signed(case.ate['effect'])}{case.measure.words})"
    weights = (
        "counts every unit once" if units else "gives all segments one weight, as the numbers of units are unknown"
    )
    if case.overall is not None:
        first = (
            f"The {average} {weights}; it is an average of the segments’ own effects on this scale. If everyone gets "
            f"the treatment, the mean of all {'units' if units else 'segments'} changes by {case.overall.words}."
        )
    else:
        all_treated = " and answers what happens if everyone gets the treatment" if units else ""
        first = f"The {average} {weights}{all_treated}."
    if "effect_mean" not in case.spread:
        return first
    row = case.spread["effect_mean"]
    written = measure(family, "link", "", [row["ci_high"] - row["ci_low"]])
    common = f"The common effect ({written.signed(row['value'])}{written.words})"
    if case.pooling == "complete":
        return f"{first} {common} is that of every segment, by assumption."
    if not units:
        return f"{first} {common} is the value that segments shrink to."
    return (
        f"Two averages: {first[:1].lower()}{first[1:]} {common} counts every segment once and is the value that "
        "segments shrink to. They part when large segments respond unlike small ones."
    )


def _data(cells: xr.Dataset, plan: Plan | None) -> list[tuple[str, str]]:
    there = schema.present(cells)
    found = []
    if plan is not None and plan.source:
        found.append(("Source", clean(plan.source)))
    if source := str(cells.attrs.get("source", "")):
        found.append(("Read from", clean(source)))
    if "n" in cells:
        units = cells["n"].sum(schema.SEGMENT)
        found += [(f"Units in {name(str(arm))}", count(float(units.sel(arm=arm)))) for arm in units[schema.ARM].values]
    else:
        found.append(("Units", "not known"))
    found.append(("Segments", f"{cells.sizes[schema.SEGMENT]:,}"))
    found.append(("Cells with data", f"{int(there.sum()):,} of {there.size:,}"))
    return found


def _sentence(text: str) -> str:
    cleaned = clean(text)
    return f"{cleaned[:1].upper()}{cleaned[1:]}."


def _command(tree: xr.DataTree, plan: Plan | None) -> str:
    if plan is not None:
        return "bayes-hte run plan.toml"
    draws = tree["posterior"].sizes["chain"] * tree["posterior"].sizes["draw"]
    return f"bayes_hte.fit(cells, model, draws={draws}, seed={int(tree.attrs['seed'])})"


def _versions(tree: xr.DataTree) -> list[tuple[str, str]]:
    posterior = tree["posterior"]
    return [
        ("Seed", str(tree.attrs["seed"])),
        ("Engine", engine_of(tree)),
        ("Draws", f"{posterior.sizes['chain']} chains × {posterior.sizes['draw']:,} draws"),
        ("Versions", ", ".join(json.loads(tree.attrs["versions"]))),
    ]


def _hashes(tree: xr.DataTree) -> list[tuple[str, str]]:
    named = {"data_sha256": "Data", "model_sha256": "Model file", "plan_sha256": "Plan file"}
    return [(label, str(tree.attrs[key])) for key, label in named.items() if key in tree.attrs]
