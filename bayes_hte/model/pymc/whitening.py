"""Add what segments share in coordinates in which its posterior is about standard normal, whatever the SDs are.

Means, slopes and effects of levels are x = prior mean + scale * v, v ~ Normal(0, 1). With every cell's likelihood a
normal one in its linear predictor (`centering.GaussianMessage`), v given the SDs is normal with a mean and a precision
H = L L' in closed form (`whitening_loops`). What is sampled is e, and v = v_hat + L'⁻¹ e: so e is about Normal(0, I),
without a ridge between means, levels and slopes, or a funnel between levels and their SDs. The model is unchanged:

    p(e) = Normal(v; 0, I) / |L|

It is one operation with a gradient of its own: as a graph of small ones it takes minutes to compile.

References
----------
Papaspiliopoulos, Roberts & Sköld (2007), Statistical Science 22:59; Christensen, Roberts & Sköld (2006), Journal of
Computational and Graphical Statistics 15:1.
"""

import inspect
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph import Apply, Op
from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key
from pytensor.tensor.variable import TensorVariable

from bayes_hte.model.families.cell_likelihood import FloatArray
from bayes_hte.model.pymc import whitening_loops as loops
from bayes_hte.model.pymc.centering import SegmentSites
from bayes_hte.model.pymc.linear_terms import SHARED_OFFSET, BetweenScales, PlacedTerm, lay_out_terms
from bayes_hte.model.pymc.whitening_loops import IndexArray

POTENTIAL_NAME = "whitening__"
"""Name of the potential; no dimension leads to a name that ends in two underscores."""
_CODE_VERSION = zlib.crc32((inspect.getsource(loops) + inspect.getsource(sys.modules[__name__])).encode())
"""Part of the key of machine code on disk, which knows an operation by its name alone."""
_MOVING_INPUTS = (1, 2, 3)
"""Inputs with a gradient: all others are data."""


class WhitenShared(Op):  # type: ignore[misc]
    """Compute v from e, what it adds to the coefficients, and what the change of variables adds to the log density.

    Inputs are precision (segment, cell), moving (3, segment, cell), prior_scale (entry,), whitened (entry,) and the
    entries of every coefficient (`linear_terms.SharedLayout`); outputs v (entry,), centres (coefficient, segment) and
    the log of p(v) / |L| less log p(e).

    Parameters
    ----------
    has_baseline : bool
        Whether the first coefficient is a baseline, part of all cells.
    """

    __props__ = ("has_baseline",)

    def __init__(self, has_baseline: bool) -> None:
        self.has_baseline = has_baseline

    def make_node(self, *inputs: Any) -> Apply:
        """Make the node of a graph."""
        variables = [pt.as_tensor(each) for each in inputs]
        entry_count, centre_shape = variables[3].type.shape, variables[4].type.shape[:2]
        outputs = [pt.tensor(dtype="float64", shape=shape) for shape in (entry_count, centre_shape, ())]
        return Apply(self, variables, outputs)

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: list[list[Any]]) -> None:
        """Compute the outputs without machine code."""
        for storage, values in zip(output_storage, _write_forward(self.has_baseline)(*inputs), strict=True):
            storage[0] = values

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Say which inputs move the outputs."""
        return [[position in _MOVING_INPUTS] * 3 for position in range(len(node.inputs))]

    def pullback(self, inputs: Sequence[Any], outputs: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        """Compute the gradient."""
        output_bars = [
            pt.zeros_like(output) if isinstance(cotangent.type, DisconnectedType) else cotangent
            for output, cotangent in zip(outputs, cotangents, strict=True)
        ]
        bars = DifferentiateWhitening(self.has_baseline)(*inputs, *output_bars)
        bar_by_position = dict(zip(_MOVING_INPUTS, bars, strict=True))
        return [bar_by_position.get(position, disconnected_type()) for position in range(len(inputs))]


class DifferentiateWhitening(Op):  # type: ignore[misc]
    """Compute the gradient of `WhitenShared` in moving, prior_scale and whitened, given that in its outputs."""

    __props__ = ("has_baseline",)

    def __init__(self, has_baseline: bool) -> None:
        self.has_baseline = has_baseline

    def make_node(self, *inputs: Any) -> Apply:
        """Make the node of a graph."""
        variables = [pt.as_tensor(each) for each in inputs]
        return Apply(self, variables, [variables[position].type() for position in _MOVING_INPUTS])

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: list[list[Any]]) -> None:
        """Compute the outputs without machine code."""
        for storage, bar in zip(output_storage, _write_gradient(self.has_baseline)(*inputs), strict=True):
            storage[0] = bar


def _write_forward(has_baseline: bool) -> Callable[..., Any]:
    """Write the function of `WhitenShared`, for Numba and for Python."""

    def whiten(  # noqa: PLR0917 (inputs of the operation)
        precision: FloatArray,
        moving: FloatArray,
        prior_scale: FloatArray,
        whitened: FloatArray,
        entry_index: IndexArray,
        entry_value: FloatArray,
    ) -> Any:
        pull_sum, precision_sum = loops.sum_segments(
            precision, moving, entry_index, entry_value, len(whitened), has_baseline
        )
        standard, log_change = loops.solve_shared(pull_sum, precision_sum, prior_scale, whitened)
        centres = np.zeros(entry_index.shape[:2])
        loops.add_up_centres(prior_scale * standard, entry_index, entry_value, centres)
        return standard, centres, np.asarray(log_change)

    return whiten


def _write_gradient(has_baseline: bool) -> Callable[..., Any]:
    """Write the function of `DifferentiateWhitening`, for Numba and for Python."""

    def differentiate(  # noqa: PLR0917 (inputs of the operation)
        precision: FloatArray,
        moving: FloatArray,
        prior_scale: FloatArray,
        whitened: FloatArray,
        entry_index: IndexArray,
        entry_value: FloatArray,
        standard_bar: FloatArray,
        centre_bar: FloatArray,
        change_bar: FloatArray,
    ) -> Any:
        pull_sum, precision_sum = loops.sum_segments(
            precision, moving, entry_index, entry_value, len(whitened), has_baseline
        )
        shared_bar = np.zeros(len(whitened))
        loops.spread_centre_bars(centre_bar, entry_index, entry_value, shared_bar)
        pull_bar, precision_bar, scale_bar, whitened_bar = loops.differentiate_shared(
            pull_sum, precision_sum, prior_scale, whitened, standard_bar + prior_scale * shared_bar, change_bar.item()
        )
        standard = loops.solve_shared(pull_sum, precision_sum, prior_scale, whitened)[0]
        moving_bar = np.zeros(moving.shape)
        for segment in range(precision.shape[0]):
            cell_pull, cell_precision = loops.spread_bars(
                pull_bar, precision_bar, entry_index, entry_value, segment, has_baseline
            )
            loops.differentiate_offsets(
                precision[segment], moving[:, segment], cell_pull, cell_precision, moving_bar[:, segment]
            )
        return moving_bar, scale_bar + standard * shared_bar, whitened_bar

    return differentiate


@register_funcify_default_op_cache_key(WhitenShared)  # type: ignore[untyped-decorator]
def _compile_forward(op: WhitenShared, **_: Any) -> tuple[Callable[..., Any], int]:
    return numba_njit(_write_forward(op.has_baseline)), _CODE_VERSION


@register_funcify_default_op_cache_key(DifferentiateWhitening)  # type: ignore[untyped-decorator]
def _compile_gradient(op: DifferentiateWhitening, **_: Any) -> tuple[Callable[..., Any], int]:
    return numba_njit(_write_gradient(op.has_baseline)), _CODE_VERSION


def add_whitened_terms(
    placed_terms: Sequence[PlacedTerm],
    between_scales: BetweenScales,
    sites: SegmentSites,
    shape: tuple[int, int],
    *,
    has_baseline: bool,
) -> TensorVariable:
    """Add linear terms in coordinates that are about standard normal given the data.

    Parameters
    ----------
    placed_terms : sequence of PlacedTerm
    between_scales : BetweenScales
    sites : SegmentSites
    shape : tuple of int
        Segments, and cells of each.
    has_baseline : bool
        Whether the first cell is the control's, and the first coefficient the baseline.

    Returns
    -------
    variable
        (coefficient, segment): the sums of the terms, less their prior means.
    """
    layout = lay_out_terms(placed_terms, between_scales, *shape)
    entry_count = sum(term.column_count * len(positions) for term, positions in placed_terms)
    whitened = pm.Normal(SHARED_OFFSET, shape=entry_count)
    moving = pt.stack([sites.message.information, sites.own_scale, sites.loading])
    standard, centres, log_change = WhitenShared(has_baseline)(
        sites.message.precision, moving, layout.prior_scale, whitened, layout.entry_index, layout.entry_value
    )
    pm.Potential(POTENTIAL_NAME, log_change)

    start = 0
    for term, positions in placed_terms:
        stop = start + term.column_count * len(positions)
        dim_lengths = [int(pm.modelcontext(None).dim_lengths[dim].eval()) for dim in term.dims]
        values = term.prior_mean + term.prior_scale * standard[start:stop].reshape(dim_lengths)
        pm.Deterministic(term.variable_name, values, dims=term.dims or None)
        start = stop
    return centres
