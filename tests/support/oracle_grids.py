"""Grids of parameters on which brute force computes a posterior."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayes_hte.spec import cell_table

Grid = NDArray[np.float64]


ARMS = ("control", "email")


def deeper(flat: dict[str, Grid], deep: dict[str, Grid], **coords: Any) -> xr.Dataset:
    """A cell table with variables that have a third dim: the first of the coordinates."""
    third = next(iter(coords))
    labels = [f"s{i}" for i in range(len(next(iter(deep.values()))))]
    attrs = {
        "outcome": "visit",
        "control": "control",
        "dimensions": cell_table.encode_text_list(["device"]),
        "notes": "[]",
    }
    if "horizon" in coords:
        attrs["horizon"] = coords.pop("horizon")
    return cell_table.check_cell_table(
        xr.Dataset(
            {name: (("segment", "arm"), values) for name, values in flat.items()}
            | {name: (("segment", "arm", third), values) for name, values in deep.items()},
            coords={"segment": labels, "arm": list(ARMS), "device": ("segment", labels)}
            | {name: (third, values) for name, values in coords.items()},
            attrs=attrs,
        )
    )
