"""Random numbers for the proposals of segments' coefficients.

Where millions of normals are needed and single precision is enough, half the time goes into them. A Metropolis step
is exact for whatever the density of a proposal is, as long as it is the one that is computed; normals that end at
5.8 SDs, a 24-bit grid of uniforms, change nothing that could be measured.
"""

import numpy as np
from numpy.typing import NDArray

Single = NDArray[np.float32]
_STEP = np.float32(2.0**-24)
_CIRCLE = np.float32(2 * np.pi)


def normals(rng: np.random.Generator, count: int, shape: tuple[int, ...]) -> list[Single]:
    """`count` arrays of standard normals, by pairs (Box & Muller 1958, Ann. Math. Stat. 29:610)."""
    found: list[Single] = []
    size = int(np.prod(shape))
    while len(found) < count:
        # The upper 24 of every 32 random bits, as a uniform in (0, 1]
        uniforms = ((rng.bit_generator.random_raw(size).view(np.uint32) >> 8) + np.uint32(1)).astype(np.float32)
        uniforms *= _STEP
        radius, angle = uniforms.reshape(2, *shape)
        np.log(radius, out=radius)
        radius *= np.float32(-2.0)
        np.sqrt(radius, out=radius)
        angle *= _CIRCLE
        found.append(np.cos(angle) * radius)
        np.sin(angle, out=angle)
        angle *= radius
        found.append(angle)
    return found[:count]
