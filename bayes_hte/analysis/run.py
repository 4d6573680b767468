"""`run`: carry out the whole analysis that a plan describes, from its files to a fit, or a fit of every question."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from bayes_hte._support.progress import track_progress
from bayes_hte._support.validation import check_path
from bayes_hte.analysis.fit import SamplingRequest, check_sampling_request, fit_and_record
from bayes_hte.analysis.plans.analysis import Analysis
from bayes_hte.analysis.plans.by_question import ByQuestion, RegisteredQuestions
from bayes_hte.analysis.plans.lock_files import find_lock, judge_run
from bayes_hte.analysis.result import Fit
from bayes_hte.cells.checks.check import check
from bayes_hte.cells.from_questions import CellsOrError, from_questions
from bayes_hte.criticism.own_estimates.prior_conflict import find_prior_conflicts
from bayes_hte.criticism.own_estimates.segment_estimates import estimate_segments
from bayes_hte.criticism.question_doubts import list_question_doubts
from bayes_hte.errors import DataError, FitError, HteError, ModelError, PlanError
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.model.planned_effect import with_planned_effect
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Model, Plan, read_model, read_plan
from bayes_hte.spec.data_forms import PlanTable, Rows, Times
from bayes_hte.spec.family_rules import FAMILY_RULES, UnitVariance
from bayes_hte.spec.files import find_model_file, hash_file
from bayes_hte.spec.fit_tree import FitRecord
from bayes_hte.spec.questions.list_questions import (
    PlannedQuestion,
    QuestionKey,
    asks_several,
    list_questions,
    title_question,
)
from bayes_hte.spec.questions.registration import RegistrationStatus, list_dropped_questions


def run(
    plan: str | Path,
    *,
    data: Any = None,
    drop_missing: bool = False,
    draws: int | None = None,
    seed: int | None = None,
    progress: bool | None = None,
) -> Fit | Analysis:
    """Carry out the whole analysis that a plan file describes.

    Parameters
    ----------
    plan : str or Path
        The plan file. If there is a lock beside it (see `register`), every finding says whether it was registered, and
        the look at these data is counted in ``plan.looks.toml``.
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
    Fit or Analysis
        A `Fit`; of a plan with ``[[metrics]]`` or ``breakdowns`` an `Analysis`, which holds a fit of every metric by
        every breakdown. Both have ``fits``, ``registered``, ``table``, ``decide``, ``report`` and ``save``.

    Raises
    ------
    ArgumentError, PlanError, ModelError, DataError, FitError
        As the step that fails says. Of several questions one that fails does not stop the others, unless the plan
        itself is wrong or none can be answered.

    Notes
    -----
    Every fit of an `Analysis` has the plan's seed: its numbers are those of a plan with that metric and breakdown
    alone, to rounding error.
    """
    given_options = {"drop_missing": drop_missing or None, "draws": draws, "seed": seed}
    option_texts = [f", {name}={value!r}" for name, value in given_options.items() if value is not None]
    # The data may be an object, or an address that holds a password: they are not written out.
    command = f"hte.run({str(plan)!r}{', data=...' if data is not None else ''}{''.join(option_texts)})"
    options = RunOptions(drop_missing=drop_missing, draws=draws, seed=seed)
    prepared_plan = prepare_plan(plan, data=data, options=options, counts_look=True)
    return fit_prepared_plan(prepared_plan, progress=progress, command=command)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a call or a command says in place of the plan; None leaves it to the plan."""

    drop_missing: bool = False
    draws: int | None = None
    seed: int | None = None

    def apply(self, plan: Plan) -> Plan:
        """Write the options into the plan: they are asked as if it said so, and compared with its lock."""
        draws, seed = check_sampling_request(
            plan.sampling.sampler,
            plan.sampling.draws if self.draws is None else self.draws,
            plan.sampling.seed if self.seed is None else self.seed,
        )
        plan = plan.model_copy(update={"sampling": plan.sampling.model_copy(update={"draws": draws, "seed": seed})})
        if not self.drop_missing or not isinstance(plan.data, Rows | Times):
            return plan
        # A metric that asks for the opposite is overruled too.
        metrics = None if plan.metrics is None else tuple(_drop_missing(metric) for metric in plan.metrics)
        return plan.model_copy(update={"data": _drop_missing(plan.data), "metrics": metrics})


def _drop_missing[T: PlanTable](table: T) -> T:
    return table.model_copy(update={"drop_missing": True})


@dataclass(frozen=True, slots=True)
class PreparedAnalysis:
    """One question with its model and its cells: everything there is before the fit.

    Attributes
    ----------
    plan : Plan
        Of this question alone.
    model : Model
    cells : xarray.Dataset
    plan_sha256, model_sha256 : str
        Of the plan's and the model's file.
    registration : RegistrationStatus
    """

    plan: Plan
    model: Model
    cells: xr.Dataset
    plan_sha256: str
    model_sha256: str
    registration: RegistrationStatus


@dataclass(frozen=True, slots=True)
class PreparedPlan:
    """A plan with everything there is before its fits.

    Attributes
    ----------
    plan : Plan
        As it is run, with all its questions.
    questions : dict
        What was prepared of each question, by metric and dimensions.
    failed : dict
        Why a question cannot be fitted.
    registration : dict
        Of every question whether it was registered, and why not.
    dropped : list
        Questions that were registered and are not asked any more.
    """

    plan: Plan
    questions: dict[QuestionKey, PreparedAnalysis]
    failed: dict[QuestionKey, str]
    registration: dict[QuestionKey, RegistrationStatus]
    dropped: list[QuestionKey]

    def list_failures(self) -> list[tuple[str, str]]:
        """List the questions that cannot be fitted by their names, each with the reason."""
        return [(title_question(key), reason) for key, reason in self.failed.items()]

    def get_only_question(self) -> PreparedAnalysis:
        """Return what was prepared of a plan with one question.

        Raises
        ------
        PlanError
            If the plan lists metrics or breakdowns.
        """
        if asks_several(self.plan):
            raise PlanError("the plan lists metrics or breakdowns, and one question was expected")
        (prepared,) = self.questions.values()
        return prepared


def prepare_plan(
    plan_path: str | Path, *, data: Any = None, options: RunOptions = RunOptions(), counts_look: bool = False
) -> PreparedPlan:
    """Read a plan and its models, reduce the data to the cells of all questions in one pass, and check that they fit.

    Parameters
    ----------
    plan_path : str or Path
    data : data frame, relation or path, optional
        In place of the plan's ``data.path``.
    options : RunOptions
    counts_look : bool
        Whether effects will be seen: then the look is written beside the lock, if there is one.

    Raises
    ------
    ArgumentError, PlanError, ModelError, DataError
        As the step that fails says, if it concerns the plan, or all of its questions.
    """
    # Paths in a plan are relative to its folder, wherever the program runs.
    plan_file = check_path(plan_path, "the plan")
    plan = options.apply(read_plan(plan_file))
    lock, questions = find_lock(plan_file), list_questions(plan)
    # Each model is read once, and before the data: a wrong one is known at once.
    models = {question.plan.model: _read_model(question.plan.model, plan_file) for question in questions}
    cells_by_question = from_questions(questions, plan_file.parent, data=data)
    first_cells = next(cells for cells in cells_by_question.values() if isinstance(cells, xr.Dataset))
    # Before the fits: what is registered must not depend on what is found.
    statuses = judge_run(plan, plan_file, lock, first_cells, counts_look=counts_look)
    prepared: dict[QuestionKey, PreparedAnalysis] = {}
    errors: dict[QuestionKey, HteError] = {}
    for question in questions:
        try:
            prepared[question.key] = _prepare_question(
                question, cells_by_question[question.key], models[question.plan.model], statuses[question.key]
            )
        except (DataError, ModelError) as error:
            errors[question.key] = error
    # Where every question fails for the same reason, that reason is the error.
    if not prepared:
        raise next(iter(errors.values()))
    plan_sha256 = hash_file(plan_file)
    return PreparedPlan(
        plan,
        {key: replace(each, plan_sha256=plan_sha256) for key, each in prepared.items()},
        {key: str(error) for key, error in errors.items()},
        statuses,
        list_dropped_questions(plan, lock),
    )


def _read_model(name_or_path: str, plan_file: Path) -> tuple[Model, str]:
    """Read a model that a plan names, and compute the hash of its file."""
    model_file = find_model_file(name_or_path, plan_file.parent)
    return read_model(model_file), hash_file(model_file)


def _prepare_question(
    question: PlannedQuestion, cells: CellsOrError, model_and_hash: tuple[Model, str], status: RegistrationStatus
) -> PreparedAnalysis:
    """Put one question together with its cells and model, and check that they fit."""
    if isinstance(cells, HteError):
        raise cells
    plan, (model, model_sha256) = question.plan, model_and_hash
    if plan.unit_variance is not None:
        model = _with_unit_variance(model, plan.unit_variance)
    if plan.planned_effect is not None:
        model = with_planned_effect(model, cells, plan.planned_effect, plan.report.scale)
    # Built for its errors alone: `bayes-hte check` reports them without a fit.
    build_problem(cells, model)
    return PreparedAnalysis(plan, model, cells, "", model_sha256, status)


def prepare_analysis(plan_path: str | Path, *, data: Any = None, drop_missing: bool = False) -> PreparedAnalysis:
    """Prepare a plan with one question; see `prepare_plan`.

    Raises
    ------
    ArgumentError, PlanError, ModelError, DataError
        As the step that fails says.
    """
    return prepare_plan(plan_path, data=data, options=RunOptions(drop_missing=drop_missing)).get_only_question()


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


def fit_prepared_plan(
    prepared_plan: PreparedPlan, *, progress: bool | None = None, command: str | None = None
) -> Fit | Analysis:
    """Fit every question of a plan, one after the other; of several one that fails does not stop the others.

    Raises
    ------
    FitError
        If the only question, or every one, cannot be fitted.
    """
    if not asks_several(prepared_plan.plan):
        return fit_prepared_analysis(prepared_plan.get_only_question(), progress=progress, command=command)
    fits: dict[QuestionKey, Fit] = {}
    errors: dict[QuestionKey, HteError] = {}

    def fit_questions() -> Iterator[None]:
        for key, prepared in prepared_plan.questions.items():
            try:
                # One bar counts the questions; bars of several fits would write over each other.
                fits[key] = fit_prepared_analysis(prepared, progress=False, command=command)
            except (DataError, ModelError, FitError) as error:
                errors[key] = error
            yield

    for _ in track_progress(fit_questions(), len(prepared_plan.questions), shows_bar=progress):
        pass
    if not fits:
        raise next(iter(errors.values()))
    failed = prepared_plan.failed | {key: str(error) for key, error in errors.items()}
    return Analysis(
        prepared_plan.plan,
        ByQuestion(fits, failed),
        ByQuestion(failed),
        RegisteredQuestions(prepared_plan.registration),
        tuple(prepared_plan.dropped),
    )


def fit_prepared_analysis(
    prepared_analysis: PreparedAnalysis, *, progress: bool | None = None, command: str | None = None
) -> Fit:
    """Fit what was prepared; the plan, the hashes of both files and the command travel with the result."""
    plan, sampling_options = prepared_analysis.plan, prepared_analysis.plan.sampling
    request = SamplingRequest(
        sampler=sampling_options.sampler, draws=sampling_options.draws, seed=sampling_options.seed, progress=progress
    )

    # The hash is that of the file, comments included, where fit() alone can only hash the model.
    def add_plan(record: FitRecord) -> FitRecord:
        return replace(
            record,
            plan=plan,
            command=command,
            plan_sha256=prepared_analysis.plan_sha256,
            model_sha256=prepared_analysis.model_sha256,
            registration=prepared_analysis.registration,
        )

    return fit_and_record(prepared_analysis.cells, prepared_analysis.model, request, add_plan)
