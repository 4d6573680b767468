"""Whether the draws can be trusted. Everything that is reported must pass; offsets may mix worse.

Thresholds: R-hat ≤ 1.01 and bulk and tail ESS ≥ 400 (Vehtari et al. 2021), no divergences.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xarray as xr

from bayes_hte.effects import average, cells_of, effects, family_of, shares

MAX_RHAT: Final = 1.01
MIN_ESS: Final = 400.0


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
    """

    ok: bool
    problems: tuple[str, ...]
    rhat_max: float
    ess_bulk_min: float
    ess_tail_min: float
    divergences: int
    worst: str
    refitted: bool = False

    def __str__(self) -> str:
        """One line for a terminal or the top of a report."""
        numbers = (
            f"R-hat ≤ {self.rhat_max:.3f}, effective draws ≥ {min(self.ess_bulk_min, self.ess_tail_min):.0f}, "
            f"{self.divergences} divergences"
        )
        numbers += ", second attempt with smaller steps" if self.refitted else ""
        return f"passed ({numbers})" if self.ok else f"FAILED ({numbers}): {' '.join(self.problems)}"


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
