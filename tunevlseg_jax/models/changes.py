"""How layers apply the changes that a learner gives to a block, see `BlockChange`."""

import jax
import jax.numpy as jnp
from jax import Array

from tunevlseg_jax.prompts import BlockChange, BlockChanges, Bottleneck, join

UNCHANGED = BlockChange()


def of_block(changes: BlockChanges | None, number: int, blocks: int) -> BlockChange:
    """The change of block `number` of `blocks`, which `changes` counts from the first or from the last."""
    first, last = ((changes or {}).get(key, UNCHANGED) for key in (number, number - blocks))
    return join(first, last)


def dropped(x: Array, change: BlockChange, place: int) -> Array:
    """The input of the low-rank paths: `x` after dropout; each `place` of a block has its own random numbers."""
    if not change.low_rank or change.dropout is None:
        return x
    rate, key = change.dropout
    kept = jax.random.bernoulli(jax.random.fold_in(key, place), 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate).astype(x.dtype), jnp.zeros((), x.dtype))


def changed(y: Array, x: Array, change: BlockChange, name: str) -> Array:
    """The result of a layer's product, with its low-rank path and the difference of its bias.

    Args:
      y: (..., outputs), the frozen layer's result.
      x: (..., inputs), the layer's input, from `dropped`.
      change: of the block.
      name: of the product.

    Returns:
      Like `y`.
    """
    if name in change.low_rank:
        down, up = change.low_rank[name]
        y = y + (x @ down.astype(x.dtype)) @ up.astype(x.dtype)
    if name in change.bias:
        y = y + _along_last(change.bias[name], y)
    return y


def bottleneck(h: Array, change: Bottleneck | None) -> Array:
    """(..., width) with a bottleneck around it; the same without one."""
    if change is None:
        return h
    inner = jax.nn.relu(h @ change.down.astype(h.dtype) + _along_last(change.down_bias, h))
    return h + jax.nn.relu(inner @ change.up.astype(h.dtype) + _along_last(change.up_bias, h))


def _along_last(vector: Array, like: Array) -> Array:
    """A vector that is added along the last axis of `like`, in its type."""
    return vector.reshape((1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)
