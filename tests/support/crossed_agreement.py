"""Whether a fit of crossed or nested dimensions agrees with a walk: everything but offsets, within five errors."""

from dataclasses import dataclass

import arviz as az
import numpy as np
import xarray as xr
from long_runs import index_table
from metropolis_reference import Array, summarise
from mixed_design import Key
from random_crossed import CrossedProblem
from scipy.special import ndtri
from scipy.stats import rankdata

import bayes_hte as hte

QUANTILES = (0.025, 0.5, 0.975)
ERRORS = 5.0
MIN_SIGN_ERROR = 5e-4
"""Of a walk's P(> 0): one that met no draw on the other side knows that there are fewer than about three."""


@dataclass(frozen=True)
class Walked:
    """Quantiles (value, quantity), P(> 0) (quantity,), errors of shares (value and 0, quantity), and split R-hat."""

    keys: list[Key]
    at: Array
    p_positive: Array
    error: Array
    rhat: Array


def walk_problem(problem: CrossedProblem, *, sweeps: int, seed: int) -> Walked:
    """Draw the reference of one problem; SDs are compared as logarithms."""
    draws = problem.draw_reference(sweeps, seed)
    found = summarise(draws, QUANTILES)
    keys = [*problem.design.keys, *problem.design.scale_keys]
    return Walked(keys, found["at"][:, 0], found["p_positive"][0], found["error"][:, 0], compute_rhat(draws[:, 0]))


def compute_rhat(draws: Array) -> Array:
    """Rank-normalised split R-hat (Vehtari et al. 2021) of draws (draw, chain, quantity)."""
    half = len(draws) // 2
    split = np.concatenate([draws[:half], draws[half : 2 * half]], axis=1)
    ranks = rankdata(split.reshape(-1, split.shape[-1]), axis=0).reshape(split.shape)
    z = ndtri((ranks - 0.375) / (split.shape[0] * split.shape[1] + 0.25))
    within = z.var(0, ddof=1).mean(0)
    between = half * z.mean(0).var(0, ddof=1)
    return np.asarray(np.sqrt(((half - 1) / half * within + between / half) / within))


def select_draws(fit: hte.Fit, keys: list[Key]) -> Array:
    """Draws of the named scalars, (chain, draw, quantity); SDs as logarithms."""
    posterior, columns = fit.tree["posterior"].to_dataset(), []
    for name, labels in keys:
        # An engine may store dims in any order; in keys the arm stands last.
        own = [dim for dim in posterior[name].dims if dim not in ("chain", "draw", "arm")]
        dims = [*own, *(dim for dim in posterior[name].dims if dim == "arm")]
        values = posterior[name].transpose("chain", "draw", *dims)
        places = [list(map(str, values[dim].values)).index(label) for dim, label in zip(dims, labels, strict=True)]
        column = values.values[(slice(None), slice(None), *places)]
        columns.append(np.log(column) if name.endswith("_between") else column)
    return np.stack(columns, axis=-1)


def find_crossed_disagreements(fit: hte.Fit, expected: Walked) -> list[str]:
    """Name what is further from the reference than five combined Monte-Carlo errors."""
    draws, wrong = select_draws(fit, expected.keys), []
    for value, share in enumerate(QUANTILES):
        below = (draws < expected.at[value]).astype(float)
        own = share * (1 - share) / measure_ess(below)
        z = (below.mean((0, 1)) - share) / np.sqrt(own + expected.error[value] ** 2)
        wrong += [
            f"{below[..., i].mean():.3f} of {name_key(expected.keys[i])} are below the quantile {share}"
            for i in np.flatnonzero(~(abs(z) <= ERRORS))
        ]
    return wrong + find_wrong_signs(fit, expected)


def find_wrong_signs(fit: hte.Fit, expected: Walked) -> list[str]:
    """Name stated probabilities of signs of segments' effects that are further off than five errors."""
    table, wrong = index_table(fit), []
    for i, (name, labels) in enumerate(expected.keys):
        if name == "effect":
            row = table.loc[labels]
            error = np.hypot(float(row["p_mcse"]), max(expected.error[-1, i], MIN_SIGN_ERROR))
            if not abs(float(row["p_positive"]) - expected.p_positive[i]) <= ERRORS * error:
                wrong.append(f"P(> 0) of {name_key((name, labels))} is {row['p_positive']:.4f}, by reference "
                             f"{expected.p_positive[i]:.4f}")  # fmt: skip
    return wrong


def measure_ess(indicators: Array) -> Array:
    """Effective draws of shares, (quantity,); as many as there are where a share has no error to be seen."""
    chains = xr.Dataset({"x": (("chain", "draw", "quantity"), indicators)})
    ess = az.ess(chains, method="mean")["x"].values
    total = indicators.shape[0] * indicators.shape[1]
    return np.asarray(np.clip(np.nan_to_num(ess, nan=total), 1.0, total))


def name_key(key: Key) -> str:
    """Name a scalar as ArviZ does."""
    return f"{key[0]}[{', '.join(key[1])}]" if key[1] else key[0]
