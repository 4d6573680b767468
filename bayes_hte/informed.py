"""Offsets in coordinates in which NUTS has an easy way: where a coefficient's own data, and what pools it, put it.

A coefficient is centre + scale * offset, offset ~ Normal(0, 1). If its data alone say Normal(at, 1 / precision), then
given centre and scale the posterior of the offset is Normal(shift, 1 / strength) with

    strength = 1 + precision * scale²      shift = scale * precision * (at - centre) / strength

so (offset - shift) * √strength is about Normal(0, 1) whatever centre and scale are: no funnel where data are weak,
no ridge where they are strong. Non-centred is precision = 0, centred is precision → ∞. The model itself is unchanged:
what is sampled is Normal(-shift * √strength, √strength), which makes the offset Normal(0, 1).

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
class Evidence:
    """What data say of a coefficient: about Normal(pull / precision, 1 / precision), nothing where both are 0.

    Attributes
    ----------
    pull, precision : array or variable
        Shapes broadcast with the coefficient's; segments are the first axis.
    """

    pull: Any
    precision: Any

    def beyond(self, known: Any) -> "Evidence":
        """The same of what is added to something known."""
        return Evidence(self.pull - self.precision * known, self.precision)

    def of_common(self, scale: Any) -> "Evidence":
        """What all segments say of their common mean when they differ by this SD."""
        strength = 1 + self.precision * scale**2
        return Evidence((self.pull / strength).sum(axis=0), (self.precision / strength).sum(axis=0))


def offset(
    name: str,
    evidence: Evidence,
    centre: Any,
    scale: Any,
    *,
    dims: tuple[str, ...] | None = None,
    nu: Any = None,
) -> "TensorVariable":
    """A standard normal (or Student's t) offset of centre + scale * offset; `name` is that of what is sampled."""
    import pymc as pm

    strength = 1 + evidence.precision * scale**2
    shift, root = scale * (evidence.pull - evidence.precision * centre) / strength, strength**0.5
    law = {} if nu is None else {"nu": nu}
    # Chains start where the data are, not where the prior is.
    start = np.zeros([int(pm.modelcontext(None).dim_lengths[dim].eval()) for dim in dims or ()])
    family = pm.Normal if nu is None else pm.StudentT
    sampled = family(name, mu=-shift * root, sigma=root, dims=dims, initval=start, **law)
    return shift + sampled / root
