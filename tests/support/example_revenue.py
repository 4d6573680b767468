"""A small cell table of revenue, many units of which spent nothing."""

from typing import Any

import numpy as np
import xarray as xr
from example_cells import table
from numpy.typing import NDArray
from oracle_grids import ARMS

Array = NDArray[np.float64]


def revenue(seed: int, segments: int, size: int = 60) -> tuple[list[list[Array]], xr.Dataset]:
    """Units and their cells."""
    rng = np.random.default_rng(seed)
    n = rng.integers(size, 2 * size, (segments, 2))
    rows = [[rng.binomial(1, 0.4 + 0.1 * a, n[s, a]) * rng.lognormal(1.0 + 0.2 * a, 0.8, n[s, a]) for a in (0, 1)]
            for s in range(segments)]  # fmt: skip
    logs = [[np.log(y[y > 0]) for y in pair] for pair in rows]

    def each(function: Any, data: list[list[Array]]) -> NDArray[Any]:
        return np.array([[function(y) for y in pair] for pair in data])

    data = {
        "n": n, "positive": each(len, logs), "mean": each(np.mean, rows), "log_mean": each(np.mean, logs),
        "ss": each(lambda y: ((y - y.mean()) ** 2).sum(), rows),
        "log_ss": each(lambda y: ((y - y.mean()) ** 2).sum(), logs),
    }  # fmt: skip
    return rows, table(data, arms=ARMS, control="control")
