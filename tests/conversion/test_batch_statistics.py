"""Tests of the BatchNorms of pre-training: they normalise by the batch, and what they keep gives the same outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_cris
from numpy.testing import assert_allclose

from conversion.tiny.batch_statistics import measure
from tunevlseg_jax.models.build import fill_module, weight_shapes
from tunevlseg_jax.models.parameters import STATISTICS, FlatParams, decide, module_parameters
from tunevlseg_jax.prompts import Prompts


def logits(params: FlatParams, images: jax.Array, table: jax.Array, *, measured: bool) -> tuple[jax.Array, FlatParams]:
    """Of the small model, and its parameters after it."""
    model = fill_module(small_cris.sizes().build, params)
    model = measure(model) if measured else model
    decoded = model.decode(model.vision(images, Prompts()), model.text(table, Prompts()))
    return decoded.logits, module_parameters(model)


@pytest.mark.slow
def test_the_stored_statistics_are_those_of_the_input():
    """A mistake in a statistic, or a BatchNorm that is missed, would change the logits or leave it as it was."""
    images = jnp.asarray(np.random.default_rng(3).standard_normal((4, 64, 64, 3)).astype(np.float32))
    table = jnp.asarray(small_cris.tokenizer().table(["a cat.", "a dog.", "six.", "a two."], 12))
    before = {path: jnp.asarray(array) for path, array in small_cris.weights().items()}
    run = jax.jit(logits, static_argnames="measured")
    expected, after = run(before, images, table, measured=True)
    assert {path: array.shape for path, array in after.items()} == weight_shapes(small_cris.sizes())
    is_statistic = decide({f"{STATISTICS.removeprefix('model/')}": True, ".*": False}, after)
    assert sum(is_statistic.values()) > 40
    for path, array in after.items():
        assert np.array_equal(array, before[path]) != is_statistic[path], path
    again, kept = run(after, images, table, measured=False)
    assert_allclose(again, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max()))
    assert all(np.array_equal(kept[path], array) for path, array in after.items())
    stored, _ = run(before, images, table, measured=False)
    assert np.abs(stored - expected).max() > 0.1 * np.abs(expected).max()
