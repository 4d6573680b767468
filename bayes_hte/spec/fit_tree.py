"""The DataTree of a fit: its groups, its variables, and what its attributes say. The only reader and writer of these.

Groups; dims of samples come first, then segment and arm:

    posterior      effect (chain, draw, segment, arm), and what else the model draws
    sample_stats   what the engine says of its draws: numbers
    cells          the cell table, so that a saved fit needs nothing else
    sign           p_positive, p_positive_mcse (segment, arm), where they are known better than by counting draws
    test_posterior, test_cells    draws and cells of segment × test, where a fit combines tests
    …              any group that ArviZ knows, computed from these: see `bayes_hte.criticism.arviz_groups`

Attributes of the root. netCDF holds numbers and text, so structures are JSON and a flag is there or it is not:

    format            text    FIT_FORMAT, which tells this file from others
    model             JSON    the model as its file states it
    resolved_model    JSON    the same in the outcome's units, defaults written out
    plan              JSON    the plan, where there was one
    diagnosis         JSON    fields of `bayes_hte.criticism.diagnostics.Diagnosis`
    versions          JSON    list of "package version"
    seed              whole number
    engine            text    a sentence: which engine drew, and why
    engine_name       text    the engine's name in the registry
    sampler           text    the engine's name, and the library behind it
    data_sha256, model_sha256, plan_sha256    text, hexadecimal
    command           text    the command or call that made the fit, where it is known
    higher_is_better, lower_is_better    flags    effects above 0, below 0 help; neither where nobody has said so
    registration      JSON    fields of `bayes_hte.spec.questions.registration.RegistrationStatus`, where a plan was run
    own               flag    only draws are known, not the model behind them
    tests             JSON    names of the tests that a fit combines, where it does
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Final

import xarray as xr

from bayes_hte.errors import DataError, ModelError, SpecError
from bayes_hte.spec import cell_table
from bayes_hte.spec.model import Model
from bayes_hte.spec.plan import Plan
from bayes_hte.spec.questions.registration import NO_PLAN, RegistrationStatus, RunCircumstances, judge_registration

FIT_FORMAT: Final = "bayes_hte fit 1"
"""Written into every saved fit, so that a file of another kind or time is recognised."""
REQUIRED_GROUPS: Final = ("posterior", "sample_stats", "cells")
"""All that tables, figures and the report need; every other group is computed from these."""
REQUIRED_ATTRIBUTES: Final = ("model", "diagnosis", "seed")
EFFECT_DIMS: Final = ("chain", "draw", "segment", "arm")
PROVENANCE_ATTRIBUTES: Final = (
    *("seed", "sampler", "engine", "versions", "data_sha256", "model_sha256", "plan_sha256"),
)
TEST_POSTERIOR_GROUP: Final = "test_posterior"
TEST_CELLS_GROUP: Final = "test_cells"
FROM_POSTERIOR_NAME: Final = "own"
"""In the engine's place where draws came from a model of the caller's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """Everything that a fit's tree says of itself beside its groups; None where it is not known.

    Attributes
    ----------
    model : Model
        As its file states it.
    seed : int
        The only source of randomness.
    resolved_model : Model or None
        In the outcome's units, defaults written out.
    plan : Plan or None
        What was asked, where a plan said so.
    diagnosis : mapping or None
        Fields of `bayes_hte.criticism.diagnostics.Diagnosis`, plain values.
    engine_name, engine_sentence, sampler : str or None
        Which engine drew, why it and no other, and the library behind it.
    versions : tuple of str
        Of Python and of the packages that matter to the numbers.
    data_sha256, model_sha256, plan_sha256 : str or None
        Of the cell table, of the model or its file, and of the plan's file.
    command : str or None
        The command or call that made the fit, to be given again.
    higher_is_better : bool or None
        Whether an effect above 0 helps, where it was stated; a plan's own word goes first.
    is_from_posterior : bool
        Whether only draws are known, not the model behind them.
    test_names : tuple of str
        What the tests are called that a fit combines; empty for a fit of one test.
    registration : RegistrationStatus or None
        Whether what was asked was registered before the test, where a plan was run.
    """

    model: Model
    seed: int
    resolved_model: Model | None = None
    plan: Plan | None = None
    diagnosis: Mapping[str, Any] | None = None
    engine_name: str | None = None
    engine_sentence: str | None = None
    sampler: str | None = None
    versions: tuple[str, ...] = ()
    data_sha256: str | None = None
    model_sha256: str | None = None
    plan_sha256: str | None = None
    command: str | None = None
    higher_is_better: bool | None = None
    is_from_posterior: bool = False
    test_names: tuple[str, ...] = ()
    registration: RegistrationStatus | None = None

    def encode(self) -> dict[str, str | int]:
        """Encode the record as attributes of a tree; what is None is left out."""
        encoded_values: dict[str, str | int | None] = {
            # Only a complete fit is called one: draws from a prior have a model and cells, but no diagnosis.
            "format": None if self.diagnosis is None else FIT_FORMAT,
            "engine": self.engine_sentence,
            "engine_name": self.engine_name,
            "sampler": self.sampler,
            "model": _encode_schema(self.model),
            "model_sha256": self.model_sha256,
            "seed": self.seed,
            "versions": cell_table.encode_text_list(self.versions) if self.versions else None,
            "data_sha256": self.data_sha256,
            "resolved_model": _encode_schema(self.resolved_model),
            "diagnosis": None if self.diagnosis is None else json.dumps(dict(self.diagnosis)),
            "plan": _encode_schema(self.plan),
            "plan_sha256": self.plan_sha256,
            "command": self.command,
            "higher_is_better": 1 if self.higher_is_better is True else None,
            "lower_is_better": 1 if self.higher_is_better is False else None,
            "registration": None if self.registration is None else json.dumps(asdict(self.registration)),
            "own": "1" if self.is_from_posterior else None,
            "tests": cell_table.encode_text_list(self.test_names) if self.test_names else None,
        }
        return {name: value for name, value in encoded_values.items() if value is not None}


def _encode_schema(content: Model | Plan | None) -> str | None:
    """Encode a model or plan as JSON, unset keys left out: so defaults stay those of the version that reads it."""
    return None if content is None else content.model_dump_json(exclude_none=True)


def record_inputs(cells: xr.Dataset, model: Model, *, resolved_model: Model, seed: int) -> FitRecord:
    """Record what it takes to get the same numbers again: data, model, seed and versions of packages."""
    return FitRecord(
        model=model,
        seed=seed,
        resolved_model=resolved_model,
        versions=list_versions(),
        data_sha256=cell_table.hash_cell_table(cells),
    )


@cache
def list_versions() -> tuple[str, ...]:
    """List Python and the packages that matter to the numbers, each as "name version"."""
    package_names = ("bayes_hte", "pymc", "nutpie", "arviz", "numpy", "xarray", "pandas", "scipy")
    return (f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in package_names))


def build_fit_tree(groups: Mapping[str, xr.Dataset | None], record: FitRecord) -> xr.DataTree:
    """Build the tree of a fit from its groups and its record; a group that is None is left out."""
    fit_tree = xr.DataTree.from_dict({name: group for name, group in groups.items() if group is not None})
    fit_tree.attrs = record.encode()
    return fit_tree


def freeze_fit_tree(fit_tree: xr.DataTree) -> xr.DataTree:
    """Build a tree of the same values that cannot be written to; the tree given stays as it is.

    Values are read-only views, so that a million draws are not copied. Cells are copied: they are small, and who
    made them may go on changing them.
    """
    frozen_groups = {name: _freeze_dataset(node.to_dataset(inherit=False)) for name, node in fit_tree.children.items()}
    if "cells" in frozen_groups:
        frozen_groups["cells"] = _freeze_dataset(frozen_groups["cells"].copy(deep=True))
    frozen_tree = xr.DataTree.from_dict(frozen_groups)
    frozen_tree.attrs = dict(fit_tree.attrs)
    return frozen_tree


def _freeze_dataset(dataset: xr.Dataset) -> xr.Dataset:
    """Build a dataset of read-only views of the same values."""
    frozen_dataset = dataset.copy(deep=False)
    for variable_name in dataset.variables.keys() - dataset.indexes.keys():  # what indexes hold is read-only already
        read_only_view = dataset.variables[variable_name].values.view()
        read_only_view.flags.writeable = False
        # The copy's variable: the one of the dataset given keeps its own array.
        frozen_dataset.variables[variable_name].data = read_only_view
    return frozen_dataset


def add_groups(fit_tree: xr.DataTree, new_groups: Mapping[str, xr.Dataset]) -> xr.DataTree:
    """Build a tree with further groups; values are shared, the tree given stays as it is."""
    own_groups = {name: node.to_dataset(inherit=False) for name, node in fit_tree.children.items()}
    larger_tree = xr.DataTree.from_dict({**own_groups, **new_groups})
    larger_tree.attrs = dict(fit_tree.attrs)
    return larger_tree


def check_fit_tree(fit_tree: xr.DataTree, name: str = "the tree") -> None:
    """Check that a tree is a fit of this version, with everything that tables, figures and the report need.

    Parameters
    ----------
    fit_tree : xarray.DataTree
    name : str
        What the tree is called in messages, such as its file.

    Raises
    ------
    DataError
        If it is of another kind or time, lacks a part, or holds one that no fit has.
    """
    if fit_tree.attrs.get("format") != FIT_FORMAT:
        raise DataError(
            f"{name} is no saved fit of this version (format {fit_tree.attrs.get('format')!r}, not {FIT_FORMAT!r})"
        )
    missing_parts = [group for group in REQUIRED_GROUPS if group not in fit_tree.children]
    missing_parts += [attribute for attribute in REQUIRED_ATTRIBUTES if attribute not in fit_tree.attrs]
    if missing_parts:
        raise DataError(f"{name} is damaged: it lacks {', '.join(missing_parts)}; save the fit again")
    # A file that was edited by hand may hold cells, models and plans that no reader of files would have let through.
    try:
        cell_table.check_cell_table(get_fitted_cells(fit_tree))
        get_fitted_model(fit_tree)
        get_plan(fit_tree)
        if "resolved_model" in fit_tree.attrs:
            get_resolved_model(fit_tree)
    except (DataError, SpecError) as error:
        raise DataError(f"{name} is damaged: {error}") from error
    posterior = fit_tree["posterior"].to_dataset()
    effect_dims = posterior["effect"].dims if "effect" in posterior else ()
    if set(effect_dims) != set(EFFECT_DIMS):
        raise DataError(
            f"{name} is damaged: effect has dims {list(map(str, effect_dims))}, not {list(EFFECT_DIMS)}; save the fit "
            "again"
        )


def get_fitted_model(fit_tree: xr.DataTree) -> Model:
    """Return the fitted model as its file states it."""
    return Model.model_validate_json(fit_tree.attrs["model"])


def require_known_model(fit_tree: xr.DataTree, requested_result: str) -> Model:
    """Return the fitted model, or refuse a result that needs it where only draws are known.

    Raises
    ------
    ModelError
        If only the draws of the model are known.
    """
    if list_test_names(fit_tree):
        raise ModelError(
            f"{requested_result} needs a model of these cells, and this fit combines two tests; ask it of the fit of "
            "each test"
        )
    if is_from_posterior(fit_tree):
        raise ModelError(
            f"{requested_result} needs the model, and only draws of a model of your own are known: use ArviZ on those"
        )
    return get_fitted_model(fit_tree)


def get_resolved_model(fit_tree: xr.DataTree) -> Model:
    """Return the fitted model in the outcome's units, with all defaults."""
    return Model.model_validate_json(fit_tree.attrs["resolved_model"])


def get_fitted_cells(fit_tree: xr.DataTree) -> xr.Dataset:
    """Return the fitted cell table, dims (segment, arm)."""
    return fit_tree["cells"].to_dataset()


def get_plan(fit_tree: xr.DataTree) -> Plan | None:
    """Return the plan that the fit came from; None if there was none."""
    plan_json = fit_tree.attrs.get("plan")
    return None if plan_json is None else Plan.model_validate_json(plan_json)


def get_registration(fit_tree: xr.DataTree) -> RegistrationStatus:
    """Return whether what was asked was registered before the test; nothing shows it where no plan was run."""
    if "registration" in fit_tree.attrs:
        fields = json.loads(fit_tree.attrs["registration"])
        return RegistrationStatus(
            bool(fields["registered"]), tuple(fields["reasons"]), tuple(fields["changes"]), str(fields["registered_on"])
        )
    plan = get_plan(fit_tree)
    if plan is None:
        return NO_PLAN
    return next(iter(judge_registration(plan, None, RunCircumstances()).values()))


def get_command(fit_tree: xr.DataTree) -> str:
    """Return the command or call that made the fit; "" where it is not known."""
    return str(fit_tree.attrs.get("command", ""))


def get_seed(fit_tree: xr.DataTree) -> int:
    """Return the seed of the fit, which everything that is drawn later starts from too."""
    return int(fit_tree.attrs["seed"])


def get_diagnosis_fields(fit_tree: xr.DataTree) -> dict[str, Any]:
    """Return the fields of the diagnosis as plain values; JSON has lists in place of tuples."""
    diagnosis_fields: dict[str, Any] = json.loads(fit_tree.attrs["diagnosis"])
    return diagnosis_fields


def is_reliable(fit_tree: xr.DataTree) -> bool:
    """Tell whether the draws passed their diagnosis; False where there was none, as for draws from a prior."""
    return "diagnosis" in fit_tree.attrs and bool(get_diagnosis_fields(fit_tree)["ok"])


def get_stated_direction(fit_tree: xr.DataTree) -> bool | None:
    """Return whether an effect above 0 helps, as the plan or else the caller stated it; None if neither did."""
    plan = get_plan(fit_tree)
    if plan is not None and plan.report.higher_is_better is not None:
        return plan.report.higher_is_better
    if "lower_is_better" in fit_tree.attrs:
        return False
    return True if "higher_is_better" in fit_tree.attrs else None


def is_higher_better(fit_tree: xr.DataTree) -> bool:
    """Tell whether an effect above 0 helps; where nobody has said so, higher is taken as better."""
    return get_stated_direction(fit_tree) is not False


def is_from_posterior(fit_tree: xr.DataTree) -> bool:
    """Recognise draws of a model that is not known here; see `bayes_hte.from_posterior`."""
    return "own" in fit_tree.attrs


def list_test_names(fit_tree: xr.DataTree) -> list[str]:
    """List the tests that a fit combines; none for the fit of a single test."""
    return list(map(str, json.loads(fit_tree.attrs.get("tests", "[]"))))


def get_test_tree(fit_tree: xr.DataTree) -> xr.DataTree:
    """Return the tree of the cells segment × test of a fit that combines tests: effects are computed from it as usual.

    Raises
    ------
    ModelError
        If the fit is of one test.
    """
    if not list_test_names(fit_tree):
        raise ModelError(
            "this fit is of one test, so there are none to compare; combine two by hte.combine(first, second)"
        )
    groups = {
        "posterior": fit_tree[TEST_POSTERIOR_GROUP].to_dataset(),
        "sample_stats": fit_tree["sample_stats"].to_dataset(),
        "cells": fit_tree[TEST_CELLS_GROUP].to_dataset(),
    }
    test_tree = xr.DataTree.from_dict(groups)
    test_tree.attrs = {name: value for name, value in fit_tree.attrs.items() if name != "tests"}
    return test_tree


def get_engine_name(fit_tree: xr.DataTree) -> str:
    """Return the name of the engine that drew the posterior, as `hte.fit` takes it.

    Fits of before this name was kept say the sampler: "exact", or "nuts" with the library in brackets.
    """
    return str(fit_tree.attrs.get("engine_name") or str(fit_tree.attrs["sampler"]).partition(" ")[0])


def get_sampler(fit_tree: xr.DataTree) -> str:
    """Return the name of the engine that drew the posterior with the library behind it."""
    return str(fit_tree.attrs["sampler"])


def describe_engine(fit_tree: xr.DataTree) -> str:
    """Name the engine that drew the posterior, and the reason, in one sentence."""
    return str(fit_tree.attrs["engine"]) if "engine" in fit_tree.attrs else f"Drawn by {fit_tree.attrs['sampler']}."


def get_versions(fit_tree: xr.DataTree) -> list[str]:
    """Return Python and packages that the numbers came from, each as "name version"."""
    return list(map(str, json.loads(fit_tree.attrs["versions"])))


def get_file_hashes(fit_tree: xr.DataTree) -> dict[str, str]:
    """Return the SHA-256 of "data", "model" and "plan", as far as they are known."""
    return {
        name: str(fit_tree.attrs[f"{name}_sha256"])
        for name in ("data", "model", "plan")
        if f"{name}_sha256" in fit_tree.attrs
    }


def collect_provenance(fit_tree: xr.DataTree) -> dict[str, Any]:
    """Collect what it takes to get the same numbers again, as plain values for JSON."""
    provenance = {name: fit_tree.attrs[name] for name in fit_tree.attrs if name in PROVENANCE_ATTRIBUTES}
    return provenance | ({"versions": get_versions(fit_tree)} if "versions" in provenance else {})
