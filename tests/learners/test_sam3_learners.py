"""Tests that learners change a SAM 3 in its text tower and in its ViT, and that what it doesn't take is refused."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_cris
import small_sam3

from tunevlseg_jax.learners import LEARNERS as LEARNER_CLASSES
from tunevlseg_jax.learners import (
    VPT,
    CoCoOp,
    CoOp,
    LoRA,
    MaPLe,
    Projector,
    SharedAttention,
    SharedSeparate,
    VLSMAdapter,
    learners_for,
)
from tunevlseg_jax.models.parameters import flatten
from tunevlseg_jax.network import Network

quick_compilation = small.quick_compilation
CONFIG, WEIGHTS = small_sam3.sizes().for_frozen_encoder(small_cris.random_weights(small_sam3.sizes()))
ROWS, SIDE = 3, CONFIG.image_size
SPEC = CONFIG.spec(lambda phrase: jnp.ones((len(phrase.split()), CONFIG.text.width)))
LEARNERS = {
    "CoCoOp": CoCoOp(depth=ROWS, projector=Projector(hidden=(8,))),
    "MaPLe": MaPLe(depth=ROWS, projector=Projector(hidden=(8,))),
    "LoRA": LoRA(depth=ROWS, products=("query", "key", "value", "out", "up", "down")),
    "VLSMAdapter": VLSMAdapter(depth=ROWS, hidden=4, sentence=False),
}
OTHERS = {
    "CoOp": CoOp(depth=ROWS),
    "VPT": VPT(depth=ROWS),
    "SharedSeparate": SharedSeparate(depth=ROWS, width=6),
    "SharedAttention": SharedAttention(depth=ROWS, heads=4, hidden=8),
    "shallow": VLSMAdapter(depth=1, hidden=4, sentence=False, kind="shallow", towers="vision"),
}


@cache
def inputs() -> tuple[dict, np.ndarray, np.ndarray]:
    end = CONFIG.text.end_token
    frozen = {f"model/{path}": np.asarray(weight) for path, weight in WEIGHTS.items()}
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    return frozen, images, np.array([[end - 1, 5, 6, end], [end - 1, 7, end, end]], np.int32)


def step(learner):
    """A compiled step: the logits, and gradients of a loss with respect to the learner's parameters."""
    network = Network(CONFIG, learner)

    def run(params, depth):
        frozen, images, tokens = inputs()

        def loss_of(params):
            flat = jax.tree.map(jnp.asarray, frozen) | flatten(params, "learner")
            fixed = {"depth": depth, "dropout": jnp.float32(0)}
            logits = network.logits(flat, jnp.asarray(images), jnp.arange(2), jnp.asarray(tokens), **fixed)
            return jnp.square(logits).mean(), logits

        gradients, logits = jax.grad(loss_of, has_aux=True)(params)
        return logits, gradients

    return jax.jit(run)


def check(learner) -> None:
    """Every row up to the depth gets a gradient, a row beyond it changes nothing, and one program serves all depths."""
    params = jax.tree.map(lambda x: x + 0.05, learner.init(jax.random.key(0), SPEC))  # LoRA starts at zero
    run, rows = step(learner), learner.rows
    whole, gradients = run(params, jnp.int32(rows))
    assert np.isfinite(whole).all() and whole.shape == (2, SIDE, SIDE)
    rowwise = {path: x for path, x in flatten(gradients, "").items() if x.ndim and x.shape[0] == rows}
    assert rowwise
    for row in range(rows):
        assert any(np.abs(x[row]).max() > 0 for x in rowwise.values()), row
    if rows > 1:
        shallow, gradients = run(params, jnp.int32(1))
        assert np.abs(np.asarray(shallow) - whole).max() > 1e-5
        beyond = [x[1:] for x in flatten(gradients, "").values() if x.ndim and x.shape[0] == rows]
        assert all(np.abs(x).max() == 0 for x in beyond)
        assert run._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_changes_both_towers(name):
    check(LEARNERS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_learners(name):
    check(OTHERS[name])


def test_the_sentence_vector_is_refused():
    with pytest.raises(ValueError, match=r"learner\.sentence must be False .*, got True: its decoder doesn't read"):
        VLSMAdapter(depth=1).init(jax.random.key(0), SPEC)


def test_the_learners_that_fit_are_those_without_the_sentence_vector():
    assert learners_for(SPEC) == [cls for cls in LEARNER_CLASSES if cls is not VLSMAdapter]


def test_depths_beyond_the_blocks_are_refused():
    for learner, says in (
        (VPT(depth=4), r"learner\.depth must be at most 3, the vision tower's blocks, got 4"),
        (LoRA(depth=4), r"learner\.depth must be at most 3, the blocks of the changed towers, got 4"),
        (VLSMAdapter(depth=2, kind="shallow", towers="vision", sentence=False), r"learner\.depth must be at most 1"),
    ):
        with pytest.raises(ValueError, match=says):
            learner.init(jax.random.key(0), SPEC)
