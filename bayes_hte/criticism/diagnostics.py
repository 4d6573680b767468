"""Diagnose whether the draws can be trusted. Everything that is reported must pass; offsets may mix worse.

chains        R-hat ≤ 1.01 and bulk and tail ESS ≥ 400 (Vehtari et al. 2021), no divergences
certificate   Pareto k ≤ 0.7 (Vehtari et al. 2024), 400 effective points, and a finer quadrature rule that agrees
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xarray as xr

from bayes_hte.estimands.effects import compute_effects, get_fitted_family
from bayes_hte.estimands.weights import average_over_segments, compute_population_shares
from bayes_hte.inference.certificate import MIN_ESS, Certificate, read_certificate
from bayes_hte.spec.fit_tree import get_diagnosis_fields, get_fitted_cells

MAX_RHAT: Final = 1.01
"""Of rank-normalised split chains: the threshold of Vehtari et al. (2021)."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Measurements of the draws' quality, and what a person can do about failures.

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
        The certificate of an engine without chains, as the exact one; None for chains. R-hat is then 1 by
        definition, and the effective draws are the effective number of weighted points.
    notes : tuple of str
        Sentences on what to keep in mind with a fit that may well have passed.
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
    notes: tuple[str, ...] = ()

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of an engine that has no chains; None for chains."""
        if self.pareto_k is None or self.quadrature_error is None:
            return None
        return Certificate(self.pareto_k, self.ess_bulk_min, self.quadrature_error)

    def with_problems(self, problems: tuple[str, ...]) -> "Diagnosis":
        """Return the diagnosis with further sentences; it has not passed if there are any."""
        return replace(self, ok=self.ok and not problems, problems=(*self.problems, *problems))

    def with_notes(self, notes: tuple[str, ...]) -> "Diagnosis":
        """Return the diagnosis with further notes, which say nothing against the draws."""
        return replace(self, notes=(*self.notes, *notes))

    def __str__(self) -> str:
        """Write one line for a terminal or the top of a report."""
        number_text = self.numbers()
        return f"passed ({number_text})" if self.ok else f"FAILED ({number_text}): {' '.join(self.problems)}"

    def numbers(self) -> str:
        """Write what was measured as a phrase."""
        if self.certificate is not None:
            return self.certificate.describe()
        number_text = (
            f"R-hat ≤ {self.rhat_max:.3f}, effective draws ≥ {min(self.ess_bulk_min, self.ess_tail_min):.0f}, "
            f"{self.divergences} divergences"
        )
        return number_text + (", second attempt with smaller steps" if self.refitted else "")


def read_diagnosis(fit_tree: xr.DataTree) -> Diagnosis:
    """Read the diagnosis that was made with a fit."""
    diagnosis_fields = get_diagnosis_fields(fit_tree)
    # JSON has lists; fits of before there were notes have none.
    sentence_fields = {name: tuple(diagnosis_fields.get(name, ())) for name in ("problems", "notes")}
    return Diagnosis(**{**diagnosis_fields, **sentence_fields})


def diagnose_draws(fit_tree: xr.DataTree) -> Diagnosis:
    """Check the draws of everything that is reported.

    Parameters
    ----------
    fit_tree : xarray.DataTree
        A posterior with the groups posterior, sample_stats and cells.

    Returns
    -------
    Diagnosis
    """
    # Draws with a certificate are independent, which R-hat cannot fault.
    certificate = read_certificate(fit_tree)
    return _diagnose_chains(fit_tree) if certificate is None else _diagnose_certificate(fit_tree, certificate)


def _diagnose_chains(fit_tree: xr.DataTree) -> Diagnosis:
    """Measure R-hat and effective sample sizes of everything that is reported, and count divergences."""
    import arviz_stats as az

    reported_draws = _select_reported_quantities(fit_tree)
    with np.errstate(divide="ignore", invalid="ignore"):  # a quantity that never moves is judged below
        rhat_by_name = _flatten_scalars(az.rhat(reported_draws), undefined_value=math.inf)
        bulk_ess = _flatten_scalars(az.ess(reported_draws, method="bulk"), undefined_value=0.0)
        tail_ess = _flatten_scalars(az.ess(reported_draws, method="tail"), undefined_value=0.0)
    for quantity_name in _list_nonfinite_scalars(reported_draws):  # ranks would hide an infinite draw
        rhat_by_name[quantity_name], bulk_ess[quantity_name], tail_ess[quantity_name] = math.inf, 0.0, 0.0
    divergent_draws = fit_tree["sample_stats"].get("diverging")
    diagnosis = Diagnosis(
        ok=True,
        problems=(),
        rhat_max=max(rhat_by_name.values()),
        ess_bulk_min=min(bulk_ess.values()),
        ess_tail_min=min(tail_ess.values()),
        divergences=0 if divergent_draws is None else int(divergent_draws.sum()),
        worst=min(bulk_ess, key=lambda name: min(bulk_ess[name], tail_ess[name])),
    )
    chain_warnings = _list_chain_warnings(diagnosis, max(rhat_by_name, key=lambda name: rhat_by_name[name]))
    return replace(diagnosis, ok=not chain_warnings, problems=chain_warnings)


def _diagnose_certificate(fit_tree: xr.DataTree, certificate: Certificate) -> Diagnosis:
    """Turn a certificate into a diagnosis: the draws are independent, so nothing else is measured."""
    warnings = certificate.list_warnings()
    if not bool(np.isfinite(fit_tree["posterior"].to_dataset()["effect"].values).all()):
        warnings += ("Some effects are not finite.",)
    return Diagnosis(
        ok=not warnings,
        problems=warnings,
        rhat_max=1.0,
        ess_bulk_min=certificate.effective_points,
        ess_tail_min=certificate.effective_points,
        divergences=0,
        worst="hyperparameters",
        pareto_k=certificate.pareto_k,
        quadrature_error=certificate.quadrature_error,
    )


def _list_chain_warnings(diagnosis: Diagnosis, worst_rhat_name: str) -> tuple[str, ...]:
    """List the sentences why chains cannot be trusted; empty if they can."""
    chain_warnings = []
    if not diagnosis.rhat_max <= MAX_RHAT:
        chain_warnings.append(
            f"The chains disagree about {worst_rhat_name}: R-hat is {diagnosis.rhat_max:.3f}, at most {MAX_RHAT} is "
            "allowed."
        )
    smallest_ess = min(diagnosis.ess_bulk_min, diagnosis.ess_tail_min)
    if not smallest_ess >= MIN_ESS:
        chain_warnings.append(
            f"Only {smallest_ess:.0f} effective draws of {diagnosis.worst}, {MIN_ESS:.0f} are needed: raise draws."
        )
    if diagnosis.divergences:
        chain_warnings.append(
            f"{diagnosis.divergences} divergent transitions: parts of the posterior were not explored. "
            "A tighter prior for the between-segment SD usually helps."
        )
    return tuple(chain_warnings)


def _select_reported_quantities(fit_tree: xr.DataTree) -> xr.Dataset:
    """Select the parameters of the model, and add the effects and the ATE on the absolute scale."""
    posterior = fit_tree["posterior"].to_dataset()
    # Offsets of the non-centred form are not reported, and mix worse than what is made of them.
    kept_names = [name for name in map(str, posterior.data_vars) if not name.endswith("_offset")]
    reported_draws = posterior[kept_names]
    if get_fitted_family(fit_tree).link != "identity":
        reported_draws["effect_absolute"] = compute_effects(fit_tree, "absolute")
    reported_draws["ate"] = average_over_segments(
        compute_effects(fit_tree, "absolute"), compute_population_shares(get_fitted_cells(fit_tree))
    )
    return reported_draws


def _list_nonfinite_scalars(reported_draws: xr.Dataset) -> list[str]:
    """List the scalars with a draw that is not a finite number."""
    sample_dims = ("chain", "draw")
    # One infinite or undefined draw makes a sum that is not finite: a pass over the draws without a copy of them.
    draw_sums = xr.Dataset({name: draws.sum(sample_dims, skipna=False) for name, draws in reported_draws.items()})
    scalar_sums = _flatten_scalars(draw_sums, undefined_value=math.nan)
    return [name for name, scalar_sum in scalar_sums.items() if math.isnan(scalar_sum)]


def _flatten_scalars(scalar_dataset: xr.Dataset, *, undefined_value: float) -> dict[str, float]:
    """Flatten variables to scalars by readable names; a quantity that never moves has no R-hat or ESS: it is bad."""
    scalar_by_name = {}
    for variable_name in map(str, scalar_dataset.data_vars):
        variable_values = scalar_dataset[variable_name]
        for element_index in np.ndindex(variable_values.shape):
            dim_positions = zip(variable_values.dims, element_index, strict=True)
            index_label = ", ".join(str(variable_values[dim].values[position]) for dim, position in dim_positions)
            scalar_name = f"{variable_name}[{index_label}]" if index_label else variable_name
            scalar_value = float(variable_values.values[element_index])
            scalar_by_name[scalar_name] = scalar_value if math.isfinite(scalar_value) else undefined_value
    return scalar_by_name
