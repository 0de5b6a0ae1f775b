"""How fast batches reach the devices, without a model: `python -m tunevlseg_jax.benchmarks.loading`."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from tunevlseg_jax import cli
from tunevlseg_jax.data import scenes
from tunevlseg_jax.data.feeding.batch import Source, gather
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.records import Records, resized
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training.experiment import Experiment

STALL_STEPS = 2
"""Steps of the epoch in which the wait for batches is measured."""


@dataclass(frozen=True)
class Options:
    """Options of the loading benchmark.

    Attributes:
      images: number of images.
      size: height and width of an image in pixels.
      batch_size: images per batch.
      epochs: number of measured epochs, after one to warm up.
      workers: numbers of threads that gather batches; each is measured separately.
    """

    images: int = 512
    size: int = 352
    batch_size: int = 32
    epochs: int = 3
    workers: tuple[int, ...] = (0, 1, 2)


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
    records = resized(scenes.load("photo", "train", STALL_STEPS * batch_size), experiment.image_size)
    feed = Feed(records, mesh, "streaming", config.data.workers)

    def epoch(number: int) -> float:
        started, result = time.perf_counter(), None
        for source in feed.training(batch_size, 0, number, augment=config.train.augments_each_step):
            result = step(source)
        jax.block_until_ready(result)
        return time.perf_counter() - started

    epoch(1)  # warms up
    return max(0.0, epoch(2) / STALL_STEPS - seconds)


@contextmanager
def mapped(records: Records) -> Iterator[Records]:
    """The records with their pixels in files, as prepared sets have them."""
    with tempfile.TemporaryDirectory() as folder:
        pixels = {}
        for name in ("images", "maps"):
            path = Path(folder) / f"{name}.npy"
            np.save(path, getattr(records, name))
            pixels[name] = np.load(path, mmap_mode="r")
        yield dataclasses.replace(records, **pixels)


def main() -> None:
    """Prints a table of images a second: streamed with each number of workers, and resident."""
    options = cli.options(Options, "python -m tunevlseg_jax.benchmarks.loading", __doc__ or "")
    mesh = sharding.mesh()
    table = Table(title=f"images/s at {options.size} pixels, batches of {options.batch_size}, {mesh.devices.flat[0]}")
    for column in ("", "as they are", "augmented"):
        table.add_column(column, justify="right")
    records = resized(scenes.load("photo", "train", options.images), (options.size, options.size))
    with mapped(records) as records:
        feeds = {
            f"streaming, {number} worker{'s' * (number != 1)}": Feed(records, mesh, "streaming", number)
            for number in options.workers
        }
        for name, feed in (feeds | {"resident": Feed(records, mesh, "resident")}).items():
            speeds = (
                images_per_second(feed, options.batch_size, options.epochs, augment=augment)
                for augment in (False, True)
            )
            table.add_row(name, *(f"{speed:.0f}" for speed in speeds))
    Console().print(table)


if __name__ == "__main__":
    cli.run(main)
