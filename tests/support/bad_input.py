"""What can be wrong with an experiment's data, one case each: docs/bad-input.md shows what is then said.

Every case runs in a folder of its own, so that files have relative names.
"""

import contextlib
import html
import re
import sqlite3
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from example_plans import GOAL, GUARDRAIL, SPENT, make_plan, write_plan

import bayes_hte as hte
from bayes_hte.analysis.plan_proposal.init_plan import init_plan
from bayes_hte.cells import (
    DataSource,
    Histogram,
    Mean,
    Rate,
    check,
    from_estimates,
    from_levels,
    from_rows,
    from_summary,
    from_table,
    from_times,
    from_wide,
    merge,
    protect,
    split,
    with_covariates,
    with_shares,
)
from bayes_hte.decisions.rules.guardrails import GoalMetric, GuardrailMetric, decide_with_guardrails
from bayes_hte.errors import HteError
from bayes_hte.spec.rule import settle_matters


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is wrong."""

    what: str
    run: Callable[[], object]
    found: str  # what the message must name: what was found
    way: str = ""  # how the way out begins, where it is not what follows the last semicolon
    unhelpful: str = ""  # why the message names no way out yet


@cache
def raised(case: Case) -> HteError:
    """What is raised, found out once for the page and for all tests of a case.

    Raises
    ------
    AssertionError
        If nothing is.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            case.run()
        except HteError as error:
            # A path that is looked for is named in full: the page must not hang on where it is made.
            error.args = (str(error).replace(str(Path(folder).resolve()), "…"),)
            return error.with_traceback(None)
    raise AssertionError(f"nothing is wrong with: {case.what}")


def message(case: Case) -> str:
    """What is said."""
    return str(raised(case))


def parts(case: Case) -> tuple[str, str]:
    """What is wrong, and the way out: what follows the last semicolon, but where the case says how it begins."""
    text = message(case)
    if case.unhelpful:
        return text, ""
    said, _, way = text.rpartition("; ")
    if case.way:
        at = text.index(case.way)
        said, way = text[:at].rstrip(";:. "), text[at:]
    return said, way


def units(**changes: Any) -> pd.DataFrame:
    """Sixteen users, two devices, two arms."""
    columns = {
        "device": ["mobile"] * 8 + ["tv"] * 8,
        "arm": ["old", "old", "new", "new"] * 4,
        "spent": [1.0, 3.0, 4.0, 8.0, 0.0, 2.0, 1.0, 5.0] * 2,
        "age": [20, 31, 42, 53, 24, 35, 46, 57] * 2,
        "hours": [1.0, 2.0] * 8,
        "user": range(16),
        "village": [0, 0, 1, 1] * 4,
    }
    return pd.DataFrame(columns | changes)


def rows(data: Any = None, **asked: Any) -> Callable[[], object]:
    keys: dict[str, Any] = {"outcome": "spent", "arm": "arm", "control": "old", "segments": ["device"]}
    return lambda: from_rows(units() if data is None else data, **(keys | asked))


def file(name: str, content: bytes, **asked: Any) -> Callable[[], object]:
    def run() -> object:
        Path(name).write_bytes(content)
        return rows(name, **asked)()

    return run


def write_workbook(name: str, sheets: dict[str, pd.DataFrame]) -> str:
    """Write an .xlsx file with nothing but the standard library: text inline, numbers, booleans and dates as such."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    numbers = range(1, len(sheets) + 1)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        f'<Override PartName="/xl/styles.xml" ContentType="{kind}.styles+xml"/>'
        + "".join(
            f'<Override PartName="/xl/worksheets/sheet{i}.xml" ContentType="{kind}.worksheet+xml"/>' for i in numbers
        )
        + "</Types>",
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r1" Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        + "".join(
            f'<sheet name="{sheet}" sheetId="{i}" r:id="r{i}"/>' for i, sheet in zip(numbers, sheets, strict=True)
        )
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        + "".join(
            f'<Relationship Id="r{i}" Type="{office}/worksheet" Target="worksheets/sheet{i}.xml"/>' for i in numbers
        )
        + f'<Relationship Id="s" Type="{office}/styles" Target="styles.xml"/></Relationships>',
        # Style 1 is a date: format 14 of the standard.
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs>'
        "</styleSheet>",
    }
    for i, table in zip(numbers, sheets.values(), strict=True):
        lines = [list(table.columns), *table.itertuples(index=False)] if len(table.columns) else []
        rows = "".join(f"<row>{''.join(map(_write_sheet_cell, line))}</row>" for line in lines)
        parts[f"xl/worksheets/sheet{i}.xml"] = f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'
    with zipfile.ZipFile(name, "w") as archive:
        for part, text in parts.items():
            archive.writestr(part, f'<?xml version="1.0" encoding="UTF-8"?>{text}')
    return name


def _write_sheet_cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return "<c/>"
    if isinstance(value, bool | np.bool_):
        return f'<c t="b"><v>{int(value)}</v></c>'
    if isinstance(value, date):
        return f'<c s="1"><v>{(value - date(1899, 12, 30)).days}</v></c>'
    if isinstance(value, int | float | np.number):
        return f"<c><v>{float(value)!r}</v></c>"
    return f'<c t="inlineStr"><is><t xml:space="preserve">{html.escape(str(value))}</t></is></c>'


def rows_of(**options: Any) -> Callable[[], object]:
    def run() -> object:
        Path("rows.csv").write_bytes(HEADER + b"tv,old,1\ntv,new,2\n")
        return rows(DataSource("rows.csv", **options))()

    return run


def folder_case() -> object:
    Path("rows").mkdir()
    return rows("rows")()


def database(**options: Any) -> Callable[[], object]:
    def run() -> object:
        with contextlib.closing(sqlite3.connect("shop.db")) as connection:
            connection.executescript("create table visits (device, arm, spent); create table users (device)")
        return rows(DataSource("shop.db", **options))()

    return run


def without_workbooks() -> object:
    write_workbook("rows.xlsx", {"rows": units()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "python_calamine", None)
        return rows("rows.xlsx")()


def several_files() -> object:
    Path("day-1.csv").write_bytes(HEADER + b"tv,old,1\ntv,new,2\n")
    Path("day-2.csv").write_bytes(b"device,arm\ntv,old\n")
    return rows("day-*.csv")()


def sessions() -> object:
    """Days of an experiment in which households came back."""
    table = units(date=pd.to_datetime(["2026-03-01", "2026-03-02"] * 8), household=np.repeat(np.arange(8), 2))
    daily = rows(table, segments=["date", "device"], bins={"date": "day"}, cluster="household")()
    return merge(*split(daily, "date").values())  # type: ignore[arg-type]


def sums(control: str = "old", **columns: Any) -> Callable[[], object]:
    """A summary: two devices, two arms."""
    known = {name: name for name in columns if name in {"n", "events", "mean", "sd", "se", "exposure"}}
    table = {"device": ["mobile", "mobile", "tv", "tv"], "arm": ["old", "new"] * 2, **columns}
    return lambda: from_summary(pd.DataFrame(table), arm="arm", control=control, segments=["device"], **known)


def times(**changes: Any) -> Callable[[], object]:
    asked = {name: changes.pop(name) for name in ("breaks", "horizon") if name in changes}
    table = units(days=[3.0, 4.0, 5.0, 6.0] * 4, died=[0, 1, 1, 0] * 4).assign(**changes)
    return lambda: from_times(table, time="days", event="died", arm="arm", control="old", segments=["device"], **asked)


def effects(**asked: Any) -> Callable[[], object]:
    table = pd.DataFrame({"trial": ["A", "B"], "effect": [0.5, 0.1], "se": [0.2, 0.1], "arm": ["x", "y"]})
    if isinstance(asked.get("se"), list):
        table, asked["se"] = table.assign(se=asked["se"]), "se"
    return lambda: from_estimates(table, **{"segments": ["trial"], "estimate": "effect", **asked})


def stars(**changes: Any) -> Callable[[], object]:
    table = pd.DataFrame({"device": "tv", "arm": ["old", "old", "new"], "stars": [1, 5, 3], "users": [4, 6, 5]})
    return lambda: from_levels(
        table.assign(**changes), arm="arm", control="old", segments=["device"], value="stars", count="users"
    )


def cells(**asked: Any) -> xr.Dataset:
    found = rows(**asked)()
    assert isinstance(found, xr.Dataset)
    return found


def known(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"device": ["mobile", "tv"], **columns})


def plan(text: str) -> Callable[[], object]:
    def run() -> object:
        Path("plan.toml").write_text(text, encoding="utf-8")
        return hte.read_plan("plan.toml")

    return run


def several(**changes: Any) -> Callable[[], object]:
    return lambda: make_plan(**changes)


def several_run(**changes: Any) -> Callable[[], object]:
    return lambda: hte.run(write_plan(Path(), **changes))


def locked(was: str = "", now: str = "", **changes: Any) -> Callable[[], object]:
    def run() -> object:
        lock = hte.register(write_plan(Path()))
        # The page must not hang on the day on which it is made.
        text = re.sub("registered_on = .*", "registered_on = 2026-03-01T09:30:00Z", lock.read_text("utf-8"))
        lock.write_text(text.replace(was, now, 1), encoding="utf-8")
        # What is said of the lock itself is what a run meets; of a changed plan, what registering it again does.
        plan_file = write_plan(Path(), **changes)
        return hte.run(plan_file) if was else hte.register(plan_file)

    return run


def ruled(decision: str, report: str = "") -> Callable[[], object]:
    """A plan with a rule, and lines for its report."""
    return plan(
        'title = "x"\nmodel = "conversion"\n[data]\noutcome = "y"\narm = "arm"\ncontrol = "old"\n'
        f'segments = ["device"]\n[report]\n{report}\n[decision]\n{decision}\n'
    )


def decide_metrics(goals: int = 1, margin: float = 0.001, *, is_smaller: bool = False) -> Callable[[], object]:
    """Decide over a goal and a guardrail, of one segment where it is the smaller one."""

    def run() -> object:
        fit = hte.example_fit()
        goal = GoalMetric("bought", fit.tree, fit.question(), settle_matters(hte.Rule(), None))
        guarded = hte.fit(fit.cells.isel(segment=[0]), "conversion", sampler="exact") if is_smaller else fit
        guardrail = GuardrailMetric("returned", guarded.tree, guarded.question(), margin)
        return decide_with_guardrails([goal] * goals, [guardrail])

    return run


def init_twice() -> object:
    Path("plan.toml").write_text("", encoding="utf-8")
    return init_plan(None, Path("plan.toml"))


HEADER = b"device,arm,spent\n"


def simulate(segments: Any = "tv and pc", **options: Any) -> Callable[[], object]:
    """Simulate an experiment on two devices, unless other segments are given."""
    population = {"device": {"tv": 0.5, "pc": 0.5}} if isinstance(segments, str) else segments
    return lambda: hte.simulate(population, **options)


CASES: dict[str, tuple[Case, ...]] = {
    "Files": (
        Case("a file that is not there", rows("rows.csv"), "'rows.csv'"),
        Case("a file of another kind", rows("rows.json"), "'rows.json'"),
        Case("an address in place of a path", rows("https://example.org/rows.csv"), "an address"),
        Case("a folder without files", folder_case, "'rows'"),
        Case("a database with several tables, none named", database(), "several tables"),
        Case("a table that the database lacks", database(table="visit"), "'visit'"),
        Case("a query that does not only read", database(query="delete from visits"), "one SELECT"),
        Case("two queries in one", database(query="select 1; select 2"), "one SELECT"),
        Case("a query of a text file", rows_of(query="select 1"), "query chooses rows", way="leave it out here"),
        Case("an encoding that there is not", rows_of(encoding="klingon"), "'klingon'"),
        Case("a workbook without the extra", without_workbooks, "rows.xlsx", way="pip install"),
        Case("a connection whose variable is not set",
             rows(DataSource(connection="BAYES_HTE_UNSET", table="visits")), "BAYES_HTE_UNSET"),
        Case("a URL in place of the variable that holds it",
             lambda: DataSource(connection="postgresql://ann:secret@db/shop", table="visits"), "the URL itself",
             way="such as WAREHOUSE_URL"),
        Case("a URL with a password in a plan",
             plan('title = "postgresql://ann:secret@db/shop"'), "a URL with a password",
             way="put it into an environment variable"),
        Case("an empty file", file("rows.csv", b""), "0 bytes"),
        Case("a header and nothing else", file("rows.csv", HEADER), "no rows"),
        Case("a text file that is not UTF-8", file("rows.csv", HEADER + b"t\xe9l\xe9,old,1\ntv,new,2\n"), "rows.csv"),
        Case("a line with too many fields", file("rows.csv", HEADER + b"tv,old,1\n" * 3 + b"tv,new,1,2\n"), "line 5"),
        Case("a word far down in a column of numbers",
             file("rows.csv", HEADER + b"tv,old,1\n" * 30_000 + b"tv,new,?\n"), "row 30,001"),
        Case("two columns of one name in a file", file("rows.csv", b"device,arm,spent,spent\ntv,old,1,2\n"), "'spent'"),
        Case("columns that differ in case alone", file("rows.csv", b"device,arm,Spent,spent\ntv,old,1,2\n"), "case"),
        Case("one of several files lacks a column", several_files, "day-2.csv"),
        Case("no table", rows([1, 2, 3]), "builtins.list"),
    ),
    "Columns": (
        Case("a misspelt column", rows(outcome="spend"), "'spend'", "did you mean"),
        Case("a column for two things", rows(outcome="arm"), "'arm'"),
        Case("a dimension that is a covariate, too", rows(segments=["age"], cuped="age"), "'age'"),
        Case("two columns of one name", rows(units().set_axis([*"abcdeff"], axis=1)), "'f'"),
        Case("a dimension named like a result", rows(units().rename(columns={"device": "effect"}), segments=["effect"]),
             "'effect'"),
        Case("no dimension", rows(segments=[]), "empty"),
        Case("nothing said of the dimensions", rows(segments=None), "None"),
        Case("a NUL character in a level", rows(units(device=["mobile", "t\0v"] * 8)), "NUL"),
        Case("an id as a dimension", rows(segments=["user"]), "16 levels"),
        Case("lists in a dimension", rows(units(device=[["a"]] * 16)), "'device'"),
    ),
    "Outcomes and other numbers": (
        Case("text as the outcome", rows(units(spent="much")), "'spent'"),
        Case("the words NA and n/a among numbers", file("rows.csv", HEADER + b"tv,old,1\ntv,new,n/a\ntv,old,NA\n"),
             "2 of 3"),
        Case("missing and infinite outcomes", rows(units(spent=[np.nan, np.inf] + [1.0, 2.0] * 7)), "1 of 16"),
        Case("nothing but missing outcomes", rows(units(spent=np.nan), drop_missing=True), "16 of 16"),
        Case("no event at all", rows(units(spent=0)), "'spent'"),
        Case("an outcome that never varies", rows(units(spent=3.5)), "3.5"),
        Case("no variation within the arms of an adjusted mean",
             rows(units(spent=[1.0, 1.0, 2.0, 2.0] * 4), weights="hours"), "does not vary"),
        Case("negative weights", rows(units(hours=-1.0), weights="hours"), "16 weights"),
        Case("weights that add up to 0", rows(units(hours=0.0), weights="hours"), "4 cells"),
        Case("a denominator of 0", rows(units(hours=0.0), denominator="hours"), "'mobile'"),
        Case("negative exposure", rows(units(hours=-1.0), exposure="hours"), "16 exposures"),
        Case("fractions of events", rows(units(spent=0.5), exposure="hours"), "16 outcomes"),
        Case("too many values for a histogram",
             rows(pd.concat([units()] * 100).assign(spent=lambda x: np.arange(len(x)) / 7), metric="histogram"),
             "1,600 values"),
        Case("a 1e308 that stands for a missing value", rows(units(spent=[1e308, 1.0] + [1.0, 2.0] * 7)), "'mobile'"),
        Case("the same in a covariate", rows(units(age=[1e308, 1.0] + [1.0, 2.0] * 7), cuped="age"), "'mobile'"),
        Case("an outcome in two parts that is negative", rows(units(spent=[-2.0, 1.0] * 8), metric="two_part"), "-2"),
        Case("an outcome in two parts that is never 0", rows(units(spent=[2.0, 1.0] * 8), metric="two_part"), "is 0"),
    ),
    "Arms": (
        Case("a control that is not there", rows(control="odl"), "'odl'"),
        Case("one arm", rows(units(arm="old")), "'old'"),
        Case("rows without an arm", rows(units(arm=["old", "new", None, "new"] * 4)), "4 rows"),
    ),
    "Options": (
        Case("an unknown metric", rows(metric="median"), "'median'"),
        Case("exposure with a histogram", rows(exposure="hours", metric="histogram"), "'histogram'"),
        Case("exposure with clusters", rows(exposure="hours", cluster="village"), "cluster"),
        Case("exposure with a cap", rows(exposure="hours", cap=3), "cap"),
        Case("a histogram with weights", rows(metric="histogram", weights="hours"), "weights"),
        Case("a cap and a quantile", rows(cap=3, cap_quantile=0.9), "both"),
        Case("a cap below its lower bound", rows(cap=(3, 1)), "(3, 1)"),
        Case("a cap in words", rows(cap="3"), "'3'"),
        Case("a cap below all outcomes", rows(cap=-1), "at most -1"),
        Case("a quantile that hides the few who pay",
             rows(units(spent=[50.0] + [0.0] * 15), cap_quantile=0.9), "at most 0"),
        Case("a quantile in per cent", rows(cap_quantile=99), "99"),
        Case("a covariate twice", rows(cuped=["age", "age"]), "'age'"),
        Case("an outcome beside a metric", rows(metric=Mean("spent")), "outcome", "write metric"),
        Case("a metric without a column", lambda: Mean(None), "None"),  # type: ignore[arg-type]
        Case("a Rate of clusters", rows(outcome=None, metric=Rate("spent", exposure="hours"), cluster="village"),
             "cluster"),
        Case("a Histogram with weights", rows(outcome=None, metric=Histogram("spent"), weights="hours"), "weights"),
    ),
    "Bins and rare levels": (
        Case("bins of text", rows(bins={"device": 4}), "'device'"),
        Case("bins of what is no dimension", rows(bins={"age": [40]}), "'age'"),
        Case("bins without a dimension", rows(bins=4), "bins are 4"),
        Case("cuts that do not ascend", rows(segments=["age"], bins={"age": [40, 20]}), "[40.0, 20.0]"),
        Case("too many bins", rows(segments=["age"], bins={"age": 1000}), "1000"),
        Case("quantiles where nearly all units are alike",
             rows(units(age=[0] * 15 + [1]), segments=["age"], bins={"age": 4}), "value 0"),
        Case("a period of numbers", rows(segments=["age"], bins={"age": "week"}), "Int64"),
        Case("an unknown period", rows(segments=["age"], bins={"age": "hour"}), "'hour'"),
        Case("rare levels of what is no dimension", rows(rare={"country": 10}), "'country'"),
        Case("rare levels of fewer than 2 rows", rows(rare=1), "rare is 1"),
    ),
    "Times until an event": (
        Case("an event that is neither 0 nor 1", times(died=2), "16 values"),
        Case("a time of 0", times(days=0.0), "16 times"),
        Case("no event", times(died=0), "'died'"),
        Case("breaks that do not ascend", times(breaks=[4, 2]), "4, 2"),
        Case("a break after the last time", times(breaks=[30]), "30"),
        Case("a horizon after the last time", times(horizon=30), "30"),
    ),
    "Summaries": (
        Case("numbers that make no form", sums(n=10, mean=1.0), "mean='mean'"),
        Case("more events than units", sums(n=10, events=[1, 2, 30, 4]), "'tv'"),
        Case("a fraction of a unit", sums(n=[10.5, 9, 9, 9], events=1), "'mobile'"),
        Case("the same cell in two rows", sums(n=10, events=[1, 2, 3, 4], device="tv"), "rows 1 and 3"),
        Case("text among the numbers", sums(n=["ten", 9, 9, 9], events=1), "'ten'"),
        Case("a standard error of 0", sums(mean=1.0, se=[0.1, 0.0, 0.1, 0.1]), "'mobile'"),
        Case("a control that is not in the summary", sums("odl", n=10, events=[1, 2, 3, 4]), "'odl'"),
        Case("arms described differently",
             lambda: from_wide(known(a=1, b=2, c=3), segments=["device"], control="old",
                               arms={"old": {"n": "a", "events": "b"}, "new": {"n": "c"}}), "'events'"),
        Case("a table that could be anything", lambda: from_table(known(x=[1, 2], y=[3, 4])), "'x'", "Name them"),
    ),
    "Units by value": (
        Case("a fraction of a unit at a value", stars(users=[4.5, 6, 5]), "'tv'"),
        Case("the same value twice", stars(stars=[1, 1, 3]), "value 1"),
        Case("one value only", stars(stars=[3, 3, 3], device=["tv", "web", "tv"]), "3 for every unit"),
    ),
    "Published estimates": (
        Case("no standard errors", effects(), "uncertainty", "name the column"),
        Case("a standard error that is not positive", effects(se=[0.2, -0.1]), "'B'"),
        Case("a standard error that nothing can have", effects(se=[0.2, 1e-200]), "'B'"),
        Case("a covariance of another size", effects(covariance=np.eye(3)), "(3, 3)"),
        Case("a covariance that is not symmetric", effects(covariance=[[1.0, 0.5], [0.1, 1.0]]), "'A'"),
        Case("a covariance of several arms", effects(covariance=np.eye(2), arm="arm"), "one arm"),
    ),
    "Cells": (
        Case("different outcomes merged", lambda: merge(cells(), cells(outcome="hours")), "'hours'"),
        Case("different caps merged", lambda: merge(cells(cap=4), cells(cap=6)), "at most 6"),
        Case("different adjustments merged", lambda: merge(cells(cuped="age"), cells(cuped="hours", weights="age")),
             "CUPED: age"),
        Case("means with standard errors merged",
             lambda: merge(*[sums(mean=[1.0, 2, 3, 4], se=0.1)()] * 2), "means", "Make the cells"),
        Case("nothing to merge", merge, "nothing"),
        Case("rows in place of cells", lambda: check(units()), "pandas.DataFrame"),
        Case("days merged on which the same clusters came back", sessions, "'date'"),
        Case("tables to merge in a list", lambda: merge([cells(), cells()]), "a list", "write"),
        Case("a split by what is no dimension", lambda: split(cells(), "day"), "'day'"),
        Case("a split by the only dimension", lambda: split(cells(), "device"), "'device'"),
        Case("a day too small for a standard error",
             lambda: split(cells(data=units(day=["1"] * 4 + ["2"] * 12, device=["mobile", "tv"] * 8).drop(index=[0, 2]),
                                 segments=["day", "device"], weights="hours"), "day"), "day 1",
             "check the outcome"),
        Case("protection of all cells", lambda: protect(cells(), 100), "2 segments"),
        Case("protection below 2 units", lambda: protect(cells(), 1), "min_units is 1"),
        Case("protection of cells without numbers of units", lambda: protect(effects(se="se")(), 10), "not known"),
        Case("estimates protected by merging",
             lambda: protect(from_estimates(known(y=[1.0, 2.0], s=0.1, n=[90, 3]), segments=["device"], estimate="y",
                                            se="s", n="n"), 10, "merge"), "estimates"),
        Case("a covariate of one segment missing",
             lambda: with_covariates(cells(), known(size=[1, 2])[:1], ["size"]), "'tv'"),
        Case("a covariate that is the same everywhere", lambda: with_covariates(cells(), known(size=1), ["size"]),
             "'size'"),
        Case("planned shares of other arms", lambda: with_shares(cells(), {"old": 1, "newer": 1}), "'newer'"),
        Case("planned shares of some arms only", lambda: check(cells(), {"old": 1}), "'new'"),
    ),
    "Policies": (
        Case("shares of a population that do not add up to 1",
             lambda: hte.example_fit().policy(population={"device": {"mobile": 0.5, "desktop": 0.3, "tablet": 0.1}}),
             "0.9", "divide"),
        Case("a population that lacks a segment",
             lambda: hte.example_fit().policy(population={"mobile · new": 0.5, "desktop · new": 0.5}),
             "'mobile · returning'"),
        Case("a population with a segment that is not there",
             lambda: hte.example_fit().policy(population={"device": {"phone": 1.0}}), "'phone'"),
        Case("a population with a negative share",
             lambda: hte.example_fit().policy(population={"customer": {"new": 1.2, "returning": -0.2}}), "-0.2"),
        Case("a table of a population without shares",
             lambda: hte.example_fit().policy(population=pd.DataFrame({"device": ["mobile"], "n": [90]})), "'n'"),
        Case("a budget in percent", lambda: hte.example_fit().policy(budget=30), "30", "such as"),
        Case("a policy by a dimension that is not there", lambda: hte.example_fit().policy(by="country"), "'country'"),
        Case("costs of some arms only", lambda: hte.example_fit().policy(costs={"long": 0.1}), "'long'"),
        Case("probabilities in place of a rule", lambda: hte.example_fit().policy(0.95), "0.95"),
    ),
    "Plans with several questions": (
        Case("a guardrail without a direction", several(metrics=[GOAL, {**GUARDRAIL, "higher_is_better": None}]),
             "'returns' lacks its direction", "say"),
        Case("a guardrail without a margin", several(metrics=[GOAL, {**GUARDRAIL, "margin": None}]),
             "'returns' lacks its margin", "say"),
        Case("a goal with a margin", several(metrics=[{**GOAL, "margin": 0.1}]), "'bought' has a margin", "say"),
        Case("goals that want opposite things",
             several(metrics=[GOAL, {**GOAL, "name": "b", "higher_is_better": False}]), "'bought' and 'b' disagree"),
        Case("a cost of two goals without a value",
             several(metrics=[{**GOAL, "value": None}, SPENT], decision={"cost": 0.1}), "2 goals", "say value"),
        Case("guardrails without a goal", several(metrics=[GUARDRAIL, {**GUARDRAIL, "name": "b"}]), "every metric"),
        Case("two metrics of one name", several(metrics=[GOAL, GOAL]), "'bought'"),
        Case("metrics of data that are no rows",
             several(data={"form": "summary", "arm": "arm", "control": "old", "n": "n", "events": "events"}),
             '"summary"', "write"),
        Case("a breakdown twice", several(breakdowns=[["a", "b"], ["b", "a"]]), "'b × a'"),
        Case("a dimension twice in a breakdown", several(breakdowns=[["a", "a"]]), "'a' twice"),
        Case("cuts of what is in no breakdown", several(metrics=[{**GOAL, "bins": {"age": 4}}]), "'age'"),
        Case("a rule about a size that nobody states",
             several(metrics=[{**GOAL, "matters": None}], decision={"ship": [{"above": "matters", "p": 0.9}]}), "ship",
             "add"),
        Case("a dimension that the data lack", several_run(breakdowns=[["devise"]]), "'devise'", "did you mean"),
        Case("a plan registered twice", locked(), "nothing differs", "`register --force`"),
        Case("a plan registered and changed", locked(report={"ci_prob": 0.9}), "report.ci_prob: 0.95 → 0.9",
             "`register --force`"),
        Case("the lock of another plan", locked('"plan.toml"', '"other.toml"'), "other.toml", "register"),
        Case("a lock changed by hand", locked("looks = 1", "looks = 9"), "looks", "restore"),
    ),
    "Second tests": (
        Case("two tests of other outcomes",
             lambda: hte.combine(hte.example_fit(), hte.fit(hte.example_cells().assign_attrs(outcome="sold"),
                                                            "conversion")), "sold"),
        Case("cells in place of a fit", lambda: hte.combine(hte.example_fit(), hte.example_cells()), "two fits"),
        Case("two tests of one name",
             lambda: hte.combine(hte.example_fit(), hte.example_fit(), names=("a", "a")), "('a', 'a')"),
        Case("no SD between tests",
             lambda: hte.combine(hte.example_fit(), hte.example_fit(), between_tests=0), "above 0"),
        Case("a model that tests cannot be added to",
             lambda: hte.combine(hte.example_fit(), hte.example_fit(), model=hte.read_model("conversion-outliers")),
             "student_t"),
        Case("a comparison of one test", lambda: hte.example_fit().compare_tests(), "of one test"),
        Case("a second test of nobody", lambda: hte.example_fit().replication(n=0), "n is 0"),
        Case("a second test of some segments", lambda: hte.example_fit().replication(n={"mobile · new": 900}),
             "one number for each"),
        Case("an assurance in percent", lambda: hte.example_fit().next_test(80), "80"),
        Case("a follow-up of nobody", lambda: hte.example_fit().next_test(n=0), "n is 0"),
    ),
    "Plans": (
        Case("a plan that is not there", lambda: hte.read_plan("plan.toml"), "plan.toml"),
        Case("init where there is a plan already", init_twice, "plan.toml"),
        Case("what init could not find, left blank", plan(
            'title = "x"\nmodel = "metric"\n[data]\noutcome = ""\narm = "arm"\ncontrol = "old"\nsegments = ["tv"]\n'
        ), "data.outcome", "should hold"),
        Case("a misspelt key", plan('title = "x"\nmodle = "conversion"\n'), "modle"),
        Case("a number for a column of a plan", plan(
            'title = "x"\nmodel = "conversion"\n[data]\noutcome = "y"\narm = "arm"\ncontrol = "old"\nsegments = 7\n'
        ), "not 7", "should be"),
    ),
    "Rules and decisions": (
        Case("ship and stop that can both hold", ruled("ship = [{ above = -0.1, p = 0.9 }]"), "both hold", "let stop"),
        Case("a smallest effect below 0, or a ROPE upside down", ruled("matters = -0.002"), "-0.002", "should be"),
        Case("a width of what is equivalent below 0", ruled("equivalent = { within = -0.1, p = 0.9 }"), "-0.1",
             "should be"),
        Case("a probability outside 0 to 1", ruled("ship = [{ above = 0.0, p = 95 }]"), "not 95", "should be"),
        Case("an action that is less probable than not", ruled("stop = [{ below = 0.0, p = 0.2 }]"), "not 0.2",
             "should be"),
        Case("a condition of stopping under ship", ruled("ship = [{ below = 0.0, p = 0.9 }]"),
             "'decision.ship, entry 1.below'", "Known keys"),
        Case("a pair that is no list of conditions", lambda: hte.Rule(ship=(0.0, 0.95)), "0.95", "should be"),
        Case("a threshold in words of one's own", ruled('ship = [{ above = "much", p = 0.9 }]'), '"much"', "should be"),
        Case("a size that matters without its number", ruled('ship = [{ above = "matters", p = 0.9 }]'),
             "none is stated", "add matters"),
        Case("two smallest effects that matter", ruled("matters = 0.002", "rope = 0.01"), "0.01 and as 0.002"),
        Case("two probabilities for a sign", ruled("stop = [{ below = 0.0, p = 0.9 }]", "call_prob = 0.99"), "0.99",
             "so state one"),
        Case("a guardrail without a probability", ruled("guardrail = {}"), "guardrail.p", "the key"),
        Case("a cost below 0 without a value in money", ruled("cost = -2.0"), "-2"),
        Case("a number in place of a rule", lambda: hte.example_fit().decide(0.95), "0.95"),  # type: ignore[arg-type]
        Case("a decision without a goal", decide_metrics(goals=0), "a goal", "a metric"),
        Case("a margin below 0", decide_metrics(margin=-0.1), "-0.1", "0 or more"),
        Case("a guardrail in other segments", decide_metrics(is_smaller=True), "'returned'",
             "make the cells"),
    ),
    "Simulated experiments": (
        Case("shares that do not add up", simulate({"device": {"tv": 0.6, "pc": 0.6}}), "1.2"),
        Case("shares of arms that do not add up", simulate(arms={"old": 0.5, "new": 0.6}), "1.1"),
        Case("shares of days that do not add up", simulate(days=[0.5, 0.6]), "1.1"),
        Case("a share of 0", simulate({"device": {"tv": 0, "pc": 1}}), "'tv'"),
        Case("no segment to simulate", simulate(0), "segments=0"),
        Case("more segments than a table holds", simulate(10**30), "1,000,000 can be simulated"),
        Case("neither segments nor a past", simulate(None), "neither segments"),
        Case("a past that is none", simulate(None, like=3), "like is 3"),
        Case("a dimension that is not there", simulate(effect={"plan": {"free": 0.1, "paid": 0.2}}), "'plan'"),
        Case("an effect that lacks a level", simulate(effect={"tv": 0.1}), "'pc'"),
        Case("an effect of an unknown level", simulate(effect={"tv": 0.1, "pc": 0.1, "mobile": 0.1}), "'mobile'"),
        Case("an impossible baseline", simulate(baseline=1.2), "1.2"),
        Case("a negative rate", simulate(family="poisson", baseline=-1.0), "-1"),
        Case("an effect beyond 100 %", simulate(baseline=0.4, effect=2.0, scale="relative"), "leads to 1.2"),
        Case("a loss of more than everything", simulate(family="poisson", effect=-1.5, scale="relative"), "-1.5"),
        Case("a relative effect of nothing", simulate(family="normal", effect=0.1, scale="relative"), "baseline of 0"),
        Case("a negative SD between segments", simulate(between=-0.1), "-0.1"),
        Case("a single arm", simulate(arms=["old"]), "'old'"),
        Case("nobody in a simulated experiment", simulate(n=0), "n=0"),
        Case("half a unit", simulate(n=10.5), "10.5"),
        Case("an unknown scale of simulated effects", simulate(scale="percent"), "'percent'"),
        Case("an outcome of no known family", simulate(family="gamma"), "'gamma'"),
        Case("an option that the outcome does not have", simulate(sd=2.0), "'sd'"),
        Case("an SD of 0 over units", simulate(family="normal", sd=0.0), "sd is 0"),
        Case("a chance of 1 or more", simulate(family="two_part", chance=0.9, effect=0.5), "1.156"),
        Case("breaks after the follow-up", simulate(family="piecewise_exponential", breaks=[2.0]), "[2.0]"),
        Case("a follow-up that ends before the horizon",
             simulate(family="piecewise_exponential", horizon=2.0, follow_up=1.0), "follow_up=1"),
        Case("an answer scale of one level", simulate(family="ordinal", answers=[1.0]), "fewer than two"),
        Case("counts too large for a histogram", simulate(family="negative_binomial", baseline=5000.0), "5000"),
        Case("a correlation above 1", simulate(pre_correlation=1.5), "1.5"),
        Case("a correlation within no clusters", simulate(icc=0.1), "cluster_size"),
        Case("clusters of counts", simulate(family="poisson", cluster_size=5), "families binomial"),
        Case("rows of many experiments", simulate(rows=True, experiments=3), "one experiment only"),
        Case("rows of published estimates", simulate(family="estimate", rows=True), "no units"),
        Case("days of published estimates", simulate(family="estimate", days=3), "by day"),
        Case("rows in something that is no database", simulate(connection=3), "connection is an int"),
    ),
}  # fmt: skip
