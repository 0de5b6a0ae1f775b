"""Tests that learners change a SAM 3 in its text tower and in its ViT, and that what it doesn't take is refused."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_cris
import small_sam3
from numpy.testing import assert_allclose, assert_array_equal

from tunevlseg_jax import config as configuration
from tunevlseg_jax.benchmarks import experiments
from tunevlseg_jax.learners import (
    IVLP,
    VPT,
    BitFit,
    CoCoOp,
    Combined,
    CoOp,
    KgCoOp,
    LinearProbe,
    LoRA,
    MaPLe,
    NormTuning,
    Projector,
    PromptSRC,
    SharedAttention,
    SharedSeparate,
    VLSMAdapter,
    learners_for,
)
from tunevlseg_jax.learners import LEARNERS as LEARNER_CLASSES
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.parameters import flatten
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.sam3_folder import sam3_config
from tunevlseg_jax.prompts import ModelSpec

quick_compilation = small.quick_compilation
CONFIG = small_sam3.sizes()
ROWS = small_sam3.BLOCKS
ALL = ("query", "key", "value", "out", "up", "down")
LEARNERS = {
    "CoCoOp": CoCoOp(depth=ROWS, projector=Projector(hidden=(8,))),
    "MaPLe": MaPLe(depth=ROWS, projector=Projector(hidden=(8,))),
    "LoRA": LoRA(depth=ROWS, products=ALL),
    "VLSMAdapter": VLSMAdapter(depth=ROWS, hidden=4, sentence=False),
}
TINY_ROWS = 5
COOP = CoOp(depth=TINY_ROWS)
ON_TINY = {
    "CoOp": COOP,
    "CoCoOp": CoCoOp(depth=TINY_ROWS, projector=Projector(hidden=(8,))),
    "VPT": VPT(depth=TINY_ROWS),
    "MaPLe": MaPLe(depth=TINY_ROWS, projector=Projector(hidden=(8,))),
    "SharedSeparate": SharedSeparate(depth=TINY_ROWS, width=6),
    "SharedAttention": SharedAttention(depth=TINY_ROWS, heads=4, hidden=8),
    "LoRA": LoRA(depth=TINY_ROWS, products=ALL),
    "VLSMAdapter": VLSMAdapter(depth=TINY_ROWS, hidden=16, sentence=False),
    "shallow VLSMAdapter": VLSMAdapter(depth=1, hidden=16, sentence=False, kind="shallow", towers="vision"),
    "BitFit": BitFit(depth=TINY_ROWS),
    "NormTuning": NormTuning(depth=TINY_ROWS, decoder=True),
    "LinearProbe": LinearProbe(),
    "IVLP": IVLP(depth=TINY_ROWS),
    "KgCoOp": KgCoOp(depth=TINY_ROWS),
    "PromptSRC": PromptSRC(depth=TINY_ROWS),
    "Combined": Combined(of=(COOP, VPT(depth=TINY_ROWS), LoRA(depth=TINY_ROWS), NormTuning(depth=TINY_ROWS))),
}
"""Of every class; the embedded model has five blocks a tower."""


class Model(NamedTuple):
    """Sizes, weights by the network's paths, and a row of tokens for each of two images."""

    config: SAM3Config
    frozen: dict[str, np.ndarray]
    tokens: np.ndarray

    @property
    def spec(self) -> ModelSpec:
        return self.config.spec(lambda phrase: jnp.ones((len(phrase.split()), self.config.text.width)))


@cache
def random_small() -> Model:
    config, weights = CONFIG.for_frozen_encoder(small_cris.random_weights(CONFIG))
    end = config.text.end_token
    return Model(config, on_paths(weights), np.array([[end - 1, 5, 6, end], [end - 1, 7, end, end]], np.int32))


@cache
def tiny() -> Model:
    loaded = load_pretrained("sam3-tiny")
    return Model(sam3_config(loaded), on_paths(loaded.weights), loaded.tokenizer.table(["seven.", "a two."], 8))


def on_paths(weights) -> dict[str, np.ndarray]:
    return {f"model/{path}": np.asarray(weight) for path, weight in weights.items()}


def step(learner: Learner, model: Model):
    """The logits, and gradients of a loss with respect to the learner's parameters, at a depth."""
    network, side = Network(model.config, learner), model.config.image_size
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)

    def run(params, frozen, depth):
        def loss_of(params):
            fixed = {"depth": depth, "dropout": jnp.zeros(depth.shape)}
            flat = frozen | flatten(params, "learner")
            logits = network.logits(flat, jnp.asarray(images), jnp.arange(2), jnp.asarray(model.tokens), **fixed)
            return jnp.square(logits).mean(), logits

        gradients, logits = jax.grad(loss_of, has_aux=True)(params)
        return logits, gradients

    return run


def check(learner: Learner, model: Model) -> None:
    """Every row up to the depth gets a gradient, a row beyond it changes nothing, and one program serves all depths."""
    # LoRA starts at zero.
    params = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.05), learner.init(jax.random.key(0), model.spec))
    run, depth = jax.jit(step(learner, model)), np.asarray(learner.traced_values()[0], np.int32)
    whole, gradients = run(params, model.frozen, depth)
    assert np.isfinite(whole).all() and whole.shape == (2, model.config.image_size, model.config.image_size)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    rows = depth.max()
    rowwise = {path: x for path, x in flatten(gradients, "").items() if x.ndim and x.shape[0] == rows}
    assert rowwise or rows == 0
    assert all(np.abs(x).max() > 0 for path, x in flatten(gradients, "").items() if path not in rowwise)
    for row in range(rows):
        assert any(np.abs(x[row]).max() > 0 for x in rowwise.values()), row
    if rows > 1:
        shallow, gradients = run(params, model.frozen, np.ones_like(depth))
        assert np.abs(np.asarray(shallow) - whole).max() > 1e-5
        beyond = [x[1:] for path, x in flatten(gradients, "").items() if path in rowwise]
        assert all(np.abs(x).max() == 0 for x in beyond)
        others = jax.tree.map(lambda x: np.concatenate([x[:1], -3 * x[1:]]) if len(x) == rows else x, params)
        assert_array_equal(run(others, model.frozen, np.ones_like(depth))[0], shallow)
    assert run._cache_size() == 1  # pyright: ignore[reportFunctionMemberAccess]


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_a_learner_changes_both_towers(name):
    check(LEARNERS[name], random_small())


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_TINY)
def test_every_learner_on_the_embedded_model(name):
    check(ON_TINY[name], tiny())


def test_every_class_is_covered():
    assert {type(learner) for learner in ON_TINY.values()} == {*LEARNER_CLASSES, Combined}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CoOp", "VPT", "LoRA"])
def test_trials_together_are_those_alone(name):
    model, learner = tiny(), ON_TINY[name]
    params = [jax.tree.map(lambda x: x + 0.05, learner.init(jax.random.key(seed), model.spec)) for seed in (0, 1)]
    run, depths = step(learner, model), np.array([1, TINY_ROWS], np.int32)
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *params)
    together, gradients = jax.jit(jax.vmap(run, in_axes=(0, None, 0)))(stacked, model.frozen, depths)
    for number, depth in enumerate(depths):
        logits, expected = jax.jit(run)(params[number], model.frozen, depth)
        assert_allclose(together[number], logits, rtol=1e-4, atol=1e-4)
        # Those of some tensors are nothing but rounding beside the others'.
        largest = max(np.abs(gradient).max() for gradient in flatten(expected, "").values())
        for path, gradient in flatten(expected, "").items():
            least = 1e-4 * np.abs(gradient).max() + 1e-6 * largest
            ours = flatten(gradients, "")[path][number]
            assert_allclose(ours, gradient, rtol=1e-3, atol=least, err_msg=path)


@pytest.mark.slow
def test_configurations_fit_the_full_size():
    """Each is joined with the model's shapes, so a depth that it lacks would be refused."""
    paths = sorted((small.ROOT / "configs").glob("sam3_*.py"))
    assert len(paths) >= 16
    for path in paths:
        (experiment,) = experiments.planned(configuration.load(str(path)), "sam3")
        assert sum(array.size for array in experiment.frozen.values()) > 8e8 or path.stem == "sam3_finetune"


def test_the_sentence_vector_is_refused():
    with pytest.raises(ValueError, match=r"learner\.sentence must be False .*, got True: its decoder doesn't read"):
        VLSMAdapter(depth=1).init(jax.random.key(0), random_small().spec)


def test_every_learner_fits_without_the_sentence_vector():
    """So a sweep over all learners leaves out none."""
    learners = learners_for(random_small().spec)
    assert [type(learner) for learner in learners] == list(LEARNER_CLASSES)
    assert [learner for learner in learners if isinstance(learner, VLSMAdapter)] == [VLSMAdapter(sentence=False)]


def test_depths_beyond_the_blocks_are_refused():
    for learner, says in (
        (VPT(depth=4), r"learner\.depth must be at most 3, the vision tower's blocks, got 4"),
        (LoRA(depth=4), r"learner\.depth must be at most 3, the blocks of the changed towers, got 4"),
        (VLSMAdapter(depth=2, kind="shallow", towers="vision", sentence=False), r"learner\.depth must be at most 1"),
    ):
        with pytest.raises(ValueError, match=says):
            learner.init(jax.random.key(0), random_small().spec)
