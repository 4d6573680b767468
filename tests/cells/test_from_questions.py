"""The cells of all questions of a plan are those that each has alone, and come from one pass over the rows."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import xarray as xr
from example_plans import GOAL, SPENT, make_plan, make_rows

from bayes_hte import DataError, Plan, PlanError
from bayes_hte.cells import from_questions as module
from bayes_hte.cells.from_plan import from_plan
from bayes_hte.cells.from_questions import from_questions
from bayes_hte.errors import HteError
from bayes_hte.spec.questions.list_questions import list_questions


def make_cells(plan: Plan, rows: Any) -> dict[Any, Any]:
    return from_questions(list_questions(plan), Path(), data=rows)


def test_the_cells_of_each_question_are_those_of_its_plan_alone() -> None:
    rows, plan = make_rows(), make_plan()
    cells = make_cells(plan, rows)
    for question in list_questions(plan):
        alone = from_plan(question.plan, Path(), data=rows)
        xr.testing.assert_allclose(cells[question.key], alone, rtol=1e-12)
        assert cells[question.key].attrs == alone.attrs


def test_one_scan_answers_for_all_metrics_that_say_the_same_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    real = module.from_rows_many

    def count(*args: Any, **options: Any) -> Any:
        asked.append((len(options["metrics"]), len(options["breakdowns"])))
        return real(*args, **options)

    monkeypatch.setattr(module, "from_rows_many", count)
    make_cells(make_plan(), make_rows())
    assert asked == [(3, 3)]
    asked.clear()
    clustered = {**SPENT, "name": "by country", "cuped": None, "cluster": "customer"}
    make_cells(make_plan(metrics=[GOAL, SPENT, clustered], breakdowns=[["device"], ["country"]]), make_rows())
    assert asked == [(2, 2), (1, 2)]


def test_a_question_that_has_no_cells_does_not_lose_the_others() -> None:
    rows = make_rows().assign(constant=1.0)
    metrics = [GOAL, {"name": "same", "outcome": "constant", "model": "metric"}]
    cells = make_cells(make_plan(metrics=metrics), rows)
    assert {key[0] for key, result in cells.items() if isinstance(result, HteError)} == {"same"}
    assert sum(isinstance(result, xr.Dataset) for result in cells.values()) == 3


@pytest.mark.parametrize(
    "changes", [{"breakdowns": [["device"], ["devise"]]}, {"metrics": [GOAL, {**SPENT, "outcome": "spend"}]}]
)
def test_a_column_that_the_data_lack_stops_everything(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"lacks the column '(devise|spend)'"):
        make_cells(make_plan(**changes), make_rows())


def test_where_no_question_has_cells_the_reason_is_the_error() -> None:
    with pytest.raises(DataError, match=r"the same|does not vary|1 for every"):
        make_cells(
            make_plan(metrics=[{**SPENT, "outcome": "same", "cuped": None, "cap": None}]), make_rows().assign(same=1.0)
        )


def test_an_option_that_a_metric_cannot_take_names_the_question() -> None:
    metric = {**SPENT, "metric": "two_part", "cap": None}
    with pytest.raises(PlanError, match=r"spent by device: \[data\]: "):
        make_cells(make_plan(metrics=[GOAL, metric]), make_rows())


def test_a_summary_is_added_up_for_each_breakdown() -> None:
    rows = make_rows()
    grouped = rows.groupby(["device", "customer", "arm"])["bought"].agg(["size", "sum"]).reset_index()
    table = grouped.rename(columns={"size": "n", "sum": "events"})
    data = {"form": "summary", "arm": "arm", "control": "old", "n": "n", "events": "events"}
    plan = Plan(title="t", model="conversion", data=data, breakdowns=[["device"], ["customer"], ["customer", "device"]])
    cells = make_cells(plan, table)
    for dimensions in (("device",), ("customer",)):
        counts = rows.groupby([*dimensions, "arm"])["bought"].agg(["size", "sum"])
        table_of_cells = cells["outcome", dimensions]
        for (level, arm), (n, events) in zip(counts.index, counts.to_numpy(), strict=True):
            cell = table_of_cells.sel(segment=level, arm=arm)
            assert (float(cell["n"]), float(cell["events"])) == (n, events)
    assert cells["outcome", ("customer", "device")].sizes["segment"] == 4


def test_times_have_a_table_by_each_breakdown() -> None:
    rows = make_rows().assign(days=lambda table: table["before"] + 0.1, died=lambda table: table["returned"])
    data = {"form": "times", "arm": "arm", "control": "old", "time": "days", "event": "died"}
    plan = Plan(title="t", model="survival", data=data, breakdowns=[["device"], ["country"]])
    cells = make_cells(plan, pd.DataFrame(rows))
    assert [table.sizes["segment"] for table in cells.values()] == [2, 3]
