"""When two cell tables of the same rows agree."""

import numpy as np
import xarray as xr


def assert_agree(cells: xr.Dataset, expected: xr.Dataset, rtol: float = 1e-12) -> None:
    """To rounding error; whole numbers and words exactly. Of products of deviations, relative to the spread of both."""
    assert set(cells.data_vars) == set(expected.data_vars)
    for name in ("segment", "arm"):
        assert cells[name].values.tolist() == expected[name].values.tolist()
    assert cells.attrs["notes"] == expected.attrs["notes"]
    for name in expected.data_vars:
        difference = np.abs(cells[name].values - expected[name].values)
        size = np.abs(expected[name].values)
        if name == "variance_reduction":  # 1 less a quotient
            size = np.maximum(size, 1.0)
        if name == "covariate_part":  # a difference of means, of covariates that are far from 0
            size = size + np.nan_to_num(np.abs(expected["mean"].values))
        if name == "column_ss":
            spread = np.sqrt(np.diagonal(size, axis1=-2, axis2=-1))
            size = spread[..., :, None] * spread[..., None, :]
        assert (np.isnan(difference) == np.isnan(size)).all(), name
        assert not (difference > rtol * size).any(), (name, float(np.nanmax(difference / size)))
