"""The terms of learners with a regulariser, and the average over epochs, against a few lines of numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learner_cases import CONFIG, TOWERS, Step, init
from numpy.testing import assert_array_equal

from tunevlseg_jax.learners import IVLP, CoOp, KgCoOp, PromptSRC
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.parameters import flatten
from tunevlseg_jax.network import FrozenText, Network
from tunevlseg_jax.prompts import Outputs

PRESENT = np.array([1, 1, 0], np.float32)
WEIGHTS = {"sentence_weight": 3.0, "image_weight": 2.0, "mask_weight": 0.5, "average_epoch": 2.0, "average_spread": 1.0}


def outputs(seed: int) -> Any:
    """Of three images, the last of which is padding, and two phrases."""
    random = np.random.default_rng(seed)
    shapes = ((3, 4, 5), (2, 6), (3, 7))
    arrays: Any = (random.normal(0, 2, shape).astype(np.float32) for shape in shapes)
    return Outputs(*arrays)


def lengths(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(-1, keepdims=True))


def term(learner: Learner, weights: dict[str, float], learnt: Any, frozen: Any) -> float:
    values = {name: jnp.float32(weights[name]) for name in learner.traced_fields}
    ours, theirs = (jax.tree.map(jnp.asarray, each) for each in (learnt, frozen))
    return float(learner.regulariser(ours, theirs, values, jnp.asarray(PRESENT)))


def test_kgcoop_is_the_distance_of_the_sentence_vectors():
    learnt, frozen = outputs(0), outputs(1)
    a, b = learnt.sentence / lengths(learnt.sentence), frozen.sentence / lengths(frozen.sentence)
    # The squared distance of vectors of length 1 is twice 1 - cos.
    expected = 3.0 * np.mean([((a[row] - b[row]) ** 2).sum() / 2 for row in range(2)])
    assert term(KgCoOp(), WEIGHTS, learnt, frozen) == pytest.approx(expected, rel=1e-5)
    assert abs(term(KgCoOp(), WEIGHTS, frozen, frozen)) < 1e-6


def test_promptsrc_has_three_terms():
    learnt, frozen = outputs(0), outputs(1)
    sentence, image = (
        np.abs(a / lengths(a) - b / lengths(b)).mean(-1)
        for a, b in ((learnt.sentence, frozen.sentence), (learnt.image, frozen.image))
    )
    p, q = (1 / (1 + np.exp(-np.float64(each.logits))) for each in (frozen, learnt))
    masks = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean((1, 2))
    parts = {"sentence_weight": sentence.mean(), "image_weight": image[:2].mean(), "mask_weight": masks[:2].mean()}
    for name, part in parts.items():
        alone = {**dict.fromkeys(WEIGHTS, 0.0), name: WEIGHTS[name]}
        assert term(PromptSRC(), alone, learnt, frozen) == pytest.approx(WEIGHTS[name] * part, rel=1e-4)
    whole = sum(WEIGHTS[name] * part for name, part in parts.items())
    assert term(PromptSRC(), WEIGHTS, learnt, frozen) == pytest.approx(whole, rel=1e-4)
    assert abs(term(PromptSRC(), WEIGHTS, frozen, frozen)) < 1e-6


def test_logits_of_any_size_have_a_finite_term():
    learnt = Outputs(jnp.full((3, 4, 5), 300.0), jnp.zeros((2, 6)), jnp.zeros((3, 7)))
    frozen = learnt._replace(logits=-learnt.logits)
    values = {name: jnp.float32(1) for name in PromptSRC.traced_fields}
    value, slopes = jax.value_and_grad(
        lambda tree: PromptSRC().regulariser(tree, frozen, values, jnp.asarray(PRESENT)), allow_int=True
    )(learnt)
    assert np.isfinite(value) and all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize(("middle", "spread"), [(15.0, 1.0), (3.0, 2.0), (40.0, 0.5), (None, 1.0)])
def test_the_average_over_epochs_is_gaussian(middle, spread):
    """The shares give the weighted mean of the epochs so far; without a middle they give the last epoch alone."""
    epochs = np.random.default_rng(0).normal(size=21)
    values = {"average_epoch": np.array([np.inf if middle is None else middle]), "average_spread": np.array([spread])}
    average = 0.0
    for epoch in range(1, 21):
        share = PromptSRC().epoch_share(np.array([epoch]), values)
        assert share.shape == (1,)
        average += share[0] * (epochs[epoch] - average)
        logs = -(((np.arange(1, epoch + 1) - (middle or 1e9)) / spread) ** 2) / 2
        weights = np.exp(logs - logs.max())
        if middle is None:
            assert share[0] == 1
            weights = np.arange(1, epoch + 1) == epoch
        assert average == pytest.approx((weights * epochs[1 : epoch + 1]).sum() / weights.sum(), rel=1e-9)


def test_shares_of_trials_at_different_epochs():
    values = {"average_epoch": np.array([2.0, 2.0]), "average_spread": np.array([1.0, 1.0])}
    together = PromptSRC().epoch_share(np.array([1, 3]), values)
    alone = [PromptSRC().epoch_share(np.array([n]), {k: v[:1] for k, v in values.items()})[0] for n in (1, 3)]
    assert_array_equal(together, alone)
    assert together[0] == 1


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (KgCoOp(depth=1, sentence_weight=-1.0), r"learner\.sentence_weight .*at least 0 .*got -1"),
        (KgCoOp(depth=1, templates=()), r"learner\.templates .*one or more"),
        (KgCoOp(depth=1, templates=("a photo",)), r"learner\.templates .*one \{\}, got \('a photo',\)"),
        (PromptSRC(depth=1, mask_weight=float("nan")), r"learner\.mask_weight .*got nan"),
        (PromptSRC(depth=1, average_spread=0.0), r"learner\.average_spread .*above 0"),
        (PromptSRC(depth=1, average_epoch=0.5), r"learner\.average_epoch .*at least 1, got 0.5"),
    ],
    ids=str,
)
def test_values_that_do_not_fit(learner, message):
    with pytest.raises(ValueError, match=message):
        learner.init(jax.random.key(0), TOWERS)


@pytest.mark.slow
@pytest.mark.parametrize(("plain", "regularised"), [(CoOp, KgCoOp), (IVLP, PromptSRC)])
def test_without_weights_they_are_the_learners_that_they_regularise(plain, regularised):
    """To the bit: each operation is a program of its own here, so that none is fused differently."""
    own, other = plain(depth=2), regularised(depth=2)
    params, expected = init(other), init(own)
    jax.tree.map(assert_array_equal, params, expected)
    frozen = {path: jnp.asarray(array) for path, array in Step(own).frozen.items()}
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), np.uint8)
    table, depth = jnp.asarray([[30, 5, 6, 31], [30, 7, 31, 31]], jnp.int32), jnp.int32(2)

    def gradient(learner: Learner, weight: float) -> dict:
        net = Network(CONFIG, learner)
        arguments = jnp.asarray(images), jnp.arange(2)
        text = net.encode_text(frozen, table)
        target = net.frozen_outputs(frozen, *arguments, FrozenText(text.sentence, text))
        values = {name: jnp.float32(weight) for name in learner.traced_fields}

        def loss(params: dict) -> jax.Array:
            given = frozen | flatten(params, "learner")
            got = net.outputs(given, *arguments, table, depth=depth, dropout=jnp.float32(0))
            added = learner.regulariser(got, target, values, jnp.ones(2)) if learner.compared else 0.0
            return jnp.square(got.logits).mean() + added

        with jax.disable_jit():
            return flatten(jax.grad(loss)(jax.tree.map(jnp.asarray, params)), "learner")

    exact = gradient(own, 0.0)
    for path, row in gradient(other, 0.0).items():
        assert_array_equal(row, exact[path], err_msg=path)
    assert all((row != exact[path]).any() for path, row in gradient(other, 1.0).items())
