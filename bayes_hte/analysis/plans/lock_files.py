"""Write and read the files that stand beside a plan: what was registered, and the looks that were taken."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import xarray as xr

from bayes_hte._support.atomic_files import write_text_atomically
from bayes_hte._support.validation import check_path
from bayes_hte.errors import OutputError, PlanError
from bayes_hte.spec import Plan, read_plan
from bayes_hte.spec.cell_table import ARM, SEGMENT, hash_cell_table
from bayes_hte.spec.files import find_model_file, hash_file, read_model
from bayes_hte.spec.questions.list_questions import QuestionKey, list_metrics
from bayes_hte.spec.questions.registration import (
    Registration,
    RegistrationStatus,
    RunCircumstances,
    add_look,
    compare_plans,
    declare_plan,
    judge_registration,
    name_lock_file,
    name_looks_file,
    read_lock,
    read_looks,
    write_lock,
    write_looks,
)

UNRECORDED_LOOK: Final = "this look could not be recorded beside the lock, so nobody knows how many there were"


def register(plan: str | Path, *, force: bool = False) -> Path:
    r"""Register a plan before the test: write what it declares to a lock file beside it.

    Parameters
    ----------
    plan : str or Path
        The plan file. Its models are read too; the data need not be there yet.
    force : bool
        Write anew where a lock is there already: its date is then that of now.

    Returns
    -------
    Path
        Of the lock: ``plan.lock.toml`` beside ``plan.toml``. Commit it, so that its date can be believed.

    Raises
    ------
    PlanError, ModelError
        If the plan or a model is wrong; or there is a lock already: the message says what differs.
    OutputError
        If the lock cannot be written.

    Examples
    --------
    >>> import tempfile, pathlib, bayes_hte as hte
    >>> plan_file = pathlib.Path(tempfile.mkdtemp()) / "plan.toml"
    >>> text = 'title = "New checkout"\nmodel = "conversion"\n[data]\noutcome = "bought"\narm = "arm"\n'
    >>> _ = plan_file.write_text(text + 'control = "old"\nsegments = ["device"]\n')
    >>> hte.register(plan_file).name
    'plan.lock.toml'
    """
    plan_file = check_path(plan, "the plan")
    read = read_plan(plan_file)
    lock_file = name_lock_file(plan_file)
    # The date is the point of a lock: to write over it by accident would lose the proof.
    if lock_file.exists() and not force:
        raise PlanError(_explain_existing_lock(lock_file, read, plan_file))
    hash_by_model = hash_models(read, plan_file.parent)
    for model in hash_by_model:
        read_model(find_model_file(model, plan_file.parent))  # for its errors: a lock of what cannot run helps nobody
    registration = declare_plan(
        read,
        plan_file=plan_file.name,
        plan_sha256=hash_file(plan_file),
        models=hash_by_model,
        # Seconds are enough for people, and files with fractions of them are hard to read.
        registered_on=datetime.now(UTC).replace(microsecond=0),
    )
    return write_text_atomically(lock_file, write_lock(registration))


def _explain_existing_lock(lock_file: Path, plan: Plan, plan_file: Path) -> str:
    """Explain that a plan is registered already, and what has changed since."""
    way_out = "`register --force`, in Python force=True, writes it anew, with the date of now"
    try:
        lock = read_lock(lock_file, plan_file.name)
    except PlanError as error:
        return f"{error}; {way_out}"
    differences = compare_plans(lock.plan, plan)
    for model, now in hash_models(plan, plan_file.parent).items():
        if (was := lock.models.get(model, now)) != now:
            differences.append(f"the file of the model {model!r}: SHA-256 {was[:12]}… → {now[:12]}…")
    difference_text = f"what differs: {', '.join(differences)}" if differences else "nothing differs"
    return (
        f"{lock_file} has been there since {lock.registered_on:%Y-%m-%d %H:%M %Z}, and is not overwritten; "
        f"{difference_text}; {way_out}"
    )


def hash_models(plan: Plan, folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of the file of every model of a plan, by the name that the plan has for it.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    hash_by_model = {}
    for metric in list_metrics(plan):
        model_file = find_model_file(metric.model or plan.model, folder)
        if not model_file.is_file():
            read_model(model_file)  # whose error says what is there in its place
        hash_by_model[metric.model or plan.model] = hash_file(model_file)
    return hash_by_model


def find_lock(plan_file: Path) -> Registration | None:
    """Read the lock beside a plan; None where there is none.

    Raises
    ------
    PlanError
        If it is no lock, or another plan's.
    """
    lock_file = name_lock_file(plan_file)
    return read_lock(lock_file, plan_file.name) if lock_file.exists() else None


def judge_run(
    plan: Plan, plan_file: Path, lock: Registration | None, cells: xr.Dataset, *, counts_look: bool
) -> dict[QuestionKey, RegistrationStatus]:
    """Judge of every question of a plan whether it was registered, and count this look at the data.

    Parameters
    ----------
    plan : Plan
        As it is run.
    plan_file : Path
    lock : Registration or None
    cells : xarray.Dataset
        Of one of the questions: they tell these data from those of another look.
    counts_look : bool
        Whether the look is written down: a check of the data shows no effect, and is none.
    """
    if lock is None:
        return judge_registration(plan, None, RunCircumstances())
    looks_file = name_looks_file(plan_file)
    # A damaged file of looks stops the run: to start counting anew would hide looks.
    looks_before = read_looks(looks_file)
    looks = add_look(looks_before, describe_data(cells), datetime.now(UTC).replace(microsecond=0))
    is_recorded = True
    if counts_look and len(looks) > len(looks_before):
        try:
            write_text_atomically(looks_file, write_looks(looks))
        except OutputError:
            is_recorded = False
    circumstances = RunCircumstances(hash_models(plan, plan_file.parent), len(looks))
    statuses = judge_registration(plan, lock, circumstances)
    if is_recorded:
        return statuses
    return {
        key: RegistrationStatus(False, (*status.reasons, UNRECORDED_LOOK), status.changes, status.registered_on)
        for key, status in statuses.items()
    }


def describe_data(cells: xr.Dataset) -> Mapping[str, Any]:
    """Describe what tells the data of one look from those of another: units by arm, else the hash of the cells."""
    # Unlike a hash, counts are the same on every machine, and people can check them.
    if "n" not in cells:
        return {"sha256": hash_cell_table(cells)}
    unit_counts = cells["n"].sum(SEGMENT)
    return {"units": {str(arm): float(unit_counts.sel({ARM: arm})) for arm in cells[ARM].values}}
