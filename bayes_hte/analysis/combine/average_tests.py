"""Average the draws of a model of segment × test over tests: the effect of each segment over the units of all tests.

    effect[s] = Σ_t share[s, t] effect[s, t],      share[s, t] = units of segment s in test t / those in all tests

on the link scale, draw by draw: of the tests that were made, not of tests that might be. A test that a segment was not
part of has no share in it. Where sizes are not known, tests count by the precision of their own estimates.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from bayes_hte.analysis.combine.two_test_model import name_segment_term
from bayes_hte.decisions.verdicts import find_tested_cells
from bayes_hte.estimands.effects import mark_pooled_segments
from bayes_hte.model.families import FAMILIES, select_model_statistics
from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.model.parameters import list_coefficients, name_term_variable
from bayes_hte.spec import Model, cell_table
from bayes_hte.spec.cell_table import ARM, SEGMENT


@dataclass(frozen=True, slots=True)
class StackedTests:
    """The cells of several tests of the same segments.

    Attributes
    ----------
    cells : xarray.Dataset
        Cells segment × test side by side; dims (segment, arm).
    pooled_cells : xarray.Dataset
        Cells of all tests together; dims (segment, arm).
    dimension : str
        The dimension of `cells` whose levels are the tests.
    """

    cells: xr.Dataset
    pooled_cells: xr.Dataset
    dimension: str

    @property
    def segment_dimensions(self) -> list[str]:
        """Dimensions of the segments, without that of tests."""
        return cell_table.list_dimensions(self.pooled_cells)

    @property
    def segment_term(self) -> str:
        """Term of ``by`` whose levels are the segments."""
        return name_segment_term(self.segment_dimensions)


def compute_test_shares(stack: StackedTests, model: Model) -> FloatArray:
    """Compute the share of every cell segment × test in its segment: (segment, segment × test, arm), 1 over tests.

    Parameters
    ----------
    stack : StackedTests
    model : Model
        Says how precise a segment's own estimate is, where sizes are not known.
    """
    members, weights = mark_pooled_segments(stack.pooled_cells, stack.cells), _measure_tests(stack.cells, model)
    is_tested = find_tested_cells(stack.cells).transpose(SEGMENT, ARM).values
    # Where no test had the arm in a segment, its effect is predicted for all tests that had the segment.
    arm_weights = members[:, :, None] * np.where(is_tested, weights[:, None], 0.0)
    is_untested = arm_weights.sum(1, keepdims=True) == 0
    arm_weights = np.where(is_untested, (members * weights)[:, :, None], arm_weights)
    return np.asarray(arm_weights / arm_weights.sum(1, keepdims=True))


def _measure_tests(stacked_cells: xr.Dataset, model: Model) -> FloatArray:
    """Measure how much each segment × test counts: its units, else the precision of its own estimate; (segment,)."""
    cell_sizes = cell_table.get_cell_sizes(stacked_cells)
    if cell_sizes is not None:
        # Above 0, so that a segment without units has shares, too.
        return np.asarray(np.maximum(cell_sizes.sum(ARM).values.astype(float), 1e-12))
    estimates = FAMILIES[model.family].estimate_raw_effects(select_model_statistics(stacked_cells, model), "link")
    # 1 / se², of the arms together
    precision = (estimates["raw_se"] ** -2.0).fillna(0.0).sum(ARM)
    return np.asarray(np.maximum(precision.values.astype(float), 1e-300))


def average_posterior(posterior: xr.Dataset, model: Model, stack: StackedTests) -> xr.Dataset:
    """Average the draws of the extended model over tests: the variables that the model of one test has.

    Parameters
    ----------
    posterior : xarray.Dataset
        Of the extended model, dims (chain, draw, segment × test, …).
    model : Model
        Of one test.
    stack : StackedTests
    """
    shares, dimension = compute_test_shares(stack, model), stack.dimension
    test_shares = _compute_overall_shares(stack, shares)
    averaged, dropped_names = {}, set()
    for coefficient in list_coefficients(model):
        name = coefficient.name
        averaged[name] = _average_coefficient(posterior[name], shares, stack.pooled_cells)
        if coefficient.pooling != "partial":
            continue
        own_term, own_test = name_term_variable(name, stack.segment_term), name_term_variable(name, dimension)
        # The centre of segments in these tests: the mean, and what the tests moved in all segments
        centre = xr.dot(posterior[own_test], test_shares, dim=dimension)
        averaged[f"{name}_mean"] = centre + posterior.get(f"{name}_mean", 0.0)
        dropped_names |= {own_test, f"{own_test}_between"}
        if stack.segment_term not in coefficient.pool_priors.by:
            averaged[f"{name}_between"] = posterior[f"{own_term}_between"]
            dropped_names |= {own_term, f"{own_term}_between"}
    # What segments do not have of their own, such as nuisance parameters and effects of levels, tests share.
    kept_names = [name for name in posterior.data_vars if name not in {*averaged, *dropped_names}]
    shared_draws = {name: posterior[name] for name in kept_names if SEGMENT not in posterior[name].dims}
    averaged_posterior = xr.Dataset({**shared_draws, **averaged})
    return averaged_posterior.transpose("chain", "draw", SEGMENT, ARM, ..., missing_dims="ignore")


def _average_coefficient(draws: xr.DataArray, shares: FloatArray, pooled_cells: xr.Dataset) -> xr.DataArray:
    """Average a coefficient's draws over tests; a baseline, which all arms share, by the mean of their shares."""
    arm_dims = [ARM] if ARM in draws.dims else []
    values = draws.transpose("chain", "draw", SEGMENT, *arm_dims).values
    # coefficient[s] = Σ_t share[s, t] coefficient[s, t]
    if arm_dims:
        averages = np.stack([values[..., arm] @ shares[:, :, arm].T for arm in range(values.shape[-1])], axis=-1)
    else:
        averages = values @ shares.mean(-1).T
    coords = {dim: draws[dim].values for dim in ("chain", "draw", *arm_dims)}
    dims = ("chain", "draw", SEGMENT, *arm_dims)
    return xr.DataArray(averages, dims=dims, coords={**coords, SEGMENT: pooled_cells[SEGMENT].values})


def _compute_overall_shares(stack: StackedTests, shares: FloatArray) -> xr.DataArray:
    """Compute the share of every test, segments counting alike; dims (test,)."""
    tests = stack.cells[stack.dimension].values.astype(str)
    labels = list(dict.fromkeys(tests))
    weights = shares.mean((0, 2))
    totals = np.array([weights[tests == label].sum() for label in labels])
    return xr.DataArray(totals / totals.sum(), dims=stack.dimension, coords={stack.dimension: labels})
