"""A small cell table by hand, for tests that need no data layer."""

import numpy as np
import xarray as xr

from bayes_hte import schema


def table(data: dict[str, np.ndarray], *, arms: tuple[str, ...], control: str, dimension: str = "device") -> xr.Dataset:
    """A checked cell table with one dimension."""
    labels = [f"s{i}" for i in range(len(next(iter(data.values()))))]
    return schema.check(
        xr.Dataset(
            {name: (("segment", "arm"), values) for name, values in data.items()},
            coords={"segment": labels, "arm": list(arms), dimension: ("segment", labels)},
            attrs={"outcome": "visit", "control": control, "dimensions": schema.encode([dimension]), "notes": "[]"},
        )
    )
