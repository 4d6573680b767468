"""Write a model as the TOML file that `read_model` takes: to run it again, or to change a prior."""

from collections.abc import Mapping
from typing import Any

from bayes_hte._support.toml_text import write_toml_document
from bayes_hte.spec import Model


def write_model_toml(model: Model) -> str:
    """Write the keys of a model that are set, as TOML; `read_model` of the text gives the same model.

    Examples
    --------
    >>> from bayes_hte import read_model
    >>> lines = write_model_toml(read_model("conversion")).splitlines()
    >>> [line for line in lines if line.startswith(("family", "mean"))][:2]
    ['family = "binomial"', 'mean = { dist = "Normal", mu = 0.0, sigma = 1.0 }']
    """
    return write_toml_document(model.model_dump(mode="json", exclude_none=True), stays_inline=_is_prior)


def _is_prior(value: Mapping[str, Any]) -> bool:
    # A distribution is read as one thing: it stays on its line.
    return "dist" in value
