"""A function over the rows of arrays in turns of a few rows, so that what it computes stays in the caches of a CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

Arrays = tuple[Array, ...]


def in_turns(some: Callable[..., Any], most: Callable[[Arrays], int]) -> Callable[[Arrays, Any], Any]:
    """`some` over rows, a few at a time; `jax.vmap` over the arrays alone gives more turns, not larger ones.

    Args:
      some: from arrays of (rows, ...) and what all rows share to a tree of arrays of (rows, ...).
      most: the largest number of rows in a turn, for the arrays; all turns are equally large.

    Returns:
      A function of the arrays, and of what all rows share, a tree of arrays.
    """

    @custom_vmap
    def turns(arrays: Arrays, shared: Any) -> Any:
        rows, limit = len(arrays[0]), max(1, most(arrays))
        few = max(number for number in range(1, min(rows, limit) + 1) if rows % number == 0)
        parts = [array.reshape(-1, few, *array.shape[1:]) for array in arrays]
        results = lax.map(lambda part: some(*part, shared), parts)
        return jax.tree.map(lambda array: array.reshape(rows, *array.shape[2:]), results)

    @turns.def_vmap
    def _(size: int, batched: list[Any], arrays: Arrays, shared: Any) -> tuple[Any, Any]:
        wide = tuple(
            array if is_batched else jnp.broadcast_to(array, (size, *array.shape))
            for array, is_batched in zip(arrays, batched[0], strict=True)
        )
        leaves, structure = jax.tree.flatten(shared)
        are_batched = jax.tree.leaves(batched[1])

        def one(number: Array) -> Any:
            own = [leaf[number] if is_batched else leaf for leaf, is_batched in zip(leaves, are_batched, strict=True)]
            return turns(tuple(array[number] for array in wide), jax.tree.unflatten(structure, own))

        if any(are_batched):
            results = lax.map(one, jnp.arange(size))
        else:
            results = turns(tuple(array.reshape(-1, *array.shape[2:]) for array in wide), shared)
            results = jax.tree.map(lambda array: array.reshape(size, -1, *array.shape[1:]), results)
        return results, jax.tree.map(lambda _: True, results)

    return turns
