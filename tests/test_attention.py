"""Attention is the same in every form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from tunevlseg_jax.models import attention

LENGTH = attention.MAPPED_KEYS + 3
FORMS = attention._few_heads, attention._keys_first, attention._all_heads


@pytest.fixture(scope="module")
def arrays() -> list[jax.Array]:
    """Three trials of query (shorter), key and value: (trials, batch, length, heads, head width)."""
    keys = jax.random.split(jax.random.key(0), 3)
    lengths = (LENGTH - 10, LENGTH, LENGTH)
    return [2 * jax.random.normal(key, (3, 2, n, 2, 4)) for key, n in zip(keys, lengths, strict=True)]


def everything(form):
    """The result of a form of attention and its gradients."""

    def loss(query, key, value):
        mixed = form(query, key, value)
        return jnp.sin(mixed.astype(jnp.float32)).sum(), mixed

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def check(got, expected):
    """To float32's rounding of the largest value."""
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max()), got, expected)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_the_whole(arrays, form):
    one = [array[0] for array in arrays]
    check(everything(form)(*one), everything(attention._all_heads)(*one))


@pytest.mark.parametrize("form", FORMS)
def test_in_half_precision(arrays, form):
    """As near to float32's as bfloat16 can be, and in the type of the arguments."""
    one = [array[0].astype(jnp.bfloat16) for array in arrays]
    (_, mixed), gradients = everything(form)(*one)
    (_, expected), exact = everything(attention._all_heads)(*(array.astype(jnp.float32) for array in one))
    for got, wanted in zip([mixed, *gradients], [expected, *exact], strict=True):
        assert got.dtype == jnp.bfloat16
        assert_allclose(got.astype(jnp.float32), wanted, rtol=0, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None)])
def test_under_vmap(arrays, axes, form):
    given = [array if axis == 0 else array[0] for array, axis in zip(arrays, axes, strict=True)]
    got, expected = (everything(jax.vmap(one, in_axes=axes))(*given) for one in (form, attention._all_heads))
    check(got, expected)


def test_the_form_follows_the_platform(arrays):
    """Compiled for a CPU, long sequences go in a loop; for a TPU, at once, though there is no TPU here."""
    one = [array[0] for array in arrays]
    lowered = {
        platform: jax.jit(attention.attention).trace(*one).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu")
    }
    assert "while" in lowered["cpu"] and "while" not in lowered["tpu"]
    short = [array[:, : attention.MAPPED_KEYS - 1] for array in one]
    assert "while" not in jax.jit(attention.attention).lower(*short).as_text()


def test_scores_are_not_kept(arrays):
    """Training keeps nothing as large as the scores of all heads."""
    one = [array[0] for array in arrays]
    saved = jax.tree.leaves(jax.vjp(attention._few_heads, *one)[1])
    assert max(np.size(array) for array in saved) < LENGTH**2
