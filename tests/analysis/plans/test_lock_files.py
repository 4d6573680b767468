"""A plan is registered once, every run is held to its lock, and every look at new data counts."""

from pathlib import Path

import pytest
from example_plans import GOAL, GUARDRAIL, make_rows, write_plan
from hostile_text import HOSTILE

import bayes_hte as hte
from bayes_hte.analysis.plans import lock_files
from bayes_hte.analysis.run import RunOptions, prepare_plan
from bayes_hte.spec.questions.registration import name_looks_file

ONE = {"metrics": [GOAL], "breakdowns": [["device"]]}


def test_a_registered_run_says_so_in_every_table(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, **ONE)
    assert hte.register(plan) == tmp_path / "plan.lock.toml"
    result = hte.run(plan)
    assert result.registered
    assert result.table()["registered"].all()
    assert result.fits["bought", "device"].registered


def test_a_decision_without_a_registered_guardrail_is_exploratory(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, metrics=[GOAL, GUARDRAIL], breakdowns=[["device"]])
    hte.register(plan)
    full = hte.run(plan)
    assert isinstance(full, hte.Analysis)
    assert full.decide()["registered"].all()
    # Left out, the guardrail can stop nothing: the goal's effects are those that were asked for, the decision is not.
    result = hte.run(write_plan(tmp_path, **ONE))
    assert isinstance(result, hte.Analysis)
    assert result.dropped == (("returns", ("device",)),)
    assert result.registered["bought", "device"]
    assert not result.decide()["registered"].any()


def test_a_plan_with_one_question_is_held_to_its_lock_as_well(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, metrics=None, breakdowns=None, model="conversion", data={
        "path": "rows.csv", "arm": "arm", "control": "old", "outcome": "bought", "segments": ["device"],
    })  # fmt: skip
    assert not hte.run(plan).registered
    hte.register(plan)
    fit = hte.run(plan)
    assert fit.registered
    again = hte.load(fit.save(tmp_path / "fit.nc"))
    assert dict(again.registered) == dict(fit.registered)
    assert "Registered: the lock of " in fit.report(tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_lock_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, **ONE)
    before = hte.register(plan).read_text(encoding="utf-8")
    write_plan(tmp_path, **ONE, report={"ci_prob": 0.9})
    with pytest.raises(hte.PlanError, match=r"what differs: report.ci_prob: 0.95 → 0.9; `register --force`"):
        hte.register(plan)
    assert (tmp_path / "plan.lock.toml").read_text(encoding="utf-8") == before
    assert "ci_prob = 0.9" in hte.register(plan, force=True).read_text(encoding="utf-8")


def test_a_changed_model_is_noticed(tmp_path: Path) -> None:
    model = tmp_path / "mine.toml"
    text = (Path(hte.spec.files.find_models_folder()) / "conversion.toml").read_text(encoding="utf-8")
    model.write_text(text, encoding="utf-8")
    plan = write_plan(tmp_path, metrics=[{**GOAL, "model": "mine.toml"}], breakdowns=[["device"]])
    hte.register(plan)
    assert prepare_plan(plan).registration["bought", ("device",)]
    model.write_text(f"# wider\n{text}", encoding="utf-8")
    status = prepare_plan(plan).registration["bought", ("device",)]
    assert "the file of the model 'mine.toml' has changed" in status.reasons[0]
    with pytest.raises(hte.PlanError, match=r"the file of the model 'mine\.toml'"):
        hte.register(plan)


def test_new_data_are_a_new_look_and_the_same_data_are_none(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, **ONE)
    hte.register(plan)
    assert prepare_plan(plan, counts_look=True).registration["bought", ("device",)]
    assert prepare_plan(plan, counts_look=True).registration["bought", ("device",)]
    more = make_rows(2600)
    # A check shows no effect: it is no look.
    prepare_plan(plan, data=more)
    assert len(lock_files.read_looks(name_looks_file(plan))) == 1
    status = prepare_plan(plan, data=more, counts_look=True).registration["bought", ("device",)]
    assert "1 look was planned, and this is look 2" in status.reasons[0]
    assert len(lock_files.read_looks(name_looks_file(plan))) == 2


def test_a_look_that_cannot_be_written_down_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = write_plan(tmp_path, **ONE)
    hte.register(plan)

    def refuse(*_: object) -> None:
        raise hte.OutputError("read-only")

    monkeypatch.setattr(lock_files, "write_text_atomically", refuse)
    status = prepare_plan(plan, counts_look=True).registration["bought", ("device",)]
    assert status.reasons == (lock_files.UNRECORDED_LOOK,)


def test_without_a_lock_no_file_is_written(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, **ONE)
    prepare_plan(plan, counts_look=True)
    assert {file.name for file in tmp_path.iterdir()} == {"plan.toml", "rows.csv"}


def test_what_a_call_says_in_place_of_the_plan_is_compared_too(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, **ONE)
    hte.register(plan)
    status = prepare_plan(plan, options=RunOptions(seed=5, drop_missing=True)).registration["bought", ("device",)]
    assert "sampling.seed: 1 → 5" in status.reasons[0]
    assert "data.drop_missing: false → true" in status.reasons[0]


def test_names_that_are_hostile_come_back_as_they_are(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, metrics=[{**GOAL, "name": name} for name in HOSTILE], breakdowns=[["device"]])
    hte.register(plan)
    assert all(prepare_plan(plan).registration.values())
