"""`example_cells` and `example_fit`: a small experiment for documentation, tests and first steps."""

import pandas as pd
import xarray as xr

from bayes_hte.analysis.fit import fit
from bayes_hte.analysis.result import Fit
from bayes_hte.cells import from_summary

# Made up: a shorter checkout helps on phones and hardly on desktops. Tablets have so few units that their raw
# effects mean nothing, and what is reported of them is borrowed.
CHECKOUT_TEST = {
    "device": ["desktop", "desktop", "mobile", "mobile", "tablet", "tablet"] * 2,
    "customer": ["new"] * 6 + ["returning"] * 6,
    "arm": ["current", "short"] * 6,
    "n": [5200, 5180, 9100, 9160, 310, 295, 7400, 7350, 4300, 4360, 120, 131],
    "bought": [364, 391, 546, 667, 19, 27, 888, 875, 387, 441, 11, 13],
}


def example_cells() -> xr.Dataset:
    """Build the cell table of a small checkout test: three devices × two kinds of customers, two arms.

    Returns
    -------
    xarray.Dataset
        Dims (segment, arm): six segments of 251 to 18,260 units, arms "current" (the control) and "short"; counts of
        units and of those that bought. The same table every time; made up.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> cells = hte.example_cells()
    >>> dict(cells.sizes)
    {'segment': 6, 'arm': 2}
    >>> cells["n"].sum("arm").values.tolist()
    [10380, 14750, 18260, 8660, 605, 251]
    """
    return from_summary(
        pd.DataFrame(CHECKOUT_TEST),
        arm="arm",
        control="current",
        segments=["device", "customer"],
        n="n",
        events="bought",
    )


def example_fit() -> Fit:
    """Fit the model "conversion" to `example_cells`, by the exact engine: in a tenth of a second, without MCMC.

    Returns
    -------
    Fit
        The same numbers every time.

    Examples
    --------
    >>> import bayes_hte as hte
    >>> fit = hte.example_fit()
    >>> table = fit.table("relative")[["device", "customer", "effect", "p_positive", "pooling"]]
    >>> print(table.round(3).to_string(index=False))
     device  customer  effect  p_positive  pooling
    desktop       new   0.087       0.924    0.440
    desktop returning   0.027       0.718    0.313
     mobile       new   0.169       0.999    0.361
     mobile returning   0.114       0.980    0.430
     tablet       new   0.147       0.910    0.866
     tablet returning   0.109       0.855    0.923
    """
    return fit(example_cells(), "conversion", sampler="exact", seed=1)
