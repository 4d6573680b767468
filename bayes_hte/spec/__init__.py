"""Schemas of models and plans, read from TOML: what is believed (`Model`) and what is asked (`Plan`). Runs no code.

Names are imported when they are first used: who only reads a plan does not wait for models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayes_hte.spec.distributions import Distribution
    from bayes_hte.spec.files import list_shipped_models, read_model, read_plan
    from bayes_hte.spec.model import Model, Pool
    from bayes_hte.spec.plan import Plan
    from bayes_hte.spec.rule import Rule

_MODULE_BY_NAME = {
    "Distribution": "distributions",
    "Model": "model",
    "Plan": "plan",
    "Pool": "model",
    "Rule": "rule",
    "read_model": "files",
    "read_plan": "files",
    "list_shipped_models": "files",
}

__all__ = ["Distribution", "Model", "Plan", "Pool", "Rule", "list_shipped_models", "read_model", "read_plan"]


def __getattr__(name: str) -> Any:
    if name in _MODULE_BY_NAME:
        return getattr(import_module(f"bayes_hte.spec.{_MODULE_BY_NAME[name]}"), name)
    raise AttributeError(f"module 'bayes_hte.spec' has no attribute {name!r}")
