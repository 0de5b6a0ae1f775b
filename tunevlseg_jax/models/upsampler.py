"""The learnable upsampler: a second, trainable way from the decoder's grid to the mask (the paper's section 3.3)."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.features import Decoded
from tunevlseg_jax.models.resize import resize_matrix

Upsampling = Literal["none", "blend", "add"]
"""No learnable upsampler; blended into the logits (the paper); or added to them (the published code, for VPT)."""


SIZE = 5
"""Side of the convolution in pixels."""


class Upsampler(nnx.Module):
    """Bilinear to full size, a 5x5 convolution with replicated borders to one channel, blended into the logits.

    Resize and convolution are both linear in each channel, so they are done in the other order: the channels are
    mixed on the small grid, into one map for each of the 25 offsets, and each map is resized already shifted.
    """

    def __init__(self, width: int, rngs: nnx.Rngs, mixed: int | None = None):
        """Fresh weights; `mixed` channels are made of the `width` ones first, by a 1x1 convolution without bias."""
        self.mix = None if mixed is None else nnx.Linear(width, mixed, use_bias=False, rngs=rngs)
        width = mixed or width
        bound = (width * SIZE**2) ** -0.5
        uniform = nnx.initializers.uniform(2 * bound)
        self.kernel = nnx.Param(uniform(rngs.params(), (SIZE, SIZE, width)) - bound)
        self.bias = nnx.Param(jnp.zeros(()))
        self.ratio = nnx.Param(jnp.full((), 0.5))

    def extra(self, decoded: Decoded) -> Array:
        """The second logits, (batch, height, width) float32, from the decoder's last grid."""
        features = decoded.features.astype(jnp.float32)
        if self.mix is not None:
            features = self.mix(features)
        maps = jnp.einsum("brcw,ijw->brcij", features, self.kernel[...])
        rows, columns = (
            jnp.asarray(_shifted(decoded.features.shape[axis], decoded.logits.shape[axis])) for axis in (1, 2)
        )
        wide = jnp.einsum("brcij,jxc->brix", maps, columns)
        return jnp.einsum("brix,iyr->byx", wide, rows) + self.bias[...].reshape(1, 1, 1)

    def blend(self, decoded: Decoded) -> Array:
        """(1 - ratio) * logits + ratio * extra, as the paper has it; (batch, height, width) float32."""
        ratio = self.ratio[...].reshape(1, 1, 1)
        return (1 - ratio) * decoded.logits + ratio * self.extra(decoded)

    def add(self, decoded: Decoded) -> Array:
        """logits + extra, as the published code has it for VPT; the ratio goes unused."""
        return decoded.logits + self.extra(decoded)


def _shifted(source: int, target: int) -> np.ndarray:
    """(SIZE, target, source) bilinear matrices, one for each offset of the convolution."""
    reach = SIZE // 2
    return np.stack([resize_matrix(source, target, "bilinear", shift=by) for by in range(-reach, reach + 1)])
