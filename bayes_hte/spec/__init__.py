"""What is believed (`Model`) and what is asked (`Plan`): closed schemas, read from TOML, running no code."""

from bayes_hte.spec.distributions import Distribution
from bayes_hte.spec.files import read_model, read_plan, shipped_models
from bayes_hte.spec.model import Model, Pool
from bayes_hte.spec.plan import Plan

__all__ = ["Distribution", "Model", "Plan", "Pool", "read_model", "read_plan", "shipped_models"]
