"""Tests of the low-rank paths with dropout, whose gradient draws the random numbers a second time."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tunevlseg_jax.models.changes import low_rank
from tunevlseg_jax.prompts import BlockChange, Dropout, LowRank

RATE, PLACE = 0.4, 2
WIDTHS = {"query": 3, "value": 5}


def inputs(trials: int):
    """Random inputs, paths and weights of a sum, each with an axis of trials, and keys."""
    draw = np.random.default_rng(0)
    x, *arrays = (
        jnp.asarray(draw.standard_normal((trials, *shape)), jnp.float32)
        for shape in ((2, 6, 4), *((4, 2) for _ in WIDTHS), *((2, width) for width in WIDTHS.values()))
    )
    paths = {name: LowRank(arrays[number], arrays[number + len(WIDTHS)]) for number, name in enumerate(WIDTHS)}
    return x, paths, jax.random.split(jax.random.key(1), trials)


def value(x, paths, key):
    """A sum with unequal weights of what the paths add."""
    added = low_rank(x, BlockChange(low_rank=paths, dropout=Dropout(jnp.float32(RATE), key)), PLACE, *WIDTHS)
    return weighted(added)


def plain(x, paths, key):
    """The same with the derivative that jax finds."""
    kept = jax.random.bernoulli(jax.random.fold_in(key, PLACE), 1 - RATE, x.shape)
    return weighted({name: (kept * x / (1 - RATE)) @ down @ up for name, (down, up) in paths.items()})


def weighted(added):
    return sum(
        (array * jnp.sin(jnp.arange(array.size, dtype=jnp.float32)).reshape(array.shape)).sum()
        for array in added.values()
    )


@pytest.mark.parametrize("trials", [1, 3])
def test_the_gradient_has_the_dropout_of_the_forward_pass(trials):
    got, expected = (
        jax.jit(jax.vmap(jax.value_and_grad(function, argnums=(0, 1))))(*inputs(trials)) for function in (value, plain)
    )
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-5)
    of_x = expected[1][0]
    assert 0.2 < (of_x == 0).mean() < 0.6  # some inputs are dropped


def test_a_path_that_nothing_drops():
    (x, *_), paths, _ = inputs(1)
    paths = jax.tree.map(lambda array: array[0], paths)
    added = low_rank(x, BlockChange(low_rank=paths), PLACE, *WIDTHS, "out")
    chex.assert_trees_all_close(added, {name: x @ down @ up for name, (down, up) in paths.items()}, rtol=1e-5)
    assert low_rank(x, BlockChange(), PLACE, *WIDTHS) == {}
