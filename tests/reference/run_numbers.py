"""What the scripts here keep of long runs: moments with their Monte-Carlo errors, as short and readable JSON."""

import json
from typing import Any

import arviz as az
import numpy as np
import xarray as xr

SAMPLE = ("chain", "draw")


def digits(values: xr.DataArray, count: int) -> Any:
    """Nested lists of numbers with so many significant digits; null for NaN."""
    rounded = [None if np.isnan(value) else float(f"{value:.{count}g}") for value in values.values.ravel()]
    return np.array(rounded, dtype=object).reshape(values.shape).tolist()


def describe_moments(found: xr.Dataset) -> dict[str, Any]:
    """Per variable its dims and the arrays of its statistics."""
    mcse, mcse_sd = az.mcse(found, method="mean"), az.mcse(found, method="sd")
    ess = az.ess(found, method="bulk")
    content: dict[str, Any] = {}
    for name in map(str, found.data_vars):
        draws = found[name]
        content[name] = {
            "dims": [str(dim) for dim in draws.dims[2:]],
            "mean": digits(draws.mean(SAMPLE), 8),
            "mcse": digits(mcse[name], 3),
            "sd": digits(draws.std(SAMPLE, ddof=1), 6),
            "mcse_sd": digits(mcse_sd[name], 3),
            "ess": ess[name].round().astype(int).values.tolist(),
        }
    return content


def as_text(content: Any, depth: int = 0) -> str:
    """JSON with one line per list: short for machines, and still a readable difference in version control."""
    if not isinstance(content, dict) or not content:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    indent = " " * (depth + 1)
    lines = [f"{indent}{json.dumps(str(key))}: {as_text(value, depth + 1)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * depth + "}"
