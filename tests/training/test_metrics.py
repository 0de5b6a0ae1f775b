"""Tests of the scores: sums that merge, padding that never counts, and the plain formulation in NumPy."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from tunevlseg_jax.training import metrics
from tunevlseg_jax.training.losses import dice_ce
from tunevlseg_jax.training.metrics import Scores, Sums

SAMPLES, HEIGHT, WIDTH = 6, 3, 4
SHAPE = (SAMPLES, HEIGHT, WIDTH)

logit = st.sampled_from([-50.0, -1.5, -1e-6, 0.0, 1e-6, 0.25, 3.0, 50.0])
batches = st.tuples(arrays(np.float32, SHAPE, elements=logit), arrays(bool, SHAPE, elements=st.booleans()))
properties = settings(deadline=None, max_examples=60)


@jax.jit
def score(logits, targets) -> Scores:
    return metrics.score(dice_ce(logits, targets), logits, targets)


total, merge = jax.jit(metrics.total), jax.jit(metrics.merge)


def means(sums: Sums) -> dict[str, float]:
    """The means of one trial."""
    return {name: value for name, (value,) in metrics.means(jax.tree.map(lambda x: x[None], sums)).items()}


def plain(logits: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Each sample's scores, in float64 and one sample at a time."""
    rows = []
    for x, t in zip(logits.astype(float), targets, strict=True):
        p = 1 / (1 + np.exp(-x))
        soft = 1 - (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)
        entropy = np.where(t, np.logaddexp(0, -x), np.logaddexp(0, x)).mean()
        mark = p > 0.5
        both, either, size = (mark & t).sum(), (mark | t).sum(), mark.sum() + t.sum()
        rows.append(
            (soft + 0.2 * entropy, 2 * both / size if size else 1, both / either if either else 1, both, either)
        )
    return dict(zip(Scores._fields, np.asarray(rows, float).T, strict=True))


@properties
@given(batches)
def test_scores_agree_with_numpy(batch):
    scores, expected = score(*batch), plain(*batch)
    for name in Scores._fields:
        assert_allclose(getattr(scores, name), expected[name], rtol=2e-6, atol=1e-6, err_msg=name)


@properties
@given(batches)
def test_means_agree_with_numpy(batch):
    expected = plain(*batch)
    union = expected["union"].sum()
    values = means(total(score(*batch), np.ones(SAMPLES, np.float32)))
    assert list(values) == ["loss", "dice", "iou", "sample_iou"]
    assert values["loss"] == pytest.approx(expected["loss"].mean(), rel=2e-6)
    assert values["dice"] == pytest.approx(expected["dice"].mean(), abs=1e-6)
    assert values["sample_iou"] == pytest.approx(expected["iou"].mean(), abs=1e-6)
    assert values["iou"] == pytest.approx(expected["intersection"].sum() / union if union else 1, abs=1e-6)


@properties
@given(batches, st.lists(st.integers(0, 3), min_size=SAMPLES, max_size=SAMPLES), st.permutations(range(4)))
def test_merging_any_split_of_the_samples_gives_the_whole(batch, part, order):
    """Parts may be empty and may come in any order."""
    scores = score(*batch)
    whole = total(scores, np.ones(SAMPLES, np.float32))
    parts = [total(scores, (np.asarray(part) == number).astype(np.float32)) for number in order]
    merged = parts[0]
    for other in parts[1:]:
        merged = merge(merged, other)
    for name in ("intersection", "union", "samples"):
        assert_array_equal(getattr(merged, name), getattr(whole, name))
    for name, value in means(whole).items():
        assert means(merged)[name] == pytest.approx(value, rel=2e-6), name


@properties
@given(batches, st.integers(1, SAMPLES - 1), st.sampled_from([np.nan, np.inf, 1e30, 0.0]))
def test_padding_never_counts(batch, real, rubbish):
    logits, targets = batch
    weight = (np.arange(SAMPLES) < real).astype(np.float32)
    filled = np.where(weight[:, None, None] > 0, logits, np.float32(rubbish))
    sums, expected = total(score(filled, targets), weight), plain(logits[:real], targets[:real])
    assert sums.samples == real
    for name in Scores._fields:
        assert_allclose(getattr(sums, name), expected[name].sum(), rtol=2e-6, atol=1e-5, err_msg=name)


def test_an_empty_prediction_of_an_empty_mask_counts_one():
    logits, targets = np.full(SHAPE, -3.0, np.float32), np.zeros(SHAPE, bool)
    logits[1, 0, 0] = 3.0  # a false alarm
    targets[2, 0, 0] = True  # a miss
    scores = score(logits, targets)
    assert scores.dice.tolist() == scores.iou.tolist() == [1, 0, 0, 1, 1, 1]
    empty = means(total(scores, np.asarray([1, 0, 0, 1, 1, 1], np.float32)))
    assert (empty["dice"], empty["iou"], empty["sample_iou"]) == (1, 1, 1)


def test_a_probability_of_one_half_is_background():
    scores = score(np.zeros(SHAPE, np.float32), np.ones(SHAPE, bool))
    assert scores.intersection.tolist() == [0] * SAMPLES and scores.union.tolist() == [HEIGHT * WIDTH] * SAMPLES


def test_means_keep_trials_apart():
    sums = Sums(*(np.asarray(pair, np.float32) for pair in ((2, 6), (1, 2), (1, 1), (0, 9), (0, 12), (2, 4))))
    values = metrics.means(jax.tree.map(jax.numpy.asarray, sums))
    assert values == {"loss": [1.0, 1.5], "dice": [0.5, 0.5], "iou": [1.0, 0.75], "sample_iou": [0.5, 0.25]}
