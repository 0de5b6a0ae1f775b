"""Tests of loops that train in parallel on one stream of batches."""

import threading
from collections.abc import Iterator
from concurrent.futures import wait

import mistakes
import pytest
import small

from tunevlseg_jax.config import Train
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training import parallel_loops

quick_compilation = small.quick_compilation


def test_each_reader_gets_the_whole_stream():
    def numbers() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    taken, received = [], {}
    streams = parallel_loops.for_each(numbers(), 3)
    threads = [threading.Thread(target=lambda n=n: received.update({n: list(streams[n])})) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == received[0] == received[1] == received[2] == list(range(1000))


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_thread_ends_all_of_them(monkeypatch, failing):
    """They end at their next step, and the error is raised."""
    config = small.config(learner=CoOp(depth=1, num_context=2, init_phrase=None), train=Train(epochs=1, batch_size=2))
    experiment = small.build(config)
    cache = experiment.feature_cache(sharding.mesh())
    setup = experiment.train_setup(experiment.splits(cache), cache, parallel=True)
    loops = [parallel_loops.loop.begin(*experiment.for_trials(1), sharding.mesh()) for _ in range(2)]
    failed, train_epoch, steps = threading.Event(), parallel_loops.loop.train_epoch, []

    def train_or_fail(setup, loop, stream, watch, check):
        if loop is loops[failing]:
            raise UserError("no room", "device-memory")

        def counted_check():
            steps.append(1)
            failed.wait(60)
            check()

        return train_epoch(setup, loop, stream, watch, counted_check)

    def wait_and_report(*arguments, **options):
        done = wait(*arguments, **options)
        failed.set()
        return done

    monkeypatch.setattr(parallel_loops.loop, "train_epoch", train_or_fail)
    monkeypatch.setattr(parallel_loops, "wait", wait_and_report)
    with mistakes.raises("device-memory: no room"):
        parallel_loops.train_epochs(setup, loops, setup.batches(1), lambda number, sums: None)
    assert len(steps) <= 2  # of five
