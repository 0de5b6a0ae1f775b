"""What a model sees in augmented images: the same for all trials, looked at once and kept as far as there is room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import wait

import jax
import mistakes
import numpy as np
import pytest
import small
from numpy.testing import assert_array_equal
from rich.console import Console

from tunevlseg_jax import sweep
from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.feeding import augmented_feature_cache
from tunevlseg_jax.data.feeding.augmented_feature_cache import AugmentedFeatureCache
from tunevlseg_jax.data.feeding.batch import Source, gather
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search import memory_fit
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.training import parallel_loops
from tunevlseg_jax.training.experiment import Experiment

quick_compilation = small.quick_compilation

PLENTY = 2.0**30
SEED = 3


def config(**changes) -> Config:
    return small.config(learner=CoOp(depth=1, num_context=2, init_phrase=None), **changes)


class Looks:
    """What the model sees, and how often it was asked."""

    def __init__(self):
        self.experiment, self.number = small.build(config()), 0

    def __call__(self, images):
        self.number += 1
        return self.experiment.encode_images(images)


def feed(**data):
    asked = Data(**({"name": "scenes/photo", "scenes": Scenes(train=10, val=5, test=6)} | data))
    return small.build(config()).split("train", asked).feed


def check_same(ours: list[Source], theirs: list[Source]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for array, expected in zip(jax.tree.leaves(gather(one)), jax.tree.leaves(gather(other)), strict=True):
            assert_array_equal(array, expected)
        shapes = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), source) for source in (one, other))
        assert next(shapes) == next(shapes)  # for the same program


@pytest.mark.parametrize("data", [{}, {"placement": "resident"}, {"name": "scenes/endoscopy"}], ids=str)
def test_what_is_kept_is_what_is_seen_in_augmented_images(data):
    """To the bit, the masks with it, and without another look."""
    look, split = Looks(), feed(**data)
    seen = AugmentedFeatureCache(split, look, PLENTY)
    first = {epoch: list(seen.training(4, SEED, epoch)) for epoch in (1, 2)}
    assert look.number == 6
    for epoch, sources in first.items():
        direct = [jax.jit(gather)(source) for source in split.training(4, SEED, epoch, augment=True)]
        for source, batch in zip(sources, direct, strict=True):
            ours = gather(source)
            assert_array_equal(ours.masks, batch.masks)
            for rows, expected in zip(
                jax.tree.leaves(ours.images), jax.tree.leaves(look.experiment.encode_images(batch.images)), strict=True
            ):
                assert_array_equal(rows, expected)
        check_same(list(seen.training(4, SEED, epoch)), sources)
    assert look.number == 6
    assert (np.asarray(first[1][0].images.pooled) != np.asarray(first[2][0].images.pooled)).any()


def test_another_batch_size_or_order_is_looked_at_by_itself():
    look = Looks()
    seen = AugmentedFeatureCache(feed(), look, PLENTY)
    for which in ((4, SEED, 1), (5, SEED, 1), (4, SEED + 1, 1)):
        before = look.number
        sources = list(seen.training(*which))
        assert look.number == before + len(sources)
        check_same(list(seen.training(*which)), sources)


def test_only_what_there_is_room_for_is_kept():
    look = Looks()
    seen = AugmentedFeatureCache(feed(), look, PLENTY)
    list(seen.training(4, SEED, 1))
    one = PLENTY - seen.room
    for room, kept in ((0.0, 0), (one - 1, 0), (one, 1), (2.5 * one, 2)):
        seen = AugmentedFeatureCache(feed(), look, room)
        for epoch in (1, 2, 3):
            list(seen.training(4, SEED, epoch))
        assert len(seen.stored) == kept and seen.room == room - kept * one


def test_half_of_a_full_disk_is_left_free(monkeypatch):
    seen = AugmentedFeatureCache(feed(), Looks(), PLENTY)
    list(seen.training(4, SEED, 1))
    one = PLENTY - seen.room
    for free, kept in ((2 * one - 2, 1), (2 * one, 2)):
        monkeypatch.setattr(augmented_feature_cache, "free", lambda free=free: free)
        list(seen.training(4, SEED, 2))
        assert len(seen.stored) == kept


def test_an_epoch_that_is_given_up_is_looked_at_again():
    look = Looks()
    seen = AugmentedFeatureCache(feed(), look, PLENTY)
    next(seen.training(4, SEED, 1))
    assert not seen.stored and seen.room == PLENTY
    assert len(list(seen.training(4, SEED, 1))) == 3 and look.number == 4


def test_trials_that_come_later_need_no_look(tmp_path, monkeypatch):
    """They are the same as with looks of their own; the parts of a CPU look once together."""
    monkeypatch.setattr(sharding, "num_cores", lambda: 2)
    look, see = [], Experiment.encode_images
    monkeypatch.setattr(Experiment, "encode_images", lambda *a: look.append(1) or see(*a))
    asked = config(train=Train(epochs=2, batch_size=4))
    for scratch, looks in ((8.0, 6), (0.0, 12)):  # three steps of each epoch; val and test are looked at once
        folder = tmp_path / str(scratch)
        sweep.sweep(
            sweep.Options(study="s", trials=4, parallel=2, scratch=scratch, folder=str(folder), config=asked),
            Console(quiet=True),
        )
        assert len(look) == looks + 2 + 1  # val, test, and the planner's
        look.clear()
    for number in range(4):
        one, other = (tmp_path / scratch / "s" / "trials" / f"{number:03d}" for scratch in ("8.0", "0.0"))
        assert small.metrics(one) == small.metrics(other)


def test_several_devices_look_within_the_step():
    asked = config(train=Train(epochs=2, batch_size=4))
    shared = Resources(asked)
    assert shared.setup(asked, shared.experiment(asked)).sights is not None
    shared.mesh = sharding.Mesh(np.repeat(shared.mesh.devices, 2, axis=0), shared.mesh.axis_names)
    assert not shared._looks_apart(asked)


def test_looking_and_every_part_are_counted_in_memory(monkeypatch):
    asked = config(train=Train(epochs=2, batch_size=4))
    shared = Resources(asked)
    experiment = shared.experiment(asked)
    fit = shared.setup(asked, experiment)
    monkeypatch.setattr(sharding, "num_cores", lambda: 2)
    one, two, four, six = (memory_fit.bytes_needed(experiment, fit, size, parts=size) for size in (1, 2, 4, 6))
    kept = (four - two) // 2  # of a trial; what a step takes beside it is there at most twice
    beside = two - one - kept
    look = one - kept - beside
    assert kept > 0 and beside > 0 and look > 0 and six == 6 * kept + 2 * beside + look


def test_scratch_below_nothing_is_refused(tmp_path):
    asked = sweep.Options(study="s", scratch=-1.0, folder=str(tmp_path), config=config())
    with mistakes.raises("out-of-range: scratch .*-1"):
        sweep.sweep(asked, Console(quiet=True))


def test_each_reader_gets_the_whole_stream():
    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    taken, got = [], {}
    streams = parallel_loops.for_each(numbers(), 3)
    threads = [threading.Thread(target=lambda n=n: got.update({n: list(streams[n])})) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == got[0] == got[1] == got[2] == list(range(1000))


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_thread_ends_all_of_them(monkeypatch, failing):
    """At their next step, and it is that error that is told."""
    asked = config(train=Train(epochs=1, batch_size=2))
    shared = Resources(asked)
    experiment = shared.experiment(asked)
    fit = shared.setup(asked, experiment)
    loops = [parallel_loops.loop.begin(*experiment.for_trials(1), sharding.mesh()) for _ in range(2)]
    failed, advance, steps = threading.Event(), parallel_loops.loop.advance, []

    def some(fit, loop, stream, watch, check):
        if loop is loops[failing]:
            raise UserError("no room", "device-memory")

        def checked():
            steps.append(1)
            failed.wait(60)
            check()

        return advance(fit, loop, stream, watch, checked)

    def waited(*given, **how):
        done = wait(*given, **how)
        failed.set()
        return done

    monkeypatch.setattr(parallel_loops.loop, "advance", some)
    monkeypatch.setattr(parallel_loops, "wait", waited)
    with mistakes.raises("device-memory: no room"):
        parallel_loops.advance(fit, loops, fit.batches(1), lambda number, sums: None)
    assert len(steps) <= 2  # of five


@pytest.mark.parametrize(
    ("trials", "cores", "parts"),
    [(10, 1, 1), (10, 2, 2), (10, 4, 5), (10, 16, 10), (7, 2, 7), (9, 2, 3), (1, 8, 1), (2, 2, 2), (3, 2, 3)],
)
def test_parts_are_alike_and_enough_for_the_cores(monkeypatch, trials, cores, parts):
    monkeypatch.setattr(sharding, "num_cores", lambda: cores)
    assert sharding.num_programs(trials, sharding.mesh()) == parts
