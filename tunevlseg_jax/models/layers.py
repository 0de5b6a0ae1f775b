"""The layers that CLIP's towers and the decoders share; they compute in the type of their input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tunevlseg_jax.models.attention import attention

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


class SelfAttention(nnx.Module):
    """Multi-head self-attention, the three projections one product."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, out_width: int | None = None):
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, out_width or width, rngs=rngs)

    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """From (batch, length, width) to (batch, length, out width); `mask` as in `attention`."""
        batch, length, width = x.shape
        split = (batch, length, self.heads, width // self.heads)
        query, key, value = (part.reshape(split) for part in jnp.split(self.qkv(x), 3, axis=-1))
        mixed = attention(query, key, value, mask)
        return self.out(mixed.reshape(batch, length, width))


class MixedAttention(nnx.Module):
    """Multi-head attention whose queries, keys and values come from three inputs of one width."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs):
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
        """From (batch, queries, width) and twice (batch, keys, width) to (batch, queries, width)."""
        batch, queries, width = query.shape
        kernels = jnp.split(self.qkv.kernel[...], 3, axis=1)
        assert self.qkv.bias is not None
        biases = jnp.split(self.qkv.bias[...], 3)
        query, key, value = (
            (x @ kernel + bias.reshape(1, 1, width)).reshape(batch, x.shape[1], self.heads, width // self.heads)
            for x, kernel, bias in zip((query, key, value), kernels, biases, strict=True)
        )
        return self.out(attention(query, key, value, mask).reshape(batch, queries, width))


class Mlp(nnx.Module):
    """Two linear layers with an activation between."""

    def __init__(self, width: int, hidden: int, activation: Activation, rngs: nnx.Rngs):
        self.activation = activation
        self.up = nnx.Linear(width, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, width, rngs=rngs)

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
        self.attention = SelfAttention(width, heads, rngs)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, hidden, activation, rngs)

    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """From (batch, length, width) to the same; `mask` as in `attention`."""
        if self.norm_first:
            x = x + self.attention(self.norm1(x), mask)
            return x + self.mlp(self.norm2(x))
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.mlp(x))
