"""`Analysis`: the fits of a plan with several metrics or breakdowns, and what they say together."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bayes_hte._support.phrases import shorten_text, write_count
from bayes_hte._support.validation import check_path
from bayes_hte.analysis.plans.by_question import ByQuestion, RegisteredQuestions
from bayes_hte.analysis.plans.decide_questions import decide_questions
from bayes_hte.analysis.result import Fit
from bayes_hte.cells.reading.labels import LEVEL_SEPARATOR
from bayes_hte.spec import Plan, Rule
from bayes_hte.spec.cell_table import EffectScale, list_dimensions
from bayes_hte.spec.questions.list_questions import QuestionKey, title_question
from bayes_hte.spec.questions.planned_metric import name_breakdown


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Analysis:
    """The answers to all questions of a plan: every metric by every breakdown, each with a fit of its own.

    `hte.run` makes one of a plan with ``[[metrics]]`` or ``breakdowns``, and `hte.load` of a folder that `save` wrote.

    Attributes
    ----------
    plan : Plan
        As it was run.
    fits : ByQuestion
        `Fit` by metric and breakdown: ``analysis.fits["bought", "device"]``, or
        ``analysis.fits[("bought", ("device", "customer"))]``.
    failed : ByQuestion
        Why a question has no fit.
    registered : RegisteredQuestions
        Of every question whether it was registered before the test, and why not; true as a whole if all were.
    dropped : tuple
        Questions that were registered and that this plan does not ask any more.
    """

    plan: Plan
    fits: ByQuestion[Fit]
    failed: ByQuestion[str]
    registered: RegisteredQuestions
    dropped: tuple[QuestionKey, ...] = ()

    @property
    def reliable(self) -> bool:
        """Tell whether every question has a fit that passed its diagnosis."""
        return not self.failed and all(fit.diagnosis.ok for fit in self.fits.values())

    def table(self, scale: EffectScale | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """Tabulate every segment's effect on every metric, by every breakdown.

        Parameters
        ----------
        scale, ci_prob
            As in `Fit.table`; by default the plan's.

        Returns
        -------
        pandas.DataFrame
            metric, breakdown, segment (its levels joined), the columns of `Fit.table` from arm on (but for decision:
            `decide` has that of all metrics together), registered, problem ("" where there is none) and reliable. A
            question without a fit has one row that says why.

        Raises
        ------
        ArgumentError, ModelError
            As `Fit.table`.
        """
        # What one goal says alone, a guardrail may forbid.
        return self.stack_tables(lambda _, fit: fit.table(scale, ci_prob).drop(columns="decision", errors="ignore"))

    def ate(self, scale: EffectScale | None = None, ci_prob: float | None = None) -> pd.DataFrame:
        """Tabulate the average effect on every metric, by every breakdown: `Fit.ate` of each, as `table` does.

        Breakdowns of one metric differ in their average, as another breakdown draws the segments' effects together.
        """
        return self.stack_tables(lambda _, fit: fit.ate(scale, ci_prob))

    def decide(self, rule: Rule | None = None) -> pd.DataFrame:
        """Decide for every segment and arm of every breakdown, over goals and guardrails together.

        Shipped is what at least one goal says ship to and none says stop to, and where every guardrail's harm is below
        its margin with the probability of the rule. A guardrail that is broken stops the change, whatever it gains. Of
        several arms that may be shipped to a segment it gets the one that gains most: in money over all goals where
        each has a value, else by the first goal.

        Parameters
        ----------
        rule : Rule, optional
            By default the plan's ``[decision]``, else `hte.Rule()`. The smallest effect that matters and the value of
            a unit are each metric's own, where the rule does not state them.

        Returns
        -------
        pandas.DataFrame
            A row per breakdown, segment, arm and goal: metric, breakdown, segment, arm, decision and why (of all
            metrics together, the same in the rows of each goal), the numbers of `Fit.decide` of the goal (p_wrong only
            where the goal alone says the same), p_guardrail (the least probability of a guardrail that its harm is
            below its margin), registered (only if every metric by this breakdown was, and none that was registered is
            left out), reliable.

        Raises
        ------
        ArgumentError, PlanError
            As `Fit.decide`.

        Notes
        -----
        Where a guardrail could not be fitted nothing is shipped; `why` says so. Breakdowns are decided one by one, and
        may disagree about a unit that is in segments of several: a crossed breakdown says more than its parts.
        """
        return decide_questions(self.plan, self.fits, self.registered, rule, failed=self.failed, dropped=self.dropped)

    def stack_tables(self, tabulate: Callable[[QuestionKey, Fit], pd.DataFrame]) -> pd.DataFrame:
        """Put the tables that a function makes of every fit one under the other.

        Parameters
        ----------
        tabulate : callable
            Makes a table of a question and its fit; its columns of dimensions become the column segment.
        """
        tables = []
        # Registration knows every question, in the order of the plan, those that failed included.
        for key in self.registered:
            if key in self.failed:
                failed_table = pd.DataFrame({"problem": [self.failed[key]], "reliable": [False]})
                tables.append(self._label_rows(failed_table, key))
                continue
            fit = self.fits[key]
            problem_text = " ".join(fit.diagnosis.problems)
            labelled = join_dimensions(tabulate(key, fit), fit).assign(problem=problem_text)
            tables.append(self._label_rows(labelled, key))
        # A column that one of the tables lacks is missing there; a column of all is as it was.
        order = list(dict.fromkeys(name for table in tables for name in table.columns if name not in LAST_COLUMNS))
        return pd.concat(tables, ignore_index=True)[[*order, *LAST_COLUMNS]].infer_objects()

    def _label_rows(self, table: pd.DataFrame, key: QuestionKey) -> pd.DataFrame:
        labelled = table.assign(registered=bool(self.registered[key]))
        labelled.attrs = {}  # pandas compares attributes when it joins tables, and these differ
        labelled.insert(0, "metric", key[0])
        labelled.insert(1, "breakdown", name_breakdown(key[1]))
        return labelled

    def report(self, path: str | Path) -> Path:
        """Write the report of all questions: one self-contained HTML file.

        Raises
        ------
        ArgumentError
            If the name has the ending of another kind of file, such as .pdf.
        OutputError
            If the file cannot be written; nothing is left behind.
        """
        from bayes_hte.analysis.plans.write_analysis import write_report

        return write_report(self, path)

    def save(self, folder: str | Path) -> Path:
        """Save the analysis as a folder: every fit as a netCDF file, and what ties them together as ``analysis.json``.

        Parameters
        ----------
        folder : str or Path
            Made if it does not exist; files of an earlier analysis in it are replaced.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        from bayes_hte.analysis.plans.write_analysis import save_analysis

        return save_analysis(self, check_path(folder, "the folder"))

    def __repr__(self) -> str:
        """Count the questions, and say how many were registered."""
        counts = [write_count(len(self.fits), "fit", "fits")]
        if self.failed:
            counts.append(f"{len(self.failed)} failed")
        # Said before anything else is read: a number in a table has no warning beside it.
        unreliable = sum(not fit.diagnosis.ok for fit in self.fits.values())
        if unreliable:
            counts.append(f"{unreliable} not reliable")
        registered_count = sum(map(bool, self.registered.values()))
        counts.append(f"{registered_count} of {len(self.registered)} registered")
        return f"<Analysis: {shorten_text(self.plan.title)}; {', '.join(counts)}>"

    def _repr_html_(self) -> str:
        """Write the average effects of all questions, and why some failed, as HTML for notebooks."""
        failed_items = "".join(
            f"<li>{html.escape(title_question(key))}: {html.escape(reason)}</li>" for key, reason in self.failed.items()
        )
        failed_list = f"<p>Could not be fitted:</p><ul>{failed_items}</ul>" if failed_items else ""
        average_table = self.ate().drop(columns="problem")
        table_html = average_table.to_html(index=False, max_rows=60, escape=True, float_format=lambda x: f"{x:.4g}")
        return f"<p><b>{html.escape(repr(self))}</b></p>{failed_list}{table_html}"


LAST_COLUMNS = ("registered", "problem", "reliable")
"""Columns that every stacked table ends with."""


def join_dimensions(table: pd.DataFrame, fit: Fit) -> pd.DataFrame:
    """Join the levels of a fit's own dimensions in one column, segment: fits of other breakdowns have other ones."""
    dimensions = [name for name in list_dimensions(fit.cells) if name in table.columns]
    if not dimensions:
        return table.copy()
    # The label of a segment in the cells: levels joined by the same separator.
    joined = table.drop(columns=dimensions)
    joined.insert(0, "segment", table[dimensions].astype(str).agg(LEVEL_SEPARATOR.join, axis=1))
    return joined
