"""Attention is the same in every form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
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


def plain(query, key, value):
    """The form that differentiates itself."""
    return attention._masked(query, key, value, jnp.ones((1, 1, query.shape[1], key.shape[1]), bool))


def everything(form):
    """The result of a form of attention and its gradients."""

    def loss(query, key, value):
        mixed = form(query, key, value)
        return jnp.sin(mixed.astype(jnp.float32)).sum(), mixed

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))


def check(got, expected):
    """To float32's rounding of the largest value."""
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=0, atol=5e-6 * np.abs(b).max()), got, expected)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_equals_plain_attention(arrays, form):
    one = [array[0] for array in arrays]
    check(everything(form)(*one), everything(plain)(*one))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_in_half_precision(arrays, form):
    """As near to float32's as bfloat16 can be, and in the type of the arguments."""
    one = [array[0].astype(jnp.bfloat16) for array in arrays]
    (_, mixed), gradients = everything(form)(*one)
    (_, expected), exact = everything(plain)(*(array.astype(jnp.float32) for array in one))
    for got, wanted in zip([mixed, *gradients], [expected, *exact], strict=True):
        assert got.dtype == jnp.bfloat16
        assert_allclose(got.astype(jnp.float32), wanted, rtol=0, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("axes", [None, (0, 0, 0), (0, None, None)])
def test_products_of_rounded_operands(arrays, axes):
    """As near to float32's as bfloat16 can be, with float32 results; for one trial, and for trials side by side."""
    rounded = [array.astype(jnp.bfloat16).astype(jnp.float32) for array in arrays]
    given = [array if axes and axis == 0 else array[0] for array, axis in zip(rounded, axes or (0, 0, 0), strict=True)]
    forms = [form if axes is None else jax.vmap(form, in_axes=axes) for form in (attention._few_rounded_heads, plain)]
    ((_, mixed), gradients), ((_, expected), exact) = (everything(form)(*given) for form in forms)
    for got, wanted in zip([mixed, *gradients], [expected, *exact], strict=True):
        assert got.dtype == jnp.float32
        assert_allclose(got, wanted, rtol=0, atol=0.02 * np.abs(wanted).max())


def test_only_a_cpu_in_mixed_precision_rounds_operands(arrays):
    one = [array[0] for array in arrays]

    def lowered(arrays, operands, platform):
        traced = jax.jit(lambda *given: attention.attention(*given, operands=operands)).trace(*arrays)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "bf16" in lowered(one, jnp.bfloat16, "cpu")
    assert "bf16" not in lowered(one, jnp.float32, "cpu") and "bf16" not in lowered(one, jnp.bfloat16, "tpu")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None)])
def test_each_form_under_vmap(arrays, axes, form):
    given = [array if axis == 0 else array[0] for array, axis in zip(arrays, axes, strict=True)]
    got, expected = (everything(jax.vmap(one, in_axes=axes))(*given) for one in (form, plain))
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


@pytest.mark.parametrize("form", [attention._few_heads, attention._few_rounded_heads, attention._all_heads])
def test_scores_are_not_stored(arrays, form):
    """Training keeps nothing as large as the scores of all heads."""
    one = [array[0] for array in arrays]
    saved = jax.tree.leaves(jax.vjp(form, *one)[1])
    assert max(np.size(array) for array in saved) < LENGTH**2


CHAIN = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tunevlseg_jax.runtime import cache
from tunevlseg_jax.benchmarks import tpu_plan
from tunevlseg_jax.models import attention
cache.disable_compilation_cache()
lying = NamedSharding(Mesh(np.asarray(tpu_plan._devices("v5e:2x2")), ("data",)), PartitionSpec())
rows = jax.ShapeDtypeStruct((1, 1024, 8, 64), jnp.bfloat16, sharding=lying)

def loss(query, key):
    for _ in range(12):
        query = attention.attention(query, key, key)
    return query.astype(jnp.float32).sum()

compiled = jax.jit(jax.grad(loss)).lower(rows, rows).compile()
print(compiled.memory_analysis().temp_size_in_bytes)
"""


@small.TPU
@pytest.mark.slow
def test_compiled_programs_do_not_store_scores():
    """Of twelve attentions, one after the other, the scores of a few are there at a time."""
    status, out, err = small.finish(small.start("-c", CHAIN), 300)
    assert (status, err) == (0, "")
    assert int(out) < 4 * 8 * 1024**2 * 4
