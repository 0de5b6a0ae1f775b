"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), in the fastest form for each platform."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from tunevlseg_jax.models import turns
from tunevlseg_jax.models.platforms import by_platform

MAPPED_KEYS = 128
"""Number of keys from which a CPU computes a few heads at a time; below it, the loop costs more than it saves."""
SCORES = 1 << 20
"""Number of scores in one turn of that loop, unless a single head has more: 4 MiB, which fit in a CPU's caches."""


def attention(
    query: Array, key: Array, value: Array, mask: Array | None = None, operands: jnp.dtype | None = None
) -> Array:
    """Scaled dot-product attention with its softmax in float32.

    Args:
      query: (batch, queries, heads, head width).
      key: (batch, keys, heads, head width).
      value: like `key`.
      mask: (1 or batch, 1 or heads, queries, keys) bool, True where a query may attend, or float32, added to
        the scores; None for everywhere.
      operands: type of the products' operands, if it isn't that of the arrays: a CPU's in mixed precision.

    Returns:
      (batch, queries, heads, head width).
    """
    query = query * query.shape[-1] ** -0.5
    if mask is not None:
        return _masked(query, key, value, mask)
    for_cpu = _few_heads if key.shape[1] >= MAPPED_KEYS else _keys_first
    if for_cpu is _few_heads and operands == jnp.bfloat16 and query.dtype == jnp.float32:
        for_cpu = _few_rounded_heads
    return by_platform(query, key, value, cpu=for_cpu, plain=_all_heads)


def _masked(query: Array, key: Array, value: Array, mask: Array) -> Array:
    """The plain form, for short sequences of queries or keys; `query` is already scaled."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min) if mask.dtype == bool else scores + mask
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def _all_heads(query: Array, key: Array, value: Array) -> Array:
    """All heads at once, for accelerators; the backward pass recomputes the scores instead of storing them."""
    return _heads_first(_all_rows(*map(_heads_first, (query, key, value))))


def _few_heads(query: Array, key: Array, value: Array) -> Array:
    """A few heads at a time: the scores stay in a CPU's cache, and the backward pass recomputes them."""
    return _of_rows(_looped, query, key, value)


def _few_rounded_heads(query: Array, key: Array, value: Array) -> Array:
    """As `_few_heads`, with operands in bfloat16, whose transposed copies are made before the loop.

    A CPU's products of bfloat16 operands are slow if one is transposed beside its product.
    """
    return _of_rows(_rounded, query, key, value)


def _keys_first(query: Array, key: Array, value: Array) -> Array:
    """All heads at once, with the matrix products that are fastest on a CPU in both passes."""
    return _of_rows(_at_once, query, key, value)


def _of_rows(attend: Callable[..., Array], query: Array, key: Array, value: Array) -> Array:
    """Calls `attend` on (rows, queries, width) and twice (rows, keys, width), a row for each head of each image."""
    batch, length, heads, width = query.shape
    mixed = attend(*(_heads_first(x).reshape(batch * heads, -1, width) for x in (query, key, value)))
    return _heads_first(mixed.reshape(batch, heads, length, width))


def _heads_first(x: Array) -> Array:
    """(batch, length, heads, width) as (batch, heads, length, width), and back."""
    return x.transpose(0, 2, 1, 3)


def _forward(query: Array, key: Array, value: Array) -> Array:
    """From (..., queries, width) and twice (..., keys, width) to (..., queries, width)."""
    raised, total = _exponentials(_scores(query, key), axis=-1)
    return (_product(raised.astype(value.dtype), value) / total).astype(value.dtype)


def _backward(query: Array, key: Array, value: Array, mixed: Array, gradient: Array) -> tuple[Array, ...]:
    raised, total = _exponentials(_scores(query, key), axis=-1)
    scaled = gradient / total
    mean = (scaled * mixed).sum(axis=-1, keepdims=True, dtype=jnp.float32)
    scaled = scaled.astype(value.dtype)
    scores = (raised * (_scores(scaled, value) - mean)).astype(query.dtype)
    raised = raised.astype(value.dtype)
    gradients = _product(scores, key), _product(scores.mT, query), _product(raised.mT, scaled)
    return tuple(array.astype(query.dtype) for array in gradients)


def _scores(left: Array, right: Array) -> Array:
    """The float32 products of all pairs of rows: (..., left, width) and (..., right, width) to (..., left, right)."""
    return _product(left, right.mT)


def _product(left: Array, right: Array) -> Array:
    """A matrix product whose sums are float32."""
    return jnp.matmul(left, right, preferred_element_type=jnp.float32)


def _exponentials(scores: Array, axis: int) -> tuple[Array, Array]:
    """A softmax's numerators and their sums along an axis of the keys, which is kept."""
    raised = jnp.exp(scores - scores.max(axis=axis, keepdims=True))
    return raised, raised.sum(axis=axis, keepdims=True)


def _with_gradient(forward: Callable[..., Array], backward: Callable[..., tuple[Array, ...]]) -> Callable[..., Array]:
    """`forward` with the gradient `backward`, for which only the arguments and the result are stored."""

    @jax.custom_vjp
    def attend(query: Array, key: Array, value: Array) -> Array:
        return forward(query, key, value)

    def with_residuals(*arrays: Array) -> tuple[Array, tuple[Array, ...]]:
        mixed = forward(*arrays)
        return mixed, (*arrays, mixed)

    def gradients(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
        # Without the barrier the compiler would store the scores, which both passes compute.
        return backward(*lax.optimization_barrier((*residuals, gradient)))

    attend.defvjp(with_residuals, gradients)
    return attend


@jax.custom_vjp
def _at_once(query: Array, key: Array, value: Array) -> Array:
    return _at_once_forward(query, key, value)[0]


def _at_once_forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    raised, total = _exponentials(_scores(key, query), axis=1)  # (rows, keys, queries)
    mixed = (_wide(value, raised) / total).mT.astype(value.dtype)
    return mixed, (query, key, value, raised, total, mixed)


def _at_once_backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    query, key, value, raised, total, mixed = residuals
    scaled = gradient / total.mT
    mean = (scaled * mixed).sum(axis=-1, dtype=jnp.float32)[:, None]
    scores = raised * (_scores(value, scaled) - mean)
    gradients = (_wide(key, scores).mT, scores @ query, raised @ scaled)
    return tuple(array.astype(query.dtype) for array in gradients)


_at_once.defvjp(_at_once_forward, _at_once_backward)


def _wide(narrow: Array, square: Array) -> Array:
    """`narrow.mT @ square`, (rows, width, queries): several times as fast on a CPU as the transposed product.

    The barriers prevent the compiler from transposing it.
    """
    return lax.optimization_barrier(lax.optimization_barrier(narrow.mT) @ square)


def _few_at_a_time(some: Callable[..., Any]) -> Callable[..., Any]:
    """`some` over the rows of its arguments, a few at a time."""

    def most(arrays: turns.Arrays) -> int:
        return SCORES // (arrays[0].shape[1] * arrays[1].shape[1])

    loop = turns.in_turns(lambda *arrays: some(*arrays[:-1]), most)
    return lambda *arrays: loop(arrays, ())


_all_rows = _with_gradient(_forward, _backward)
_looped = _with_gradient(_few_at_a_time(_forward), _few_at_a_time(_backward))


@jax.custom_vjp
def _rounded(query: Array, key: Array, value: Array) -> Array:
    return _rounded_forward(query, key, value)[0]


def _rounded_forward(query: Array, key: Array, value: Array) -> tuple[Array, tuple[Array, ...]]:
    query, key, value = (array.astype(jnp.bfloat16) for array in (query, key, value))
    mixed = _turns_forward(query, value, lax.optimization_barrier(key.mT))
    return mixed, (query, key, value, mixed)


def _rounded_backward(residuals: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    query, key, value, mixed, gradient = lax.optimization_barrier((*residuals, gradient))
    mean = (gradient * mixed).sum(axis=-1)
    gradient = gradient.astype(jnp.bfloat16)
    # In one array, because the compiler would make the query's copy early, and hold it for all blocks.
    copies = lax.optimization_barrier(jnp.stack((query, gradient), axis=1).mT)
    return _turns_backward(query, key, value, gradient, copies, lax.optimization_barrier(key.mT), mean)


def _turn_forward(query: Array, value: Array, keys: Array) -> Array:
    """A few rows of bfloat16, to float32; `keys` is (rows, width, keys)."""
    raised, total = _exponentials(_product(query, keys), axis=-1)
    return _product(raised.astype(value.dtype), value) / total


def _turn_backward(
    query: Array, key: Array, value: Array, gradient: Array, copies: Array, keys: Array, mean: Array
) -> tuple[Array, ...]:
    """The gradients of a few rows.

    The scores are (rows, keys, queries), `mean` is (rows, queries), and `copies` has the query and the gradient
    transposed: (rows, 2, width, queries).
    """
    queries, gradients = copies[:, 0], copies[:, 1]
    raised, total = _exponentials(_product(key, queries), axis=-2)
    weights = raised / total
    scores = (weights * (_product(value, gradients) - mean[:, None])).astype(key.dtype)
    of_query = lax.optimization_barrier(_product(keys, scores)).mT
    return of_query, _product(scores, query), _product(weights.astype(key.dtype), gradient)


_turns_forward, _turns_backward = _few_at_a_time(_turn_forward), _few_at_a_time(_turn_backward)
_rounded.defvjp(_rounded_forward, _rounded_backward)
