"""What a model sees in augmented images: the same for all trials, looked at once and kept as far as there is room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import wait

import jax
import numpy as np
import pytest
import small
from numpy.testing import assert_array_equal
from rich.console import Console

from tunevlseg_jax import abreast, devices, step, sweep
from tunevlseg_jax.config import Config, Data, Scenes, Train
from tunevlseg_jax.data import sights
from tunevlseg_jax.data.batch import Source, gather
from tunevlseg_jax.data.sights import Sights
from tunevlseg_jax.errors import UserError
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.shared import Shared

quick_compilation = small.quick_compilation

PLENTY = 2.0**30
SEED = 3


def config(**changes) -> Config:
    return small.config(learner=CoOp(depth=1, num_context=2, words=None), **changes)


class Looks:
    """What the model sees, and how often it was asked."""

    def __init__(self):
        self.made, self.number = small.build(config()), 0

    def __call__(self, images):
        self.number += 1
        return self.made.see(images)


def feed(**data):
    asked = Data(**({"name": "scenes/photo", "scenes": Scenes(train=10, val=5, test=6)} | data))
    return small.build(config()).split("train", asked).feed


def check_same(ours: list[Source], theirs: list[Source]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for array, expected in zip(jax.tree.leaves(gather(one)), jax.tree.leaves(gather(other)), strict=True):
            assert_array_equal(array, expected)
            assert array.sharding == expected.sharding


@pytest.mark.parametrize("data", [{}, {"placement": "resident"}, {"name": "scenes/endoscopy"}], ids=str)
def test_what_is_kept_is_what_is_seen_in_augmented_images(data):
    """To the bit, the masks with it, and without another look."""
    look, split = Looks(), feed(**data)
    seen = Sights(split, look, PLENTY)
    first = {epoch: list(seen.training(4, SEED, epoch)) for epoch in (1, 2)}
    assert look.number == 6
    for epoch, sources in first.items():
        direct = [jax.jit(gather)(source) for source in split.training(4, SEED, epoch, augment=True)]
        for source, batch in zip(sources, direct, strict=True):
            ours = gather(source)
            assert_array_equal(ours.masks, batch.masks)
            for rows, expected in zip(
                jax.tree.leaves(ours.images), jax.tree.leaves(look.made.see(batch.images)), strict=True
            ):
                assert_array_equal(rows, expected)
        check_same(list(seen.training(4, SEED, epoch)), sources)
    assert look.number == 6
    assert (np.asarray(first[1][0].images.pooled) != np.asarray(first[2][0].images.pooled)).any()


def test_another_batch_size_or_order_is_looked_at_by_itself():
    look = Looks()
    seen = Sights(feed(), look, PLENTY)
    for which in ((4, SEED, 1), (5, SEED, 1), (4, SEED + 1, 1)):
        before = look.number
        sources = list(seen.training(*which))
        assert look.number == before + len(sources)
        check_same(list(seen.training(*which)), sources)


def test_only_what_there_is_room_for_is_kept():
    look = Looks()
    seen = Sights(feed(), look, PLENTY)
    list(seen.training(4, SEED, 1))
    one = PLENTY - seen.room
    for room, kept in ((0.0, 0), (one - 1, 0), (one, 1), (2.5 * one, 2)):
        seen = Sights(feed(), look, room)
        for epoch in (1, 2, 3):
            list(seen.training(4, SEED, epoch))
        assert len(seen.kept) == kept and seen.room == room - kept * one


def test_half_of_a_full_disk_is_left_free(monkeypatch):
    monkeypatch.setattr(sights, "free", lambda: 1000)
    assert Sights(feed(), Looks(), PLENTY).room == 500


def test_an_epoch_that_is_given_up_is_looked_at_again():
    look = Looks()
    seen = Sights(feed(), look, PLENTY)
    next(seen.training(4, SEED, 1))
    assert not seen.kept and seen.room == PLENTY
    assert len(list(seen.training(4, SEED, 1))) == 3 and look.number == 4


def test_trials_that_come_later_need_no_look(tmp_path, monkeypatch):
    """They are the same as with looks of their own."""
    look, see_step = [], step.see_step
    monkeypatch.setattr(step, "see_step", lambda *a, **k: look.append(1) or see_step(*a, **k))
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


def test_on_two_devices_what_is_kept_goes_into_the_same_program(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(small.ROOT / "tests")!r})
import small, test_sights
from rich.console import Console
from tunevlseg_jax import step, sweep
from tunevlseg_jax.config import Train
config = test_sights.config(train=Train(epochs=2, batch_size=4))
options = sweep.Options(study="s", trials=4, parallel=2, folder={str(tmp_path)!r}, config=config)
sweep.sweep(options, Console(quiet=True))
print("programs:", step.train_step._cache_size())
"""
    status, out, err = small.finish(small.start("-c", script, XLA_FLAGS="--xla_force_host_platform_device_count=2"))
    assert (status, err) == (0, ""), err
    assert "programs: 1" in out


def test_scratch_below_nothing_is_refused(tmp_path):
    asked = sweep.Options(study="s", scratch=-1.0, folder=str(tmp_path), config=config())
    with pytest.raises(UserError, match="scratch can't be -1"):
        sweep.sweep(asked, Console(quiet=True))


def test_each_reader_gets_the_whole_stream():
    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    taken, got = [], {}
    streams = abreast.for_each(numbers(), 3)
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
    shared = Shared(asked)
    made = shared.experiment(asked)
    fit = shared.fit(asked, made)
    loops = [abreast.loop.begin(*made.repeated(1), devices.mesh()) for _ in range(2)]
    failed, advance, steps = threading.Event(), abreast.loop.advance, []

    def some(fit, loop, stream, watch, check):
        if loop is loops[failing]:
            raise UserError("no room")

        def checked():
            steps.append(1)
            failed.wait(60)
            check()

        return advance(fit, loop, stream, watch, checked)

    def waited(*given, **how):
        done = wait(*given, **how)
        failed.set()
        return done

    monkeypatch.setattr(abreast.loop, "advance", some)
    monkeypatch.setattr(abreast, "wait", waited)
    with pytest.raises(UserError, match="no room"):
        abreast.advance(fit, loops, fit.batches(1), lambda number, sums: None)
    assert len(steps) <= 2  # of five


@pytest.mark.parametrize(
    ("trials", "cores", "parts"),
    [(10, 1, 1), (10, 2, 2), (10, 4, 5), (10, 16, 10), (7, 2, 7), (9, 2, 3), (1, 8, 1), (2, 2, 2), (3, 2, 3)],
)
def test_parts_are_alike_and_enough_for_the_cores(monkeypatch, trials, cores, parts):
    monkeypatch.setattr(devices, "cores", lambda: cores)
    assert devices.parts(trials, devices.mesh()) == parts
