"""An MLP with a hidden layer much wider than its input, in turns of a few rows, which stay in the caches of a CPU."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array

from tunevlseg_jax.models import turns

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
    """`mlp` over a few rows at a time; its gradient computes the hidden layer again instead of storing it."""

    def of_x(x: Array, gradient: Array, weights: Weights) -> Array:
        return jax.vjp(lambda x: mlp(x, weights), x)[1](gradient)[0]

    forward, backward = (turns.in_turns(some, lambda _: ROWS) for some in (mlp, of_x))

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
