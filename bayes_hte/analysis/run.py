"""`run`: carry out the whole analysis that a plan describes, from its files to a fit."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from bayes_hte._support.validation import check_path
from bayes_hte.analysis.fit import SamplingRequest, fit_and_record
from bayes_hte.analysis.result import Fit
from bayes_hte.cells.checks.check import check
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.criticism.own_estimates.prior_conflict import find_prior_conflicts
from bayes_hte.criticism.own_estimates.segment_estimates import estimate_segments
from bayes_hte.criticism.question_doubts import list_question_doubts
from bayes_hte.errors import PlanError
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.planned_effect import with_planned_effect
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Model, Plan, read_model, read_plan
from bayes_hte.spec.family_rules import FAMILY_RULES, UnitVariance
from bayes_hte.spec.files import find_model_file, hash_file
from bayes_hte.spec.fit_tree import FitRecord


def run(
    plan: str | Path,
    *,
    data: Any = None,
    drop_missing: bool = False,
    draws: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> Fit:
    """Carry out the whole analysis that a plan file describes.

    Parameters
    ----------
    plan : str or Path
        The plan file.
    data : data frame, relation or path, optional
        In place of the plan's ``data.path``.
    drop_missing : bool
        Drop units without a finite outcome, even if the plan does not ask for it.
    draws, seed : int, optional
        In place of the plan's.
    progress : bool, optional
        Show a progress bar; by default only to a person at a terminal.

    Returns
    -------
    Fit

    Raises
    ------
    ArgumentError, PlanError, ModelError, DataError, FitError
        As the step that fails says.
    """
    given_options = {"drop_missing": drop_missing or None, "draws": draws, "seed": seed}
    option_texts = [f", {name}={value!r}" for name, value in given_options.items() if value is not None]
    # The data may be an object, or an address that holds a password: they are not written out.
    command = f"hte.run({str(plan)!r}{', data=...' if data is not None else ''}{''.join(option_texts)})"
    return fit_prepared_analysis(
        prepare_analysis(plan, data=data, drop_missing=drop_missing),
        draws=draws,
        seed=seed,
        progress=progress,
        command=command,
    )


@dataclass(frozen=True, slots=True)
class PreparedAnalysis:
    """A plan with its model and its cells: everything there is before the fit.

    Attributes
    ----------
    plan : Plan
    model : Model
    cells : xarray.Dataset
    plan_sha256, model_sha256 : str
        Of the plan's and the model's file.
    """

    plan: Plan
    model: Model
    cells: xr.Dataset
    plan_sha256: str
    model_sha256: str


def prepare_analysis(plan_path: str | Path, *, data: Any = None, drop_missing: bool = False) -> PreparedAnalysis:
    """Read the plan and its model, reduce the data to cells, and check that they fit together.

    Raises
    ------
    ArgumentError, PlanError, ModelError, DataError
        As the step that fails says.
    """
    # Paths in a plan are relative to its folder, wherever the program runs.
    plan_file = check_path(plan_path, "the plan")
    plan = read_plan(plan_file)
    model_file = find_model_file(plan.model, plan_file.parent)
    model = read_model(model_file)
    if plan.unit_variance is not None:
        model = _with_unit_variance(model, plan.unit_variance)
    cells = from_plan(plan, plan_file.parent, data=data, drop_missing=drop_missing)
    if plan.planned_effect is not None:
        model = with_planned_effect(model, cells, plan.planned_effect, plan.report.scale)
    # Built for its errors alone: `bayes-hte check` reports them without a fit.
    build_problem(cells, model)
    return PreparedAnalysis(plan, model, cells, hash_file(plan_file), hash_file(model_file))


def _with_unit_variance(model: Model, unit_variance: UnitVariance) -> Model:
    """Return the model with the plan's choice of variances, or raise PlanError where the family has none."""
    if not FAMILY_RULES[model.family].allows_unit_variance:
        raise PlanError(
            f'unit_variance is for models of family "mean"; {model.family} has none to pool: delete the key'
        )
    return model.model_copy(update={"unit_variance": unit_variance})


def list_prepared_findings(prepared_analysis: PreparedAnalysis) -> list[str]:
    """List what is doubtful before the fit: about the question, the data, and priors that contradict them."""
    plan, cells, model = prepared_analysis.plan, prepared_analysis.cells, prepared_analysis.model
    question = EffectQuestion(plan.report.scale, plan.report.ci_prob, plan.matters)
    conflicts = find_prior_conflicts(estimate_segments(build_problem(cells, model)))
    return [*list_question_doubts(question, cells, model), *check(cells), *conflicts.problems]


def fit_prepared_analysis(
    prepared_analysis: PreparedAnalysis,
    *,
    draws: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
    command: str | None = None,
) -> Fit:
    """Fit what was prepared; the plan, the hashes of both files and the command travel with the result."""
    plan, sampling_options = prepared_analysis.plan, prepared_analysis.plan.sampling
    request = SamplingRequest(
        sampler=sampling_options.sampler,
        draws=sampling_options.draws if draws is None else draws,
        seed=sampling_options.seed if seed is None else seed,
        progress=progress,
    )

    # The hash is that of the file, comments included, where fit() alone can only hash the model.
    def add_plan(record: FitRecord) -> FitRecord:
        return replace(
            record,
            plan=plan,
            command=command,
            plan_sha256=prepared_analysis.plan_sha256,
            model_sha256=prepared_analysis.model_sha256,
        )

    return fit_and_record(prepared_analysis.cells, prepared_analysis.model, request, add_plan)
