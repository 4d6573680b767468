"""Whether the draws can be trusted. Everything that is reported must pass; offsets may mix worse.

NUTS    R-hat ≤ 1.01 and bulk and tail ESS ≥ 400 (Vehtari et al. 2021), no divergences
exact   Pareto k ≤ 0.7 (Vehtari et al. 2024), 400 effective points, and a finer quadrature rule that agrees
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xarray as xr

from bayes_hte.effects import average, cells_of, effects, family_of, shares

MAX_RHAT: Final = 1.01
MIN_ESS: Final = 400.0
MAX_PARETO_K: Final = 0.7
MAX_QUADRATURE_ERROR: Final = 0.05
"""Of the log density of hyperparameters, as an SD: no posterior mean is off by more than 0.05 of its own SD."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was checked, and what a person can do about it.

    Attributes
    ----------
    ok : bool
        Whether the fit passed.
    problems : tuple of str
        Sentences with the way out; empty when `ok`.
    rhat_max, ess_bulk_min, ess_tail_min : float
        The worst value among everything reported.
    divergences : int
        Divergent transitions after tuning.
    worst : str
        The reported quantity with the fewest effective draws.
    refitted : bool
        Whether a first attempt failed and was repeated with smaller steps and more tuning.
    pareto_k, quadrature_error : float or None
        The certificate of the exact engine; None for NUTS. The exact engine has no chains, so R-hat is 1 by
        definition, and its effective draws are the effective number of weighted points.
    """

    ok: bool
    problems: tuple[str, ...]
    rhat_max: float
    ess_bulk_min: float
    ess_tail_min: float
    divergences: int
    worst: str
    refitted: bool = False
    pareto_k: float | None = None
    quadrature_error: float | None = None

    def __str__(self) -> str:
        """One line for a terminal or the top of a report."""
        numbers = self.numbers()
        return f"passed ({numbers})" if self.ok else f"FAILED ({numbers}): {' '.join(self.problems)}"

    def numbers(self) -> str:
        """What was measured."""
        if self.pareto_k is not None and self.quadrature_error is not None:
            return _measured(self.pareto_k, self.ess_bulk_min, self.quadrature_error)
        numbers = (
            f"R-hat ≤ {self.rhat_max:.3f}, effective draws ≥ {min(self.ess_bulk_min, self.ess_tail_min):.0f}, "
            f"{self.divergences} divergences"
        )
        return numbers + (", second attempt with smaller steps" if self.refitted else "")


def diagnose(tree: xr.DataTree) -> Diagnosis:
    """Check everything that is reported.

    Parameters
    ----------
    tree : xarray.DataTree
        A posterior with the groups posterior, sample_stats and cells.

    Returns
    -------
    Diagnosis
    """
    if "pareto_k" in tree["sample_stats"]:
        return _certified(tree)
    import arviz_stats as az

    reported = _reported(tree)
    with np.errstate(divide="ignore", invalid="ignore"):  # a quantity that never moves is judged below
        rhat = _flat(az.rhat(reported), undefined=math.inf)
        bulk = _flat(az.ess(reported, method="bulk"), undefined=0.0)
        tail = _flat(az.ess(reported, method="tail"), undefined=0.0)
    for name in _not_finite(reported):  # ranks would hide an infinite draw
        rhat[name], bulk[name], tail[name] = math.inf, 0.0, 0.0
    diverging = tree["sample_stats"].get("diverging")
    found = Diagnosis(
        ok=True,
        problems=(),
        rhat_max=max(rhat.values()),
        ess_bulk_min=min(bulk.values()),
        ess_tail_min=min(tail.values()),
        divergences=0 if diverging is None else int(diverging.sum()),
        worst=min(bulk, key=lambda name: min(bulk[name], tail[name])),
    )
    problems = _problems(found, max(rhat, key=lambda name: rhat[name]))
    return replace(found, ok=not problems, problems=problems)


def _certified(tree: xr.DataTree) -> Diagnosis:
    """The exact engine's certificate as a diagnosis: its draws are independent, so there is nothing else to ask."""
    stats, problems = tree["sample_stats"], certificate_problems(tree)
    effective = float(stats["effective_points"])
    return Diagnosis(
        ok=not problems,
        problems=problems,
        rhat_max=1.0,
        ess_bulk_min=effective,
        ess_tail_min=effective,
        divergences=0,
        worst="hyperparameters",
        pareto_k=float(stats["pareto_k"]),
        quadrature_error=float(stats["quadrature_error"]),
    )


def certificate_problems(tree: xr.DataTree) -> tuple[str, ...]:
    """Why the exact engine cannot vouch for its draws; empty if it can."""
    stats, problems = tree["sample_stats"], []
    pareto_k, effective, error = (float(stats[name]) for name in ("pareto_k", "effective_points", "quadrature_error"))
    if not pareto_k <= MAX_PARETO_K:
        problems.append(f"The importance weights have too long a tail: Pareto k is {pareto_k:.2f}, at most "
                        f"{MAX_PARETO_K} is allowed.")  # fmt: skip
    if not effective >= MIN_ESS:
        problems.append(f"Only {effective:.0f} points are effective, {MIN_ESS:.0f} are needed.")
    if not error <= MAX_QUADRATURE_ERROR:
        problems.append(f"A finer quadrature rule changes the log density by {error:.2g}, at most "
                        f"{MAX_QUADRATURE_ERROR} is allowed.")  # fmt: skip
    if not bool(np.isfinite(tree["posterior"].to_dataset()["effect"].values).all()):
        problems.append("Some effects are not finite.")
    return tuple(problems)


def certificate(tree: xr.DataTree) -> str:
    """What the exact engine measured of itself."""
    stats = tree["sample_stats"]
    return _measured(*(float(stats[name]) for name in ("pareto_k", "effective_points", "quadrature_error")))


def _measured(pareto_k: float, effective: float, error: float) -> str:
    weights = "quadrature only" if pareto_k == -math.inf else f"Pareto k {max(pareto_k, 0.0):.2f}"
    return f"{weights}, {effective:,.0f} effective points, quadrature error {error:.1g}"


def _problems(found: Diagnosis, apart: str) -> tuple[str, ...]:
    problems = []
    if not found.rhat_max <= MAX_RHAT:
        problems.append(
            f"The chains disagree about {apart}: R-hat is {found.rhat_max:.3f}, at most {MAX_RHAT} is allowed."
        )
    fewest = min(found.ess_bulk_min, found.ess_tail_min)
    if not fewest >= MIN_ESS:
        problems.append(f"Only {fewest:.0f} effective draws of {found.worst}, {MIN_ESS:.0f} are needed: raise draws.")
    if found.divergences:
        problems.append(
            f"{found.divergences} divergent transitions: parts of the posterior were not explored. "
            "A tighter prior for the between-segment SD usually helps."
        )
    return tuple(problems)


def _reported(tree: xr.DataTree) -> xr.Dataset:
    """Parameters of the model, and the effects and ATE on the absolute scale."""
    posterior = tree["posterior"].to_dataset()
    kept = [name for name in map(str, posterior.data_vars) if not name.endswith("_offset")]
    reported = posterior[kept]
    if family_of(tree).link != "identity":
        reported["effect_absolute"] = effects(tree, "absolute")
    reported["ate"] = average(effects(tree, "absolute"), shares(cells_of(tree)))
    return reported


def _not_finite(reported: xr.Dataset) -> list[str]:
    """Names of the scalars with a draw that is not a finite number."""
    sample = ("chain", "draw")
    total = xr.Dataset({name: values.sum(sample, skipna=False) for name, values in reported.data_vars.items()})
    return [name for name, value in _flat(total, undefined=math.nan).items() if math.isnan(value)]


def _flat(dataset: xr.Dataset, *, undefined: float) -> dict[str, float]:
    """Every scalar by a readable name; a quantity that never moves has no R-hat or ESS and counts as bad."""
    values = {}
    for name in map(str, dataset.data_vars):
        array = dataset[name]
        for index in np.ndindex(array.shape):
            place = ", ".join(str(array[dim].values[i]) for dim, i in zip(array.dims, index, strict=True))
            number = float(array.values[index])
            values[f"{name}[{place}]" if place else name] = number if math.isfinite(number) else undefined
    return values
