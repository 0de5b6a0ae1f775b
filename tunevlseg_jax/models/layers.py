"""The layers that CLIP's towers and the decoders share; they return the type of their input."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tunevlseg_jax.models.attention import attention
from tunevlseg_jax.models.products import Linear

Activation = Callable[[Array], Array]
EPSILON = 1e-5
"""LayerNorm's."""


def quick_gelu(x: Array) -> Array:
    """CLIP's activation, x * sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, in float32; the result has the type of the input."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Array) -> Array:
        full = x.astype(jnp.float32)
        centred = full - full.mean(axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (normal * self.scale[...].reshape(shape) + self.bias[...].reshape(shape)).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention; one linear layer holds the projections of queries, keys and values."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, out_width: int | None = None):
        self.heads = heads
        self.qkv = Linear(width, 3 * width, rngs=rngs)
        self.out = Linear(width, out_width or width, rngs=rngs)

    def __call__(self, query: Array, inputs: tuple[Array, Array] | None = None, mask: Array | None = None) -> Array:
        """Attends to a sequence.

        Args:
          query: (batch, queries, width).
          inputs: of keys and of values, each (batch, keys, width); None for self-attention, where the three projections
            are one product.
          mask: as in `attention`.

        Returns:
          (batch, queries, out width).
        """
        projected = jnp.split(self.qkv(query), 3, axis=-1) if inputs is None else self.qkv.parts((query, *inputs))
        query, key, value = (x.reshape(*x.shape[:2], self.heads, -1) for x in projected)
        mixed = attention(query, key, value, mask)
        return self.out(mixed.reshape(*mixed.shape[:2], -1))


class Mlp(nnx.Module):
    """Two linear layers with an activation between."""

    def __init__(self, width: int, hidden: int, activation: Activation, rngs: nnx.Rngs):
        self.activation = activation
        self.up = Linear(width, hidden, rngs=rngs)
        self.down = Linear(hidden, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.down(self.activation(self.up(x)))


class Block(nnx.Module):
    """A transformer block; `norm` says whether it normalises before each part (CLIP) or after each sum (CLIPSeg)."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: Activation,
        rngs: nnx.Rngs,
        norm: Literal["before", "after"] = "before",
    ):
        self.norm_first = norm == "before"
        self.norm1 = LayerNorm(width)
        self.attention = Attention(width, heads, rngs)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, hidden, activation, rngs)

    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """From (batch, length, width) to the same; `mask` as in `attention`."""
        if self.norm_first:
            x = x + self.attention(self.norm1(x), mask=mask)
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x, mask=mask))
        return self.norm2(x + self.mlp(x))
