"""`init`: propose a plan for a file, try it, and write it where there is none; without a file, write a template."""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xarray as xr

from bayes_hte._support.phrases import write_count
from bayes_hte.analysis.plan_proposal.propose_plan import (
    PlanProposal,
    ProposedKey,
    choose_arm,
    list_units,
    propose_plan,
)
from bayes_hte.analysis.plan_proposal.propose_summary import MAX_SUMMARY_ROWS, propose_summary
from bayes_hte.analysis.plan_proposal.template import TEMPLATE
from bayes_hte.analysis.plan_proposal.write_plan import describe_proposal, make_comment, write_plan
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.cells.reading.column_profile import TableProfile, profile_table
from bayes_hte.cells.reading.files.data_source import STANDARD_INPUT, DataSource
from bayes_hte.cells.summaries.from_table import from_table
from bayes_hte.errors import HteError, OutputError, PlanError
from bayes_hte.model.problem import build_problem
from bayes_hte.spec import Plan, read_model
from bayes_hte.spec.files import find_model_file, validate_content


@dataclass(frozen=True, slots=True)
class InitialPlan:
    """The text of a plan, and lines for a terminal on what was guessed in it."""

    text: str
    lines: tuple[str, ...]


def init_plan(data: str | None, out: Path, *, table: str | None = None, encoding: str | None = None) -> InitialPlan:
    """Write a plan for a file, or a template.

    Parameters
    ----------
    data
        Path of a file, a folder or a pattern, or - for standard input; None for a template.
    out
        Where to write; must not be there yet.
    table, encoding
        As in `DataSource`.

    Raises
    ------
    OutputError
        If there is such a file already, or it cannot be written.
    DataError, ArgumentError
        If the data cannot be read.
    """
    # Before the data are read, which may take long.
    if out.exists():
        raise _make_taken_error(out)
    if data is None:
        initial = InitialPlan(TEMPLATE, ("a template: fill in what is empty under [data]",))
    else:
        initial = propose_initial_plan(DataSource(data, table=table, encoding=encoding), out.parent)
    try:
        # Not replaced even if somebody has written one meanwhile.
        with out.open("x", encoding="utf-8", newline="\n") as plan_file:
            plan_file.write(initial.text)
    except FileExistsError:
        raise _make_taken_error(out) from None
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    return initial


def _make_taken_error(out: Path) -> OutputError:
    return OutputError(f"there is a file {out} already, and nothing is overwritten; name another one with --out")


def propose_initial_plan(source: DataSource, folder: Path) -> InitialPlan:
    """Propose the plan of a file, for a plan in `folder`; what does not work when it is tried is said in it."""
    # Which columns hold arms and units decides what else is counted, in the same visit to the file.
    profile = profile_table(source, lambda known: (choose_arm(known), list_units(known)))
    place = _write_place(source, folder)
    column_phrase = write_count(len(profile.columns), "column", "columns")
    heading = [
        f"Proposed by bayes-hte init for {profile.table_name}: {profile.n_rows:,} rows, {column_phrase}.",
        "Nothing was compared between arms: names and levels of columns were looked at. Read every line.",
    ]
    attempts: list[tuple[PlanProposal, str]] = []
    for tried in _list_proposals(source, profile, _choose_title(source)):
        attempts.append((tried, "" if tried.blanks else _find_fault(write_plan(tried, place, heading), folder)))
        if not attempts[-1][1]:
            break
    # Where none runs, the first proposal is the fullest, and its fault the one that was in the way.
    proposal, fault = attempts[0] if attempts[-1][1] else attempts[-1]
    text = write_plan(proposal, place, [*heading, f"It does not run yet: {fault}"] if fault else heading)
    lines = describe_proposal(proposal)
    lines += [f"besides {remark}" for remark in proposal.remarks]
    lines += [f"it does not run yet: {fault}"] * bool(fault)
    return InitialPlan(text, tuple(map(make_comment, lines)))


def _choose_title(source: DataSource) -> str:
    # A person will write a better one: it only has to say which data.
    name = source.table or Path(str(source.path)).name.split(".")[0]
    return name.replace("-", " ").replace("_", " ").replace("*", "").strip() or "An experiment"


def _write_place(source: DataSource, folder: Path) -> dict[str, Any]:
    """Write the keys of [data] that say where the data are; paths are relative to the folder of the plan."""
    path = os.fspath(source.path or "")
    if path != STANDARD_INPUT and not path.startswith("~"):
        try:
            path = Path(os.path.relpath(path, folder)).as_posix()
        except ValueError:  # another drive of Windows
            path = str(Path(path).absolute())
    options = {"table": source.table, "encoding": source.encoding}
    return {"path": path} | {key: value for key, value in options.items() if value is not None}


def _list_proposals(source: DataSource, profile: TableProfile, title: str) -> Iterator[PlanProposal]:
    """List what to try, the likeliest first; rows of units with fewer and fewer dimensions."""
    # Names that leave no doubt go first, then what rows and columns look like, then rows of units.
    summary = propose_summary(profile, title)
    if profile.n_rows <= MAX_SUMMARY_ROWS:
        table = _propose_table(source, profile, title)
        if table is not None:
            yield table
    if summary is not None:
        yield summary
        return
    proposal = propose_plan(profile, title)
    yield proposal
    # Dimensions that work alone may not work crossed: a level that one arm lacks, a cell without rows.
    (segments,) = (proposed for proposed in proposal.data if proposed.key == "segments")
    for dim in segments.value if len(segments.value) > 1 else ():
        fewer = replace(segments, value=[dim], reason="the only one of the likely columns that works")
        yield replace(proposal, data=tuple(fewer if key.key == "segments" else key for key in proposal.data))


def _propose_table(source: DataSource, profile: TableProfile, title: str) -> PlanProposal | None:
    """Propose the form "table" where the names of the columns say what they hold; None where they do not."""
    try:
        cells = from_table(source)
    except HteError:
        return None
    form = ProposedKey("form", "table", "the names of its columns say what they hold")
    variables = "" if "estimate" not in cells else "estimates with their standard errors"
    model = ProposedKey(
        "model", _choose_model(cells), variables or f"the table has {', '.join(map(str, cells.data_vars))}"
    )
    remarks = tuple(f"{column.name!r} is a column of words" for column in profile.columns if not column.is_number)
    return PlanProposal(title, (model,), (form,), remarks=remarks)


def _choose_model(cells: xr.Dataset) -> str:
    """Choose a shipped model for a kind of cells."""
    by_variable: Mapping[str, str] = {
        "estimate": "published-estimates", "histogram": "ordered-scale", "exposure": "rates", "events": "conversion",
    }  # fmt: skip
    return next((model for variable, model in by_variable.items() if variable in cells), "metric")


def _find_fault(text: str, folder: Path) -> str:
    """Find why a plan does not run; "" where it does, up to the fit."""
    # The same steps as those of a run: what passes here is fitted there.
    try:
        plan: Plan = validate_content(tomllib.loads(text), Plan, PlanError, error_prefix="the plan")
        cells = from_plan(plan, folder)
        build_problem(cells, read_model(find_model_file(plan.model, folder)))
    except HteError as error:
        return str(error)
    return ""
