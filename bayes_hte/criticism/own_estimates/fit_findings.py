"""Question a fit whose draws are right: does the prior contradict the data, do effects go together with size?"""

from dataclasses import replace

import xarray as xr

from bayes_hte.criticism.diagnostics import Diagnosis
from bayes_hte.criticism.own_estimates.prior_conflict import find_prior_conflicts
from bayes_hte.criticism.own_estimates.segment_estimates import estimate_segments
from bayes_hte.criticism.own_estimates.size_trend import describe_size_trends
from bayes_hte.model.problem import Problem


def add_fit_findings(diagnosis: Diagnosis, problem: Problem, posterior: xr.Dataset, cells: xr.Dataset) -> Diagnosis:
    """Add what speaks against a fit beside its draws: problems, which make it unreliable, and notes, which do not.

    Parameters
    ----------
    diagnosis : Diagnosis
        Of the draws.
    problem : Problem
    posterior : xarray.Dataset
        dims (chain, draw, …).
    cells : xarray.Dataset
        The cell table.
    """
    segment_estimates = estimate_segments(problem)
    conflicts = find_prior_conflicts(segment_estimates, posterior)
    notes = (*diagnosis.notes, *conflicts.notes, *describe_size_trends(segment_estimates, posterior, cells))
    return replace(diagnosis.with_problems(conflicts.problems), notes=notes)
