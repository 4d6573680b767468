"""Whether a fit agrees with the random walk: shares of draws below quantiles, and P(> 0), within five errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from metropolis_reference import Array, summarise, walk
from random_problems import RandomProblem
from reference_batches import PACKERS
from scipy import special

import bayes_hte as hte

QUANTILES = (0.025, 0.5, 0.975)
ERRORS = 5.0


@dataclass(frozen=True)
class Expected:
    """Quantiles (value, quantity), P(> 0) (quantity,), and errors of shares (value and 0, quantity)."""

    at: Array
    p_positive: Array
    error: Array


def draw_reference(problems: Sequence[RandomProblem], *, sweeps: int, seed: int) -> list[Expected]:
    """Walk a batch; quantities are the effects of segments, then the common effect and log tau where there is one."""
    family = problems[0].family
    parts = [walk(pack(problems), sweeps=sweeps, seed=seed + i) for i, pack in enumerate(PACKERS[family])]
    effects = parts[0]["e"] if len(parts) == 1 else combine_parts(*parts)
    shared = [parts[0][name][..., None] for name in ("mean_e", "log_e")] if len(parts) == 1 else []
    found = summarise(np.concatenate([effects, *shared], axis=-1), QUANTILES)
    expected = []
    for number, problem in enumerate(problems):
        count = problem.cells.sizes["segment"]
        places = [*range(count), *range(effects.shape[-1], effects.shape[-1] + len(shared))]
        expected.append(
            Expected(
                found["at"][:, number, places], found["p_positive"][number, places], found["error"][:, number, places]
            )
        )
    return expected


def combine_parts(chance: Mapping[str, Array], amount: Mapping[str, Array]) -> Array:
    """Log of the ratio of means, p exp(amount + sigma² / 2) of both arms."""
    half_variances = 0.5 * np.exp(2 * amount["nuisance"])
    control = special.log_expit(chance["b"]) + amount["b"] + half_variances[..., 0, None]
    treated = special.log_expit(chance["b"] + chance["e"]) + amount["b"] + amount["e"] + half_variances[..., 1, None]
    return np.asarray(treated - control)


def find_disagreements(fit: hte.Fit, expected: Expected) -> list[str]:
    """Name what is further from the reference than five combined Monte-Carlo errors."""
    posterior = fit.tree["posterior"]
    effect = posterior["effect"].squeeze("arm", drop=True).transpose("chain", "draw", "segment").values
    columns = [*effect.reshape(-1, effect.shape[-1]).T]
    if len(columns) < expected.p_positive.size:
        columns += [posterior["effect_mean"].values.ravel(), np.log(posterior["effect_between"].values.ravel())]
    draws = np.array(columns)
    points = float(fit.tree["sample_stats"].get("effective_points", np.inf))
    wrong = []
    for value, share in enumerate(QUANTILES):
        below = (draws < expected.at[value][:, None]).mean(-1)
        own = share * (1 - share) * (1 / draws.shape[1] + 1 / points)
        z = (below - share) / np.sqrt(own + expected.error[value] ** 2)
        wrong += [
            f"{below[i]:.3f} of quantity {i} is below the quantile {share}" for i in np.flatnonzero(abs(z) > ERRORS)
        ]
    table = fit.table("link", detail=True)
    stated = table["p_positive"].to_numpy(float)
    # A walk that met no draw on the other side knows that there are fewer than about three.
    error = np.hypot(table["p_mcse"].to_numpy(float), np.maximum(expected.error[-1][: len(stated)], 5e-4))
    z = (stated - expected.p_positive[: len(stated)]) / error
    return wrong + [
        f"P(> 0) of segment {i} is {stated[i]:.4f}, by reference {expected.p_positive[i]:.4f}"
        for i in np.flatnonzero(abs(z) > ERRORS)
    ]
