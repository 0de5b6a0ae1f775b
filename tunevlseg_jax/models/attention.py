"""Scaled dot-product attention, in the form that is fastest where it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

MAPPED_KEYS = 128
"""From how many keys on a CPU goes head by head; below, the loop costs more than it saves."""


def attention(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """Scaled dot-product attention with its softmax in float32.

    Args:
      query: (batch, queries, heads, head width).
      key: (batch, keys, heads, head width).
      value: like `key`.
      mask: (1 or batch, 1, queries, keys) bool, True where a query may look; None for everywhere.

    Returns:
      (batch, queries, heads, head width).
    """
    query = query * query.shape[-1] ** -0.5
    if mask is not None:
        return _whole(query, key, value, mask)
    for_cpu = _head_by_head if key.shape[1] >= MAPPED_KEYS else _keys_first
    return lax.platform_dependent(query, key, value, cpu=for_cpu, default=_whole)


def _whole(query: Array, key: Array, value: Array, mask: Array | None = None) -> Array:
    """All heads at once, as accelerators like it; `query` is scaled already."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _head_by_head(query: Array, key: Array, value: Array) -> Array:
    """One head of one image after the other: its scores stay in a CPU's cache, and are made anew in the way back."""
    return _of_rows(_looped, query, key, value)


def _keys_first(query: Array, key: Array, value: Array) -> Array:
    """All heads at once, in the matrix products that a CPU does fastest, there and back."""
    return _of_rows(_at_once, query, key, value)


def _of_rows(attend: Callable[..., Array], query: Array, key: Array, value: Array) -> Array:
    """`attend`, from (rows, queries, width) and twice (rows, keys, width), a row for each head of each image."""
    batch, length, heads, width = query.shape
    mixed = attend(*(x.transpose(0, 2, 1, 3).reshape(batch * heads, -1, width) for x in (query, key, value)))
    return mixed.reshape(batch, heads, length, width).transpose(0, 2, 1, 3)


@jax.custom_vjp
def _at_once(query: Array, key: Array, value: Array) -> Array:
    return _at_once_forward(query, key, value)[0]


def _at_once_forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    scores = jnp.matmul(key, query.mT, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores, axis=1)  # (rows, keys, queries)
    mixed = (value.mT @ weights).mT.astype(value.dtype)
    return mixed, (query, key, value, weights, mixed)


def _at_once_backward(kept: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    query, key, value, weights, mixed = kept
    # The gradient of a softmax needs the mean of its argument's gradient, which is that of the result with itself.
    mean = (gradient * mixed).sum(axis=-1, dtype=jnp.float32)[:, None]
    scores = weights * (jnp.matmul(value, gradient.mT, preferred_element_type=jnp.float32) - mean)
    gradients = ((key.mT @ scores).mT, scores @ query, weights @ gradient)
    return tuple(array.astype(query.dtype) for array in gradients)


_at_once.defvjp(_at_once_forward, _at_once_backward)


@jax.custom_vjp
def _looped(query: Array, key: Array, value: Array) -> Array:
    return _forward(query, key, value)


def _looped_forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    mixed = _forward(query, key, value)
    return mixed, (query, key, value, mixed)


def _looped_backward(kept: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    return _backward(*kept, gradient)


_looped.defvjp(_looped_forward, _looped_backward)


def _row_by_row(one: Callable[..., Any]) -> Callable[..., Any]:
    """`one` over the leading axis of its arguments, in a loop; under `jax.vmap` the loop is longer, not wider."""

    @custom_vmap
    def loop(*arrays: Array) -> Any:
        return lax.map(lambda rows: one(*rows), arrays)

    @loop.def_vmap
    def _(size: int, batched: list[bool], *arrays: Array) -> tuple[Any, Any]:
        wide = (
            a if is_batched else jnp.broadcast_to(a[None], (size, *a.shape))
            for a, is_batched in zip(arrays, batched, strict=True)
        )
        results = loop(*(a.reshape(-1, *a.shape[2:]) for a in wide))
        split = jax.tree.map(lambda a: a.reshape(size, -1, *a.shape[1:]), results)
        return split, jax.tree.map(lambda _: True, results)

    return loop


@_row_by_row
def _forward(query: Array, key: Array, value: Array) -> Array:
    raised, total = _exponentials(query, key)
    return ((raised @ value) / total).astype(value.dtype)


@_row_by_row
def _backward(query: Array, key: Array, value: Array, mixed: Array, gradient: Array) -> tuple[Array, ...]:
    raised, total = _exponentials(query, key)
    weights = raised / total
    mean = (gradient * mixed).sum(axis=-1, keepdims=True, dtype=jnp.float32)
    scores = weights * (gradient @ value.T - mean)
    gradients = (scores @ key, scores.T @ query, weights.T @ gradient)
    return tuple(array.astype(query.dtype) for array in gradients)


def _exponentials(query: Array, key: Array) -> tuple[Array, Array]:
    """A softmax's numerators, (queries, keys) float32, and their sums, (queries, 1)."""
    scores = jnp.matmul(query, key.T, preferred_element_type=jnp.float32)
    raised = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised, raised.sum(axis=-1, keepdims=True)
