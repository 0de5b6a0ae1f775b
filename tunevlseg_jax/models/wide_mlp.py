"""An MLP with a hidden layer much wider than its input, in turns of a few rows, which stay in the caches of a CPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

EXPANSION = 16
"""Least width of the hidden layer, in widths of the input, from which turns pay."""
ROWS = 2048
"""Most rows in a turn."""


class Weights(NamedTuple):
    """The weights of both linear layers: kernel, transposed copy and bias; the last two may be None."""

    up: tuple[Array, Array | None, Array | None]
    down: tuple[Array, Array | None, Array | None]


Mlp = Callable[[Array, Weights], Array]
"""From (rows, width) and weights to (rows, width)."""


def in_turns(mlp: Mlp) -> Mlp:
    """`mlp` over a few rows at a time; its gradient computes the hidden layer anew instead of storing it."""
    forward = _turns(mlp)
    backward = _turns(lambda x, gradient, weights: jax.vjp(lambda x: mlp(x, weights), x)[1](gradient)[0])

    @jax.custom_vjp
    def call(x: Array, weights: Weights) -> Array:
        return forward((x,), weights)

    def with_residuals(x: Array, weights: Weights) -> tuple[Array, tuple[Array, Weights]]:
        return call(x, weights), (x, weights)

    def gradients(residuals: tuple[Array, Weights], gradient: Array) -> tuple[Array, Weights]:
        x, weights = residuals
        # Removed by the compiler where the weights are frozen.
        (of_weights,) = jax.vjp(lambda weights: mlp(x, weights), weights)[1](gradient)
        return backward((x, gradient), weights), of_weights

    call.defvjp(with_residuals, gradients)
    return call


def _turns(some: Callable[..., Array]) -> Callable[[tuple[Array, ...], Weights], Array]:
    """`some` over the rows of arrays in turns; `jax.vmap` over arrays alone gives more turns, not larger ones."""

    @custom_vmap
    def turns(arrays: tuple[Array, ...], weights: Weights) -> Array:
        rows = len(arrays[0])
        few = max(number for number in range(1, min(rows, ROWS) + 1) if rows % number == 0)
        parts = [array.reshape(-1, few, array.shape[-1]) for array in arrays]
        return lax.map(lambda part: some(*part, weights), parts).reshape(rows, -1)

    @turns.def_vmap
    def _(size: int, batched: list[Any], arrays: tuple[Array, ...], weights: Weights) -> tuple[Array, bool]:
        wide = tuple(
            array if is_batched else jnp.broadcast_to(array, (size, *array.shape))
            for array, is_batched in zip(arrays, batched[0], strict=True)
        )
        leaves, structure = jax.tree.flatten(weights)
        are_batched = jax.tree.leaves(batched[1])
        if not any(are_batched):
            result = turns(tuple(array.reshape(-1, array.shape[-1]) for array in wide), weights)
            return result.reshape(size, -1, result.shape[-1]), True

        def one(number: Array) -> Array:
            own = [leaf[number] if is_batched else leaf for leaf, is_batched in zip(leaves, are_batched, strict=True)]
            return turns(tuple(array[number] for array in wide), jax.tree.unflatten(structure, own))

        return lax.map(one, jnp.arange(size)), True

    return turns
