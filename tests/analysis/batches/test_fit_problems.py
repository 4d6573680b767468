"""Problems to rows: those of `hte.fit`, and one row with the reason for what cannot be fitted."""

from typing import Any

import pytest
import xarray as xr

import bayes_hte as hte
from bayes_hte.analysis import fit as analysis_fit
from bayes_hte.analysis.batches import fit_problems as module
from bayes_hte.analysis.batches.fit_problems import CellProblem, TableRequest, fit_problems
from bayes_hte.estimands.tables import EffectQuestion
from bayes_hte.inference import engine as engines
from bayes_hte.inference.draws import Draws, EngineRefusalError


def request(**changes: Any) -> TableRequest:
    options: dict[str, Any] = {
        "model": hte.read_model("conversion"), "question": EffectQuestion(), "sampler": "exact", "draws": 1000,
    }  # fmt: skip
    return TableRequest(**(options | changes))


def test_what_cannot_be_fitted_is_a_row_and_the_others_are_fitted(counts: xr.Dataset, moments: xr.Dataset) -> None:
    problems = [CellProblem(moments, 1), CellProblem("two rows of one cell", 2), CellProblem(counts, 3)]
    wrong_family, unread, sound = fit_problems(problems, request())
    assert [row["row"] for row in (*wrong_family, *unread)] == ["failure", "failure"]
    assert "binomial" in wrong_family[0]["error"]
    assert (unread[0]["error"], unread[0]["seed"]) == ("two rows of one cell", 2)
    # Six segments and two treated arms, then the average of each arm.
    assert [row["row"] for row in sound] == ["segment"] * 12 + ["average"] * 2
    assert not any(row.get("error") for row in sound)


class Refusing:
    """An engine that finds out too late, or sees at once, that it cannot."""

    name = "refusing"

    def __init__(self, reason: str | None) -> None:
        self.reason = reason

    def supports(self, problem: Any) -> str | None:
        return self.reason

    def draw(self, problem: Any, *, draws: int, seed: int, progress: bool) -> Draws:
        raise EngineRefusalError("the tail is too long")


@pytest.mark.parametrize(("reason", "told"), [("too many arms", "too many arms"), (None, "the tail is too long")])
def test_a_problem_that_the_engine_refuses_is_a_row_with_its_reason(
    counts: xr.Dataset, reason: str | None, told: str
) -> None:
    engines.register_engine(Refusing(reason))
    try:
        ((row,),) = fit_problems([CellProblem(counts, 1)], request(sampler="refusing"))
    finally:
        engines.remove_engine("refusing")
    assert row["row"] == "failure"
    assert f"the refusing engine cannot solve this: {told}" in row["error"]


def test_a_fault_in_one_problem_does_not_end_the_work_on_the_others(
    counts: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def divide(*_: Any) -> None:
        raise ZeroDivisionError("no such luck")

    monkeypatch.setattr(module, "compute_fit_tree", divide)
    ((row,),) = fit_problems([CellProblem(counts, 1)], request())
    assert row["error"] == "a fault of bayes_hte, please report it: ZeroDivisionError: no such luck"


def test_certificate_and_diagnosis_are_those_of_the_fit(counts: xr.Dataset) -> None:
    fit = hte.fit(counts, "conversion", sampler="exact", draws=1000, seed=3)
    (rows,) = fit_problems([CellProblem(counts, 3)], request())
    stats = fit.posterior["sample_stats"].to_dataset()
    for name in ("pareto_k", "effective_points"):
        assert {row[name] for row in rows} == {float(stats[name])}
    assert {row["reliable"] for row in rows} == {fit.diagnosis.ok}
    assert {row["engine"] for row in rows} == {"exact"}


def test_an_unreliable_fit_says_why(counts: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis_fit, "list_misfits", lambda _: ("The data say no.", "So do I."))
    (rows,) = fit_problems([CellProblem(counts, 3)], request())
    assert {(row["reliable"], row["problems"]) for row in rows} == {(False, "The data say no. So do I.")}
