"""Round draws as a saved fit holds them."""

import numpy as np
import xarray as xr


def round_draws(tree: xr.DataTree) -> xr.DataTree:
    """Round the draws of parameters and predictions to single precision; the dtype stays double.

    Diagnostics stay as they are, and so do sums of log densities that are too large for 7 digits.
    """

    def round_variable(variable: xr.DataArray, group_name: str) -> xr.DataArray:
        if variable.dtype != np.float64 or not {"chain", "draw"} <= set(variable.dims):
            return variable
        # As `bayes_hte.analysis.netcdf` decides it, with the formula of its own: √n ε |x| / 2 < 1e-4.
        term_count = variable.size / (variable.sizes["chain"] * variable.sizes["draw"])
        largest = float(abs(variable.where(np.isfinite(variable))).max())
        if group_name.startswith("log_") and term_count**0.5 * largest * 2.0**-24 >= 1e-4:
            return variable
        return variable.astype(np.float32).astype(np.float64)

    groups = {name: node.to_dataset(inherit=False) for name, node in tree.children.items()}
    rounded_groups = {
        name: group.assign({key: round_variable(group[key], str(name)) for key in group.data_vars})
        for name, group in groups.items()
        if name != "sample_stats"
    }
    rounded_tree = xr.DataTree.from_dict(groups | rounded_groups)
    rounded_tree.attrs = dict(tree.attrs)
    return rounded_tree
