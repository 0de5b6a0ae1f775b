"""The training loop: epochs of steps, a validation after each, and what each trial's curve decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax import devices, metrics, optim, step
from tunevlseg_jax.config import Config
from tunevlseg_jax.data import loader
from tunevlseg_jax.data.batch import Source
from tunevlseg_jax.data.feed import Feed
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.metrics import Scores, Sums
from tunevlseg_jax.models.stages import Words
from tunevlseg_jax.network import Network
from tunevlseg_jax.optim import Progress, Schedule
from tunevlseg_jax.partition import Flat
from tunevlseg_jax.step import Hyper, State


class Loop(NamedTuple):
    """Everything that goes on from one epoch to the next, and into a checkpoint.

    Attributes:
      state: of the steps.
      best: each trial's parameters at its best epoch.
      progress: each trial's standing.
      epoch: (trials,) int32, epochs done.
    """

    state: State
    best: Flat
    progress: Progress
    epoch: np.ndarray


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave; the scores are (trials,) lists by name.

    Attributes:
      number: (trials,) which of the trial's epochs it was, from 1.
      train: loss, dice, iou, sample_iou over the epoch's batches, as they were trained on.
      val: the same over the validation split, after the epoch.
      learning_rate: (trials,) of the epoch, schedule aside.
      seconds: of training, without validation.
      images: trained on.
      improved: (trials,) whether this is the best epoch so far.
    """

    number: list[int]
    train: dict[str, list[float]]
    val: dict[str, list[float]]
    learning_rate: list[float]
    seconds: float
    images: int
    improved: list[bool]


@dataclass(frozen=True)
class Split:
    """Records at the model's size on their way to the devices.

    Attributes:
      feed: the records as they are.
      table: the tokens of their phrases, or what the model reads in them where that never changes.
      views: the records in fixed augmented views; each epoch of training takes one of them in turn.
    """

    feed: Feed
    table: Array | Words
    views: tuple[Feed, ...] = ()

    @property
    def records(self) -> Records:
        """The records."""
        return self.feed.records


@dataclass(frozen=True)
class Fit:
    """What stays the same over a run.

    Attributes:
      config: of the run.
      network: the program.
      frozen: parameters that don't train.
      train: training split.
      val: validation split.
      mesh: the devices.
    """

    config: Config
    network: Network
    frozen: Flat
    train: Split
    val: Split
    mesh: Mesh

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return loader.num_batches(self.train.records, self.config.train.batch_size)

    @property
    def schedule(self) -> Schedule:
        """Of the learning rate."""
        total = self.steps_per_epoch * self.config.train.epochs
        return Schedule(self.config.optim.warmup_steps, total if self.config.optim.cosine else 0)

    def batches(self, order: int) -> Iterator[Source]:
        """The training records in one of their orders, from 1, and augmented as it goes with that."""
        settings, feed, views = self.config.train, self.train.feed, self.train.views
        if views:
            feed = views[(order - 1) % len(views)]
        fresh = settings.augment and not views
        return feed.training(settings.batch_size, settings.seed_of_order, order, augment=fresh)


def begin(trainable: Flat, hyper: Hyper, mesh: Mesh) -> Loop:
    """Before the first epoch; `trainable` has a leading trial axis."""
    # Copies: the step gives its state's buffers away, and the caller's arrays must live on.
    trials = len(hyper.seed)
    state = devices.by_trial(jax.tree.map(jnp.copy, step.init(trainable, hyper)), mesh)
    return Loop(state, jax.tree.map(jnp.copy, state.trainable), optim.start(trials), np.zeros(trials, np.int32))


def run(fit: Fit, loop: Loop, watch: Callable[[int, int, Sums], None]) -> Iterator[tuple[Loop, Epoch]]:
    """Trains one trial until the last epoch, or until it has stopped early.

    Args:
      fit: what stays the same.
      loop: where to go on from; its state's buffers are given away.
      watch: called with epoch, step within the epoch (both from 1) and the step's sums, one step late, so that the
        device never waits for it; it may raise to end the run.

    Yields:
      The loop after each epoch, whole, and what the epoch gave.
    """
    for epoch in range(int(loop.epoch[0]) + 1, fit.config.train.epochs + 1):
        if loop.progress.stopped.all():
            return
        loop, given = advance(fit, loop, fit.config.train.order_skip + epoch, partial(watch, epoch))
        yield loop, given


def advance(fit: Fit, loop: Loop, order: int, watch: Callable[[int, Sums], None]) -> tuple[Loop, Epoch]:
    """One epoch of every trial and its validation.

    Args:
      fit: what stays the same.
      loop: before the epoch; its state's buffers are given away.
      order: which of the orders of the training records the trials see, from 1.
      watch: called with the step within the epoch and its sums, as in `run`.
    """
    settings = fit.config.train
    started = time.perf_counter()
    state, sums = _train_epoch(fit, loop.state, order, watch)
    train = metrics.means(sums)
    seconds = time.perf_counter() - started
    val = metrics.means(
        evaluate(fit.network, state.trainable, fit.frozen, fit.val, state.hyper, settings.batch_size)[0]
    )
    number = loop.epoch + 1
    progress, improved = optim.advance(
        loop.progress, number, np.asarray(val["loss"]), np.asarray(val["dice"]), fit.config.optim, settings
    )
    rates = np.asarray(state.hyper.learning_rate) * loop.progress.rate_scale
    state = state._replace(rate_scale=devices.by_trial(jnp.asarray(progress.rate_scale), fit.mesh))
    best = _where(devices.by_trial(jnp.asarray(improved), fit.mesh), state.trainable, loop.best)
    given = Epoch(number.tolist(), train, val, rates.tolist(), seconds, len(fit.train.records), improved.tolist())
    return Loop(state, best, progress, number), given


def evaluate(
    network: Network, trainable: Flat, frozen: Flat, split: Split, hyper: Hyper, batch_size: int
) -> tuple[Sums, Scores]:
    """Scores every trial on a whole split.

    Returns:
      Sums, (trials,), and each record's scores in the split's order, (trials, records) numpy.
    """
    totals: Sums | None = None
    parts = []
    for number, batch in enumerate(split.feed.evaluation(batch_size)):
        sums, scores = step.eval_step(trainable, frozen, batch, split.table, hyper, network=network)
        totals = sums if totals is None else metrics.merge(totals, sums)
        parts.append((scores, min(batch_size, len(split.records) - number * batch_size)))
    assert totals is not None, "a split holds at least one record"
    rows = [jax.tree.map(lambda values, real=real: np.asarray(values)[:, :real], scores) for scores, real in parts]
    return totals, jax.tree.map(lambda *values: np.concatenate(values, axis=1), *rows)


def _train_epoch(fit: Fit, state: State, order: int, watch: Callable[[int, Sums], None]) -> tuple[State, Sums]:
    """Every batch of the epoch once; step n is looked at after step n + 1 has been sent off."""
    totals: Sums | None = None
    previous: Sums | None = None
    number = 0
    for number, source in enumerate(fit.batches(order), start=1):
        state, sums = step.train_step(
            state,
            fit.frozen,
            source,
            fit.train.table,
            network=fit.network,
            schedule=fit.schedule,
        )
        if previous is not None:
            watch(number - 1, previous)
        previous = sums
        totals = sums if totals is None else metrics.merge(totals, sums)
    assert totals is not None and previous is not None, "a split holds at least one record"
    watch(number, previous)
    return state, totals


@jax.jit
def _where(chosen: Array, new: Flat, old: Flat) -> Flat:
    """For each trial the new parameters where `chosen` (trials,), and the old ones elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, old)
