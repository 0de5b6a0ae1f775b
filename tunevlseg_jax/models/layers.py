"""The layers that CLIP's towers and the decoders share; they return the type of their input."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from tunevlseg_jax.models import wide_mlp
from tunevlseg_jax.models.attention import attention
from tunevlseg_jax.models.changes import UNCHANGED, bottleneck, changed, low_rank
from tunevlseg_jax.models.platforms import by_platform
from tunevlseg_jax.models.products import Linear, linear
from tunevlseg_jax.models.rotary import Rotation, rotate
from tunevlseg_jax.prompts import BlockChange

Activation = Callable[[Array], Array]
EPSILON = 1e-5
"""LayerNorm's, unless a model has another."""


def quick_gelu(x: Array) -> Array:
    """CLIP's activation, x * sigmoid(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Array) -> Array:
    """The exact GELU, x * Phi(x), without the approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _activated(x: Array, activation: Activation, stored: jnp.dtype) -> Array:
    """`activation(x)`, whose gradient needs only `x` in the type `stored`: half the memory, or a quarter, of an MLP."""
    return activation(x)


def _activated_forward(x: Array, activation: Activation, stored: jnp.dtype) -> tuple[Array, Array]:
    return activation(x), x.astype(stored)


def _activated_backward(activation: Activation, stored: jnp.dtype, x: Array, gradient: Array) -> tuple[Array]:
    # Without the barrier the compiler would store what both passes compute.
    return jax.vjp(activation, lax.optimization_barrier(x).astype(gradient.dtype))[1](gradient)


_activated.defvjp(_activated_forward, _activated_backward)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, in float32; the result has the type of the input."""

    def __init__(self, width: int, epsilon: float = EPSILON):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Array, change: BlockChange = UNCHANGED, name: str = "") -> Array:
        """(..., width); `change` may hold differences of the scale and the bias under the norm's `name`."""
        full = x.astype(jnp.float32)
        centred = full - full.mean(axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + self.epsilon)
        shape = (1,) * (x.ndim - 1) + (-1,)
        scale, bias = self.scale[...], self.bias[...]
        scale = scale + change.scale[name] if name in change.scale else scale
        bias = bias + change.bias[name] if name in change.bias else bias
        return (normal * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


class Attention(nnx.Module):
    """Multi-head attention; one linear layer holds the projections of queries, keys and values."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, out_width: int | None = None):
        self.heads = heads
        self.qkv = Linear(width, 3 * width, rngs=rngs)
        self.out = Linear(width, out_width or width, rngs=rngs)

    def __call__(
        self,
        query: Array,
        inputs: tuple[Array, Array] | None = None,
        mask: Array | None = None,
        change: BlockChange = UNCHANGED,
        rotation: Rotation | None = None,
    ) -> Array:
        """Attends to a sequence.

        Args:
          query: (batch, queries, width).
          inputs: of keys and of values, each (batch, keys, width); None for self-attention, where the three projections
            are one product.
          mask: as in `attention`.
          change: of the block, for self-attention.
          rotation: of queries and keys by their position, for self-attention.

        Returns:
          (batch, queries, out width).
        """
        projected = jnp.split(self.qkv(query), 3, axis=-1) if inputs is None else self.qkv.parts((query, *inputs))
        names = ("query", "key", "value")
        added = low_rank(query, change, 0, *names)
        projected = (changed(y, added, change, name) for y, name in zip(projected, names, strict=True))
        query, key, value = (x.reshape(*x.shape[:2], self.heads, -1) for x in projected)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed = attention(query, key, value, mask, self.qkv.kernel.dtype)
        mixed = mixed.reshape(*mixed.shape[:2], -1)
        return changed(self.out(mixed), low_rank(mixed, change, 1, "out"), change, "out")


class Mlp(nnx.Module):
    """Two linear layers with an activation between."""

    def __init__(self, width: int, hidden: int, activation: Activation, rngs: nnx.Rngs):
        self.activation = activation
        self.up = Linear(width, hidden, rngs=rngs)
        self.down = Linear(hidden, width, rngs=rngs)

    def __call__(self, x: Array, change: BlockChange = UNCHANGED) -> Array:
        """From (..., width) to the same."""
        width, hidden = self.up.kernel.shape
        if hidden < wide_mlp.EXPANSION * width or not {*change.low_rank, *change.bias}.isdisjoint(("up", "down")):
            return self._stored(x, change)
        weights = wide_mlp.Weights(self.up.weights, self.down.weights)
        return by_platform(x, weights, cpu=self._in_turns, plain=lambda x, _: self._stored(x, change))

    def _in_turns(self, x: Array, weights: wide_mlp.Weights) -> Array:
        def mlp(x: Array, weights: wide_mlp.Weights) -> Array:
            return linear(self.activation(linear(x, *weights.up)), *weights.down)

        return wide_mlp.in_turns(mlp)(x.reshape(-1, x.shape[-1]), weights).reshape(x.shape)

    def _stored(self, x: Array, change: BlockChange) -> Array:
        raised = changed(self.up(x), low_rank(x, change, 2, "up"), change, "up")
        hidden: Any = _activated(raised, self.activation, self.down.kernel.dtype)
        return changed(self.down(hidden), low_rank(hidden, change, 3, "down"), change, "down")


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

    def __call__(self, x: Array, mask: Array | None = None, change: BlockChange = UNCHANGED) -> Array:
        """From (batch, length, width) to the same; `mask` as in `attention`."""
        if self.norm_first:
            x = x + self._attend(self.norm1(x, change, "norm1"), mask, change)
            return x + self._feed_forward(self.norm2(x, change, "norm2"), change)
        x = self.norm1(x + self._attend(x, mask, change), change, "norm1")
        return self.norm2(x + self._feed_forward(x, change), change, "norm2")

    def _attend(self, x: Array, mask: Array | None, change: BlockChange) -> Array:
        return bottleneck(self.attention(x, mask=mask, change=change), change.after_attention)

    def _feed_forward(self, x: Array, change: BlockChange) -> Array:
        return bottleneck(self.mlp(x, change), change.after_mlp)
