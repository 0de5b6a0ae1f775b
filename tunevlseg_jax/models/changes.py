"""How layers apply the changes that a learner gives to a block, see `BlockChange`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from tunevlseg_jax.prompts import BlockChange, BlockChanges, Bottleneck, LowRank, join

UNCHANGED = BlockChange()


def of_block(changes: BlockChanges | None, number: int, blocks: int) -> BlockChange:
    """The change of block `number` of `blocks`, which `changes` counts from the first or from the last."""
    first, last = ((changes or {}).get(key, UNCHANGED) for key in (number, number - blocks))
    return join(first, last)


def low_rank(x: Array, change: BlockChange, place: int, *names: str) -> dict[str, Array]:
    """What the low-rank paths beside products of the same input add to their results.

    Args:
      x: (..., inputs), the products' input.
      change: of the block.
      place: of the input in the block; each has its own random numbers for dropout.
      names: of the products.

    Returns:
      (..., outputs) for each of the products that has a path.
    """
    paths = {name: change.low_rank[name] for name in names if name in change.low_rank}
    if not paths or change.dropout is None:
        return _paths(x, paths)
    rate, key = change.dropout
    return _dropped_paths(x, paths, rate, jax.random.key_data(jax.random.fold_in(key, place)))


def changed(y: Array, added: Mapping[str, Array], change: BlockChange, name: str) -> Array:
    """The result of a layer's product, with its low-rank path and the difference of its bias.

    Args:
      y: (..., outputs), the frozen layer's result.
      added: results of paths, from `low_rank`.
      change: of the block.
      name: of the product.

    Returns:
      Like `y`.
    """
    if name in added:
        y = y + added[name]
    if name in change.bias:
        y = y + _along_last(change.bias[name], y)
    return y


def bottleneck(h: Array, change: Bottleneck | None) -> Array:
    """(..., width) with a bottleneck around it; the same without one."""
    if change is None:
        return h
    inner = jax.nn.relu(h @ change.down.astype(h.dtype) + _along_last(change.down_bias, h))
    return h + jax.nn.relu(inner @ change.up.astype(h.dtype) + _along_last(change.up_bias, h))


def _paths(x: Array, paths: Mapping[str, LowRank]) -> dict[str, Array]:
    return {name: (x @ down.astype(x.dtype)) @ up.astype(x.dtype) for name, (down, up) in paths.items()}


@jax.custom_vjp
def _dropped_paths(x: Array, paths: Mapping[str, LowRank], rate: Array, key: Array) -> dict[str, Array]:
    """`_paths` of `x` after dropout; the gradient draws the random numbers again instead of storing them."""
    return _draw(x, paths, rate, key)


def _draw(x: Array, paths: Mapping[str, LowRank], rate: Array, key: Array) -> dict[str, Array]:
    kept = jax.random.bernoulli(jax.random.wrap_key_data(key), 1 - rate, x.shape)
    return _paths(jnp.where(kept, x / (1 - rate).astype(x.dtype), jnp.zeros((), x.dtype)), paths)


def _forward(*arguments: Any) -> tuple[dict[str, Array], tuple[Any, ...]]:
    return _draw(*arguments), arguments


def _backward(arguments: tuple[Any, ...], gradients: dict[str, Array]) -> tuple[Any, ...]:
    x, paths, rate, key = arguments
    # The same key unless the gradient is NaN, which the compiler doesn't know: with the key itself, even behind a
    # barrier, it would store what both passes draw.
    first = next(iter(gradients.values())).reshape(-1)[0]
    key = key ^ (first != first).astype(key.dtype)
    of_x, of_paths = jax.vjp(lambda x, paths: _draw(x, paths, rate, key), x, paths)[1](gradients)
    return of_x, of_paths, None, None


_dropped_paths.defvjp(_forward, _backward)


def _along_last(vector: Array, like: Array) -> Array:
    """A vector that is added along the last axis of `like`, in its type."""
    return vector.reshape((1,) * (like.ndim - 1) + (-1,)).astype(like.dtype)
