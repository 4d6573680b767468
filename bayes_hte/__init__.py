"""bayes_hte: for whom does it work, and how sure are we?

Bayesian hierarchical models of heterogeneous treatment effects, from an experiment's data to a segment report.
Names are imported when they are first used, so that a command line can answer before PyMC is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayes_hte import cells
    from bayes_hte.analysis.batches.fit_table import fit_table
    from bayes_hte.analysis.combine.combine_fits import combine
    from bayes_hte.analysis.compare import compare, loso
    from bayes_hte.analysis.example import example_cells, example_fit
    from bayes_hte.analysis.fit import fit
    from bayes_hte.analysis.fit_many import Fits, fit_many
    from bayes_hte.analysis.from_posterior import from_posterior
    from bayes_hte.analysis.load import load
    from bayes_hte.analysis.plans.analysis import Analysis
    from bayes_hte.analysis.plans.lock_files import register
    from bayes_hte.analysis.priors.learned import learn_prior, prior_from_fit
    from bayes_hte.analysis.priors.predictive import plot_prior, prior_predictive
    from bayes_hte.analysis.priors.sweep import prior_sweep
    from bayes_hte.analysis.result import Fit
    from bayes_hte.analysis.run import run
    from bayes_hte.cells import check
    from bayes_hte.cells.simulation.result import Simulation
    from bayes_hte.cells.simulation.simulate import simulate
    from bayes_hte.errors import (
        ArgumentError,
        DataError,
        FitError,
        HteError,
        ModelError,
        OutputError,
        PlanError,
        SpecError,
    )
    from bayes_hte.spec import Model, Plan, Rule, read_model, read_plan

    __version__: str

_HOMES = {
    "Analysis": "analysis.plans.analysis",
    "register": "analysis.plans.lock_files",
    "Fit": "analysis.result",
    "Simulation": "cells.simulation.result",
    "simulate": "cells.simulation.simulate",
    "check": "cells",
    "combine": "analysis.combine.combine_fits",
    "compare": "analysis.compare",
    "load": "analysis.load",
    "loso": "analysis.compare",
    "example_cells": "analysis.example",
    "example_fit": "analysis.example",
    "plot_prior": "analysis.priors.predictive",
    "prior_predictive": "analysis.priors.predictive",
    "Fits": "analysis.fit_many",
    "from_posterior": "analysis.from_posterior",
    "fit_many": "analysis.fit_many",
    "learn_prior": "analysis.priors.learned",
    "prior_from_fit": "analysis.priors.learned",
    "prior_sweep": "analysis.priors.sweep",
    "fit": "analysis.fit",
    "fit_table": "analysis.batches.fit_table",
    "run": "analysis.run",
    "Model": "spec",
    "Plan": "spec",
    "Rule": "spec",
    "read_model": "spec",
    "read_plan": "spec",
    **dict.fromkeys(
        ("ArgumentError", "DataError", "FitError", "HteError", "ModelError", "OutputError", "PlanError", "SpecError"),
        "errors",
    ),
}

__all__ = [
    "Analysis",
    "ArgumentError",
    "DataError",
    "Fit",
    "FitError",
    "Fits",
    "HteError",
    "Model",
    "ModelError",
    "OutputError",
    "Plan",
    "PlanError",
    "Rule",
    "Simulation",
    "SpecError",
    "cells",
    "check",
    "combine",
    "compare",
    "example_cells",
    "example_fit",
    "fit",
    "fit_many",
    "fit_table",
    "from_posterior",
    "learn_prior",
    "load",
    "loso",
    "plot_prior",
    "prior_from_fit",
    "prior_predictive",
    "prior_sweep",
    "read_model",
    "read_plan",
    "register",
    "run",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name == "cells":
        return import_module("bayes_hte.cells")
    if name in _HOMES:
        return getattr(import_module(f"bayes_hte.{_HOMES[name]}"), name)
    if name == "__version__":
        # pyproject.toml alone states it. The import takes longer than that of the package itself, so it waits here.
        from importlib.metadata import version

        return version("bayes-hte")
    raise AttributeError(f"module 'bayes_hte' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
