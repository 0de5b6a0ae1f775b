"""How fast batches reach the devices, and how long a step waits for them."""

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from tunevlseg_jax.data import scenes
from tunevlseg_jax.data.feeding.batch import Source, gather
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.records import Records, resized
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training.experiment import Experiment

STALL_STEPS = 2
"""Steps of the epoch in which the wait for batches is measured."""


def images_per_second(feed: Feed, batch_size: int, epochs: int, *, augment: bool) -> float:
    """Images a second of training batches, gathered, augmented and on the devices; compilation is left out."""

    def train(epoch: int) -> None:
        for source in feed.training(batch_size, 0, epoch, augment=augment):
            jax.block_until_ready(_batch_of(source))

    train(1)
    started = time.perf_counter()
    for epoch in range(2, epochs + 2):
        train(epoch)
    return epochs * len(feed.records) / (time.perf_counter() - started)


_batch_of = jax.jit(gather)


def stall(step: Callable[[Source], Any], experiment: Experiment, mesh: Mesh, batch_size: int, seconds: float) -> float:
    """Seconds that a training step waits for its batch, which is gathered from images in memory and sent.

    Args:
      step: trains on a batch.
      experiment: of the step.
      mesh: the devices.
      batch_size: records in a batch.
      seconds: of the step on a batch that is on the devices already.
    """
    config = experiment.config
    feed = Feed(_records(experiment, batch_size), mesh, "streaming", config.data.workers)

    def epoch(number: int) -> float:
        started, result = time.perf_counter(), None
        for source in feed.training(batch_size, 0, number, augment=config.train.augments_each_step):
            result = step(source)
        jax.block_until_ready(result)
        return time.perf_counter() - started

    epoch(1)  # warms up
    return max(0.0, epoch(2) / STALL_STEPS - seconds)


def loading(experiment: Experiment, mesh: Mesh, batch_size: int) -> dict[str, float]:
    """Images a second of an experiment's training batches on the devices: streamed, and resident where they fit."""
    records, config = _records(experiment, batch_size), experiment.config
    feeds = [Feed(records, mesh, "streaming", config.data.workers), Feed(records, mesh, "resident")]
    speeds = {}
    for feed in feeds:
        with contextlib.suppress(UserError):  # the devices' memory is too small
            speed = images_per_second(feed, batch_size, 1, augment=config.train.augments_each_step)
            speeds[str(feed.placement)] = speed
    return speeds


def _records(experiment: Experiment, batch_size: int) -> Records:
    """A few batches of photographs, at the model's size."""
    return resized(scenes.load("photo", "train", STALL_STEPS * batch_size), experiment.image_size)


@contextlib.contextmanager
def mapped(records: Records) -> Iterator[Records]:
    """The records with their pixels in files, as prepared sets have them."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = {}
        for name in ("images", "maps"):
            path = Path(folder) / f"{name}.npy"
            np.save(path, getattr(records, name))
            pixels[name] = np.load(path, mmap_mode="r")
        yield dataclasses.replace(records, **pixels)
