"""Tests of the features of augmented epochs: the same for all trials, computed once and stored while there is room."""

import dataclasses
import io

import jax
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_array_equal
from rich.console import Console

from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.feeding import feature_cache
from tunevlseg_jax.data.feeding.batch import Source, gather
from tunevlseg_jax.data.feeding.feature_cache import FeatureCache
from tunevlseg_jax.data.feeding.scratch import num_bytes
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import VPT, CoOp
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.search import run_sweep
from tunevlseg_jax.search.options import Options
from tunevlseg_jax.training import loop
from tunevlseg_jax.training.experiment import Experiment

quick_compilation = small.quick_compilation

PLENTY = 2.0**30
SEED = 3
DATA = Data(name="scenes/photo", scenes=Scenes(train=10, val=5, test=6))


def config(**changes) -> Config:
    return small.config(learner=CoOp(depth=1, num_context=2, init_phrase=None), **changes)


class Encoder:
    """The model's image encoder, and the number of calls."""

    def __init__(self):
        self.experiment, self.calls = small.build(config()), 0

    def __call__(self, images):
        self.calls += 1
        return self.experiment.encode_images(images)


def cache_of(encoder: Encoder, room: float = PLENTY) -> FeatureCache:
    return FeatureCache(encoder, encoder.experiment.image_size, sharding.mesh(), room)


def stored_bytes(cache: FeatureCache) -> int:
    return num_bytes(list(cache.epochs.values()))


def check_same(ours: list[Source], theirs: list[Source]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for array, expected in zip(jax.tree.leaves(gather(one)), jax.tree.leaves(gather(other)), strict=True):
            assert_array_equal(array, expected)
        shapes = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), source) for source in (one, other))
        assert next(shapes) == next(shapes)  # for the same program


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        pytest.param(Data(name="scenes/photo", placement="resident", scenes=DATA.scenes), marks=pytest.mark.slow),
        Data(name="scenes/endoscopy", scenes=DATA.scenes),
    ],
    ids=lambda data: f"{data.name}, {data.placement}",
)
def test_stored_features_are_those_of_augmented_images(data):
    """To the bit, the masks with them, and without another call of the encoder."""
    encoder = Encoder()
    cache = cache_of(encoder)
    feed = cache.feed(data, "train")
    first = {epoch: list(cache.augmented_epoch(data, 4, SEED, epoch)) for epoch in (1, 2)}
    steps = sum(map(len, first.values()))
    assert encoder.calls == steps
    for epoch, sources in first.items():
        direct = [jax.jit(gather)(source) for source in feed.training(4, SEED, epoch, augment=True)]
        for source, batch in zip(sources, direct, strict=True):
            ours = gather(source)
            assert_array_equal(ours.masks, batch.masks)
            expected = encoder.experiment.encode_images(batch.images)
            jax.tree.map(assert_array_equal, ours.images, expected)
        check_same(list(cache.augmented_epoch(data, 4, SEED, epoch)), sources)
    assert encoder.calls == steps
    assert (np.asarray(first[1][0].images.pooled) != np.asarray(first[2][0].images.pooled)).any()


@pytest.mark.slow
def test_another_batch_size_or_order_is_encoded_separately():
    encoder = Encoder()
    cache = cache_of(encoder)
    for key in ((4, SEED, 1), (5, SEED, 1), (4, SEED + 1, 1)):
        before = encoder.calls
        sources = list(cache.augmented_epoch(DATA, *key))
        assert encoder.calls == before + len(sources)
        check_same(list(cache.augmented_epoch(DATA, *key)), sources)


def test_only_epochs_with_room_are_stored():
    encoder = Encoder()
    cache = cache_of(encoder)
    list(cache.augmented_epoch(DATA, 4, SEED, 1))
    size = stored_bytes(cache)
    for room, stored in ((0.0, 0), (size - 1, 0), (size, 1), (2.5 * size, 2)):
        cache = cache_of(encoder, room)
        for epoch in (1, 2, 3):
            list(cache.augmented_epoch(DATA, 4, SEED, epoch))
        assert len(cache.epochs) == stored and stored_bytes(cache) == stored * size


def test_half_of_a_full_disk_is_left_free(monkeypatch):
    cache = cache_of(Encoder())
    list(cache.augmented_epoch(DATA, 4, SEED, 1))
    size = stored_bytes(cache)
    for free, stored in ((2 * size - 2, 1), (2 * size, 2)):
        monkeypatch.setattr(feature_cache, "free", lambda free=free: free)
        list(cache.augmented_epoch(DATA, 4, SEED, 2))
        assert len(cache.epochs) == stored


def test_an_unfinished_epoch_is_encoded_again():
    encoder = Encoder()
    cache = cache_of(encoder)
    next(cache.augmented_epoch(DATA, 4, SEED, 1))
    assert not cache.epochs
    assert len(list(cache.augmented_epoch(DATA, 4, SEED, 1))) == 3 and encoder.calls == 4


def test_epochs_of_one_data_set_are_stored_at_a_time():
    cache, other = cache_of(Encoder()), Data(name="scenes/endoscopy", scenes=DATA.scenes)
    for data in (DATA, other):
        list(cache.augmented_epoch(data, 4, SEED, 1))
        assert [key[0] for key in cache.epochs] == [data]


def test_splits_and_views_are_loaded_once_until_they_are_evicted():
    """Learners with and without features share the pixels."""
    experiments = [small.build(small.config(learner=learner)) for learner in (CoOp(depth=1), VPT(depth=1))]
    cache = experiments[0].feature_cache(sharding.mesh())
    encoded, images = (experiment.split("test", cache=cache).feed for experiment in experiments)
    assert encoded.records is images.records and images.encode_images is None
    assert encoded.encode_images is not None and encoded is experiments[0].split("test", cache=cache).feed
    view = cache.feed(DATA, "train", view=1, seed=SEED)
    assert cache.feed(DATA, "train", view=1, seed=SEED, encoded=True).records is view.records
    cache.evict_all_but("test")
    assert experiments[1].split("test", cache=cache).feed is images
    assert cache.feed(DATA, "train", view=1, seed=SEED) is not view


@pytest.mark.slow
def test_later_trials_need_no_encoding(tmp_path, monkeypatch):
    """They are the same as with features of their own; the programs of a CPU share one encoding."""
    monkeypatch.setattr(sharding, "num_cores", lambda: 2)
    calls, encode_images = [], Experiment.encode_images
    monkeypatch.setattr(Experiment, "encode_images", lambda *a: calls.append(1) or encode_images(*a))
    shared = config(train=Train(epochs=2, batch_size=4))
    for scratch, expected in ((8.0, 6), (0.0, 12)):  # three steps of each epoch
        folder = tmp_path / str(scratch)
        run_sweep.sweep(
            Options(study="s", trials=4, parallel=2, scratch=scratch, folder=str(folder), config=shared),
            Console(quiet=True),
        )
        assert len(calls) == expected + 2 + 2 + 1  # val and test once, their sizes, and the count of memory
        calls.clear()
    for number in range(4):
        one, other = (tmp_path / scratch / "s" / "trials" / f"{number:03d}" for scratch in ("8.0", "0.0"))
        assert small.metrics(one) == small.metrics(other)


@pytest.mark.slow
def test_the_size_of_features_is_told_before_they_are_computed(tmp_path, monkeypatch):
    """By `train`, and once by a sweep over two learners; it is the size of what is stored."""
    plain = dataclasses.replace(
        config(workdir=str(tmp_path / "run")), train=Train(epochs=1, batch_size=4, augment=False)
    )
    experiment = small.build(plain)
    cache = experiment.feature_cache(sharding.mesh())
    splits = experiment.splits(cache)
    setup = experiment.train_setup(splits, cache)
    stored = sum(
        num_bytes(experiment.encode_images(jax.numpy.asarray(split.feed.records.images))) for split in splits.values()
    )
    monkeypatch.setattr(loop, "NOTED_BYTES", stored)
    assert setup.features_note([splits["test"]]) is None
    monkeypatch.setattr(loop, "NOTED_BYTES", stored - 1)
    note = setup.features_note([splits["test"]])
    assert note and note.startswith("features of images, computed once, take 0.0 GiB in ")

    printed = io.StringIO()
    console = Console(file=printed, width=80)
    trainer.train(plain, console)
    lines = printed.getvalue().splitlines()
    assert lines.index(note) < next(number for number, line in enumerate(lines) if line.startswith("epoch "))
    printed.truncate(0)
    searched = Options(study="s", trials=1, learners="coop,kgcoop", folder=str(tmp_path), config=plain)
    run_sweep.sweep(searched, console)
    assert printed.getvalue().splitlines().count(note) == 1


def test_several_devices_encode_within_the_step():
    experiment = small.build(config(train=Train(epochs=2, batch_size=4)))
    cache = experiment.feature_cache(sharding.mesh())
    splits = experiment.splits(cache)
    assert experiment.train_setup(splits, cache, parallel=True).cache is cache
    cache.mesh = sharding.Mesh(np.repeat(cache.mesh.devices, 2, axis=0), cache.mesh.axis_names)
    assert experiment.train_setup(splits, cache, parallel=True).cache is None


def test_scratch_below_nothing_is_refused(tmp_path):
    asked = Options(study="s", scratch=-1.0, folder=str(tmp_path), config=config())
    with mistakes.raises("out-of-range: scratch.*-1"):
        asked.check()
