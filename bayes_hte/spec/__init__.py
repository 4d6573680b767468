"""What is believed (`Model`) and what is asked (`Plan`): closed schemas, read from TOML, running no code.

Names are imported when they are first used: who only reads a plan does not wait for models.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayes_hte.spec.distributions import Distribution
    from bayes_hte.spec.files import read_model, read_plan, shipped_models
    from bayes_hte.spec.model import Model, Pool
    from bayes_hte.spec.plan import Plan

_HOMES = {
    "Distribution": "distributions",
    "Model": "model",
    "Plan": "plan",
    "Pool": "model",
    "read_model": "files",
    "read_plan": "files",
    "shipped_models": "files",
}

__all__ = ["Distribution", "Model", "Plan", "Pool", "read_model", "read_plan", "shipped_models"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"bayes_hte.spec.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'bayes_hte.spec' has no attribute {name!r}")
