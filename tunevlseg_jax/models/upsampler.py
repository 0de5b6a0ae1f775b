"""The learnable upsampler: a second, trainable path from the decoder's grid to the mask (the paper's section 3.3)."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.features import Decoded
from tunevlseg_jax.models.products import Linear
from tunevlseg_jax.models.resize import resize_matrix
from tunevlseg_jax.models.settings import Upsampling as Upsampling  # where studies' files have it from

SIZE = 5
"""Side of the convolution in pixels."""


class Upsampler(nnx.Module):
    """A bilinear resize to full size, then a 5x5 convolution to one channel with replicated borders.

    Both are linear, so they are computed in the opposite order: the channels are reduced on the small grid to one map
    for each of the 25 offsets, and each map is resized with its shift.
    """

    def __init__(self, width: int, rngs: nnx.Rngs, mixed: int | None = None):
        """Fresh weights; if `mixed` is given, a 1x1 convolution without bias first maps `width` channels to so many."""
        self.mix = None if mixed is None else Linear(width, mixed, use_bias=False, rngs=rngs)
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
        """(1 - ratio) * logits + ratio * extra, the paper's form; (batch, height, width) float32."""
        ratio = self.ratio[...].reshape(1, 1, 1)
        return (1 - ratio) * decoded.logits + ratio * self.extra(decoded)

    def add(self, decoded: Decoded) -> Array:
        """logits + extra, the published code's form for VPT, which doesn't use the ratio."""
        return decoded.logits + self.extra(decoded)


def _shifted(source: int, target: int) -> np.ndarray:
    """(SIZE, target, source) bilinear matrices, a matrix for each offset of the convolution."""
    reach = SIZE // 2
    return np.stack([resize_matrix(source, target, "bilinear", shift=by) for by in range(-reach, reach + 1)])
