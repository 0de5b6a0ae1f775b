"""Tests of features that are encoded once: they change nothing but the time."""

import dataclasses
import json

import jax
import mistakes
import numpy as np
import pytest
import small
import small_cris
from numpy.testing import assert_allclose
from rich.console import Console

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.data.feeding.batch import gather
from tunevlseg_jax.learners import (
    IVLP,
    LEARNERS,
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
    PromptSRC,
    SharedAttention,
    SharedSeparate,
    VLSMAdapter,
    ZeroShot,
)
from tunevlseg_jax.models.features import TextFeatures
from tunevlseg_jax.runs.trainer import train
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import step
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.split import Split

quick_compilation = small.quick_compilation


def settings(**changes) -> Train:
    return Train(epochs=2, batch_size=4, augment=False, **changes)


def count_encoded(monkeypatch) -> list[int]:
    """The sizes of the batches that are encoded from now on."""
    sizes, encode_images_step = [], step.encode_images_step

    def encode(frozen, images, **static):
        if not isinstance(images, jax.core.Tracer):  # traced for the size of the features
            sizes.append(len(images))
        return encode_images_step(frozen, images, **static)

    monkeypatch.setattr(step, "encode_images_step", encode)
    return sizes


@pytest.mark.slow
@pytest.mark.parametrize("learner", [CoOp(depth=2), CoCoOp(depth=2)], ids=lambda learner: type(learner).__name__)
def test_training_is_the_same(tmp_path, monkeypatch, learner):
    encoded, rows = count_encoded(monkeypatch), {}
    for cached in (True, False):
        folder = tmp_path / str(cached)
        train(small.config(folder, learner=learner, train=settings(cache_features=cached)), Console(quiet=True))
        rows[cached] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert len(encoded) == (3 if cached else 0)  # a batch of each of the three splits
        encoded.clear()
    for one, other in zip(rows[True], rows[False], strict=True):
        for part in ("train", "val"):
            assert_allclose(list(one[part].values()), list(other[part].values()), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("learner", "changes", "same"),
    [
        (CoOp(depth=2), {}, {"train", "val"}),
        (CoOp(depth=2), {"tune": "decoder"}, set()),
        (VPT(depth=2), {}, set()),
        (CoOp(depth=2), {"cache_features": False}, set()),
    ],
)
def test_features_are_cached_only_where_they_never_change(learner, changes, same):
    config = small.config(learner=learner, train=settings(**changes))
    assert {name for name in ("train", "val") if config.features_cacheable(name)} == same


def test_features_of_augmented_images_are_not_cached():
    config = small.config(learner=CoOp(depth=2), train=Train(augment=True))
    assert config.features_cacheable("val") and not config.features_cacheable("train")


@pytest.mark.slow
def test_augmented_views_are_encoded_once_and_trained_on_in_turn(tmp_path, monkeypatch):
    """With and without a cache the losses are the same, and they are those of the views: three epochs use two."""
    encoded, rows = count_encoded(monkeypatch), {}
    for cached in (True, False):
        folder = tmp_path / str(cached)
        settings = Train(epochs=3, batch_size=4, augmented_views=2, cache_features=cached)
        train(small.config(folder, learner=CoOp(depth=2), train=settings), Console(quiet=True))
        rows[cached] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert len(encoded) == (4 if cached else 0)  # two views, val and test
        encoded.clear()
    for one, other in zip(rows[True], rows[False], strict=True):
        assert_allclose(list(one["train"].values()), list(other["train"].values()), rtol=1e-5, atol=1e-7)
    experiment = small.build(small.config(learner=CoOp(depth=2), train=Train(batch_size=4, augmented_views=2)))
    cache = experiment.feature_cache(sharding.mesh())
    setup = experiment.train_setup(experiment.splits(cache), cache)
    marked = [
        sum(int((batch.masks.sum((1, 2)) * batch.weight).sum()) for batch in map(gather, setup.batches(order)))
        for order in range(1, 6)
    ]
    first, second = (view.records.masks.sum() for view in setup.views)
    assert marked == [first, second, first, second, first] and first != second


def test_stored_features_are_those_of_the_images():
    """In a file, also if the last batch isn't full."""
    experiment = small.build(small.config(learner=CoOp(depth=2), train=settings()))
    feed = experiment.split("train", cache=experiment.feature_cache(sharding.mesh())).feed
    stored = feed._images
    direct = step.encode_images_step(experiment.frozen, feed.records.images, network=experiment.network)
    for rows, expected in zip(jax.tree.leaves(stored), jax.tree.leaves(direct), strict=True):
        assert isinstance(rows, np.memmap)
        assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    assert feed._bytes == sum(rows.nbytes for rows in jax.tree.leaves(stored)) + feed.records.maps.nbytes


@pytest.mark.parametrize("learner", [VPT(depth=2), ZeroShot()], ids=lambda learner: type(learner).__name__)
def test_phrases_are_encoded_once_if_nothing_changes_their_features(learner):
    experiment = small.build(small.config(learner=learner, train=settings()))
    phrases, images = ["seven", "a photo of a two"], np.zeros((2, 96, 96, 3), np.uint8)
    features, tokens = experiment.encode_text(phrases), experiment.token_table(phrases)
    assert isinstance(features, TextFeatures)
    arguments = {**experiment.frozen, **experiment.trainable}, images, np.asarray([1, 0])
    values = {"depth": np.int32(2), "dropout": np.float32(0)}
    once, each_time = (jax.jit(experiment.network.logits)(*arguments, table, **values) for table in (features, tokens))
    assert_allclose(once, each_time, rtol=1e-5, atol=1e-6)


def test_learnt_text_prompts_and_tuned_towers_need_tokens():
    for changes in ({"learner": CoOp(depth=2)}, {"learner": ZeroShot(), "train": settings(tune="all")}):
        experiment = small.build(small.config(**changes))
        np.testing.assert_array_equal(experiment.encode_text(["seven"]), experiment.token_table(["seven"]))


PROMPTING = [
    *(learner(depth=2, num_context=2, init_phrase=None) for learner in (CoOp, CoCoOp, MaPLe, IVLP, KgCoOp, PromptSRC)),
    *(VPT(depth=2, num_context=2), SharedSeparate(depth=2, num_context=2)),
    SharedAttention(depth=2, num_context=2, heads=2, hidden=16),
    *(LoRA(depth=2), VLSMAdapter(depth=2, hidden=8), VLSMAdapter(depth=2, kind="shallow")),
    *(BitFit(depth=2), NormTuning(depth=2, decoder=True), LinearProbe()),
    Combined(of=(VPT(depth=1, num_context=2), CoCoOp(depth=2, num_context=2, init_phrase=None), LoRA(depth=2))),
]

QUICK = (CoOp, VPT, LoRA, LinearProbe)


def test_every_learner_has_a_row():
    assert {type(learner) for learner in PROMPTING} == {*LEARNERS, Combined}


@pytest.mark.parametrize(
    ("learner", "cached"),
    [
        # One learner of each way of changing the towers is quick. One that changes the vision tower caches nothing, but
        # for a regulariser.
        pytest.param(
            learner,
            cached,
            id=f"{type(learner).__name__}-{'cached' if cached else 'encoded'}",
            marks=() if cached and isinstance(learner, QUICK) else pytest.mark.slow,
        )
        for learner in PROMPTING
        for cached in (True, False)
        if cached or "vision" not in learner.changes or learner.compared
    ],
)
def test_every_trainable_tensor_has_a_gradient(learner, cached):
    """With the splits of a run, whose features are cached if the configuration says so; the frozen ones stay."""
    split = check_step(small.config(learner=learner, train=settings(cache_features=cached)))
    assert (split.feed.encode_images is not None) == (
        cached and ("vision" not in learner.changes or "image" in learner.compared)
    )
    assert isinstance(split.table, TextFeatures) == ("text" not in learner.changes)


@pytest.mark.slow
def test_every_trainable_tensor_has_a_gradient_in_a_cris(tmp_path):
    """Of its text tower, neck, decoder layers and projector; its ResNet's features are cached."""
    norms = NormTuning(depth=2, towers="text", decoder=True)
    learner = Combined(of=(norms, CoOp(depth=2, num_context=2, init_phrase=None), LoRA(depth=2, towers="text")))
    folder = str(small_cris.write_folder(tmp_path / "cris"))
    split = check_step(small.config(learner=learner, model=Model(checkpoint=folder), train=settings()))
    assert split.feed.encode_images is not None


def check_step(config: Config) -> Split:
    """Trains one step: every trainable tensor has a gradient, and the frozen ones are the same to the bit."""
    experiment = small.build(config)
    cache = experiment.feature_cache(sharding.mesh())
    splits = experiment.splits(cache)
    split = splits["train"]
    setup = experiment.train_setup(splits, cache)
    trainable, hyper = experiment.for_trials(1)
    # Not as they start: the gradient of LoRA's A is zero while B is.
    state = step.init({path: array + 0.01 for path, array in trainable.items()}, hyper)
    before = {path: np.array(array) for path, array in experiment.frozen.items()}
    state, _ = step.train_step(
        state,
        experiment.frozen,
        next(iter(setup.batches(1))),
        split.table,
        setup.frozen_text,
        network=experiment.network,
        schedule=setup.schedule,
    )
    without = {path for path, moment in state.optimizer[0].mu.items() if not np.any(moment)}
    assert state.trainable and not without, without
    assert before.keys() == experiment.frozen.keys() - state.trainable.keys()
    for path, array in experiment.frozen.items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)
    return split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forgetful(VPT):
    """A learner that forgets to say that it changes the vision tower."""

    @property
    def changes(self):
        return frozenset()


def test_a_learner_that_names_other_changes_than_it_makes_is_refused():
    with mistakes.raises(r"learner-unfit: Forgetful\.changes is nothing, but Forgetful changes vision"):
        build_experiment(small.config(learner=Forgetful(depth=2)))
