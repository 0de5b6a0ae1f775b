"""An MLP in turns of a few rows is the MLP: results and gradients, alone and for several trials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tunevlseg_jax.models import wide_mlp
from tunevlseg_jax.models.products import linear

WIDTH, HIDDEN, TRIALS = 4, 64, 3


def plain(x, weights):
    return linear(jax.nn.relu(linear(x, *weights.up)), *weights.down)


def draw(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


def weights(*axes):
    up = draw(*axes, WIDTH, HIDDEN), None, draw(*axes, HIDDEN)
    return wide_mlp.Weights(up, (draw(*axes, HIDDEN, WIDTH), None, draw(*axes, WIDTH)))


@pytest.mark.parametrize("rows", [1, 12, 30, 31])
@pytest.mark.parametrize("own", [False, True], ids=["shared weights", "weights of their own"])
def test_turns_change_nothing(monkeypatch, rows, own):
    monkeypatch.setattr(wide_mlp, "ROWS", 12)
    arguments = draw(TRIALS, rows, WIDTH), weights(*[TRIALS] * own)

    def results(mlp):
        def loss(x, weights):
            return jnp.square(mlp(x, weights)).sum()

        over_trials = jax.vmap(jax.value_and_grad(loss, argnums=(0, 1)), (0, 0 if own else None))
        return jax.tree.leaves(jax.jit(over_trials)(*arguments))

    for ours, expected in zip(results(wide_mlp.in_turns(plain)), results(plain), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5 * float(jnp.abs(expected).max()))


def test_a_turn_has_few_rows(monkeypatch):
    monkeypatch.setattr(wide_mlp, "ROWS", 12)
    jaxpr = jax.make_jaxpr(jax.vmap(wide_mlp.in_turns(plain), (0, None)))(draw(TRIALS, 30, WIDTH), weights())
    assert f"f32[{TRIALS * 30},{HIDDEN}]" not in str(jaxpr) and f"f32[10,{HIDDEN}]" in str(jaxpr)
