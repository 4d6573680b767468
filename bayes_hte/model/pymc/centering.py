"""Offsets in coordinates in which NUTS has an easy way: where a coefficient's own data, and what pools it, put it.

A coefficient is centre + scale * offset, offset ~ Normal(0, 1). If its data alone say Normal(at, 1 / precision), then
given centre and scale the posterior of the offset is Normal(offset_mean, 1 / offset_precision) with

    offset_precision = 1 + precision * scale²      offset_mean = scale * precision * (at - centre) / offset_precision

so (offset - offset_mean) * √offset_precision is about Normal(0, 1) whatever centre and scale are: no funnel where data
are weak, no ridge where they are strong. Non-centred is precision = 0, centred is precision → ∞. The model itself is
unchanged: what is sampled is Normal(-offset_mean * √offset_precision, √offset_precision), which makes the offset
Normal(0, 1).

References
----------
Papaspiliopoulos, Roberts & Sköld (2007), Statistical Science 22:59; Christensen, Roberts & Sköld (2006), Journal of
Computational and Graphical Statistics 15:1.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pytensor.tensor.variable import TensorVariable


@dataclass(frozen=True, slots=True)
class GaussianMessage:
    """A coefficient's likelihood, about Normal(information / precision, 1 / precision); flat where both are 0.

    Attributes
    ----------
    information, precision : array or variable
        Canonical parameters of the normal; shapes broadcast with the coefficient's, segments are the first axis.
    """

    information: Any
    precision: Any

    def without(self, known_part: Any) -> "GaussianMessage":
        """Subtract a known part of the coefficient: the message about what is added to it."""
        # Of x = known + y: information_y = information − precision * known
        return GaussianMessage(self.information - self.precision * known_part, self.precision)

    def widen(self, scale: Any) -> "GaussianMessage":
        """Add an unknown normal part to the coefficient: the message about what it is added to."""
        # at ~ Normal(x, 1 / precision + scale²)
        widening = 1 + self.precision * scale**2
        return GaussianMessage(self.information / widening, self.precision / widening)

    def select_treated(self) -> "GaussianMessage":
        """Select the messages of treated cells, where those of the control come first."""
        return GaussianMessage(self.information[:, 1:], self.precision[:, 1:])


@dataclass(frozen=True, slots=True)
class SegmentSites:
    """Normal approximations of cells, less what is known, and what offsets add to their linear predictors.

    Attributes
    ----------
    message : GaussianMessage
        (segment, cell): the control's cell first where there is a baseline, then those of the arms.
    own_scale : variable
        (segment, cell): scale of the effect's own offset.
    loading : variable
        (segment, cell): what an offset of 1 of the baseline adds.
    """

    message: GaussianMessage
    own_scale: Any
    loading: Any

    def describe_baseline(self, cell_centres: Any) -> GaussianMessage:
        """Combine the messages of a segment's cells, given their centres, to one about the baseline's offset."""
        offset_message = self.message.without(cell_centres).widen(self.own_scale)
        return GaussianMessage(
            (offset_message.information * self.loading).sum(axis=1),
            (offset_message.precision * self.loading**2).sum(axis=1),
        )


def add_informed_offset(
    name: str,
    data_message: GaussianMessage,
    centre: Any,
    scale: Any,
    *,
    dims: tuple[str, ...] | None = None,
    nu: Any = None,
) -> "TensorVariable":
    """Add a standard normal (or Student's t) offset of centre + scale * offset, as the module's docstring has it.

    Parameters
    ----------
    name : str
        Name of the variable that is sampled; the offset itself has none.
    data_message : GaussianMessage
        Likelihood of the coefficient.
    centre, scale : array or variable
    dims : tuple of str, optional
    nu : float or variable, optional
        Degrees of freedom of Student's t; a normal without.
    """
    import pymc as pm

    offset_precision = 1 + data_message.precision * scale**2
    offset_mean = scale * (data_message.information - data_message.precision * centre) / offset_precision
    root_precision = offset_precision**0.5
    tail_options = {} if nu is None else {"nu": nu}
    # Chains start where the data are, not where the prior is.
    initial_offset = np.zeros([int(pm.modelcontext(None).dim_lengths[dim].eval()) for dim in dims or ()])
    distribution = pm.Normal if nu is None else pm.StudentT
    sampled_offset = distribution(
        name, mu=-offset_mean * root_precision, sigma=root_precision, dims=dims, initval=initial_offset, **tail_options
    )
    return offset_mean + sampled_offset / root_precision
