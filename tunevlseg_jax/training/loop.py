"""The training loop: epochs of steps, a validation after each, and what each trial's curve decides."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax.config import Config
from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.data.feeding.batch import Batch, Source
from tunevlseg_jax.data.feeding.feature_cache import FeatureCache
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.network import Network
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.signals import Interrupted, never
from tunevlseg_jax.training import metrics, optim, step
from tunevlseg_jax.training.metrics import Sums
from tunevlseg_jax.training.optim import Schedule, StoppingState
from tunevlseg_jax.training.split import Split
from tunevlseg_jax.training.step import Hyperparameters, TrainState

AnyBatch = TypeVar("AnyBatch", Batch, Source)

SENDING = threading.Lock()
"""Held while a step is sent off, so that threads which train side by side wait for its compilation, not compile too."""


class LoopState(NamedTuple):
    """Everything that goes on from one step to the next, and into a checkpoint.

    Attributes:
      state: of the steps.
      best: each trial's parameters at its best epoch.
      progress: each trial's standing.
      epoch: (trials,) int32, epochs done.
      steps: () int32, steps done of the epoch that has begun.
      sums: (trials,) over these.
    """

    state: TrainState
    best: FlatParams
    progress: StoppingState
    epoch: np.ndarray
    steps: np.ndarray
    sums: Sums


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave; the scores are (trials,) lists by name.

    Attributes:
      number: (trials,) which of the trial's epochs it was, from 1.
      train: loss, dice, iou, sample_iou over the epoch's batches, as they were trained on.
      val: the same over the validation split, after the epoch.
      learning_rate: (trials,) of the epoch, schedule aside.
      seconds: of training, without validation; since the run went on, if that was within the epoch.
      images: trained on in these.
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
class TrainSetup:
    """What stays the same over a run.

    Attributes:
      config: of the run.
      network: the program.
      frozen: parameters that don't train.
      train: training split.
      val: validation split.
      mesh: the devices.
      views: the training split in augmented views, of which each epoch takes one in turn; () for the split itself.
      cache: of features of augmented batches, which are encoded once for all trials; None encodes within each step.
    """

    config: Config
    network: Network
    frozen: FlatParams
    train: Split
    val: Split
    mesh: Mesh
    views: tuple[Feed, ...] = ()
    cache: FeatureCache | None = None

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return batching.num_batches(self.train.records, self.config.train.batch_size)

    @property
    def schedule(self) -> Schedule:
        """Of the learning rate."""
        total = self.steps_per_epoch * self.config.train.epochs
        return Schedule(self.config.optim.warmup_steps, total if self.config.optim.cosine else 0)

    def batches(self, order: int, skip: int = 0) -> Iterator[Source]:
        """The training records in one of their orders, from 1, and augmented as it goes with that.

        Args:
          order: which of them.
          skip: batches to leave out at its start.
        """
        settings = self.config.train
        epoch = settings.batch_size, settings.seed_of_order, order
        if self.cache is not None:
            batches = itertools.islice(self.cache.augmented_epoch(self.config.data, *epoch), skip, None)
        else:
            feed = self.views[(order - 1) % len(self.views)] if self.views else self.train.feed
            batches = feed.training(*epoch, augment=settings.augments_each_step, skip=skip)
        return (_for_trials(self.network, source, self.mesh) for source in batches)


def begin(trainable: FlatParams, hyper: Hyperparameters, mesh: Mesh) -> LoopState:
    """Before the first epoch; `trainable` has a leading trial axis."""
    # Copies: the step gives its state's buffers away, and the caller's arrays must live on.
    trials = len(hyper.seed)
    state = sharding.shard_trials(jax.tree.map(jnp.copy, step.init(trainable, hyper)), mesh)
    return LoopState(
        state=state,
        best=jax.tree.map(jnp.copy, state.trainable),
        progress=optim.start(trials),
        epoch=np.zeros(trials, np.int32),
        steps=np.zeros((), np.int32),
        sums=_no_sums(trials, mesh),
    )


def run(
    setup: TrainSetup, loop: LoopState, watch: Callable[[int, int, Sums], None], check: Callable[[], None]
) -> Iterator[tuple[LoopState, Epoch | Interrupted]]:
    """Trains one trial until the last epoch, until it has stopped early or until it is interrupted.

    Args:
      setup: what stays the same.
      loop: where to go on from; its state's buffers are given away.
      watch: called with epoch, step within the epoch (both from 1) and the step's sums, one step late, so that the
        device never waits for it; it may raise to end the run.
      check: called after each step and each batch of the validation; it may raise Interrupted.

    Yields:
      The loop after each epoch, whole, and what the epoch gave; or the loop within an epoch, and what interrupted it.
    """
    while loop.epoch[0] < setup.config.train.epochs and not loop.progress.stopped.all():
        epoch = int(loop.epoch[0]) + 1
        batches = setup.batches(setup.config.train.order_skip + epoch, skip=int(loop.steps))
        loop, given = advance(setup, loop, batches, partial(watch, epoch), check)
        yield loop, given


def advance(
    setup: TrainSetup,
    loop: LoopState,
    batches: Iterator[Source],
    watch: Callable[[int, Sums], None],
    check: Callable[[], None] = never,
) -> tuple[LoopState, Epoch | Interrupted]:
    """One epoch of every trial and its validation.

    Args:
      setup: what stays the same.
      loop: before the epoch or within it; its state's buffers are given away.
      batches: those that the epoch still has, see `Fit.batches`.
      watch: called with the step within the epoch and its sums, as in `run`.
      check: as in `run`.

    Returns:
      The loop after the epoch, and what it gave; or the loop within it, and what interrupted it.
    """
    settings = setup.config.train
    images = max(0, len(setup.train.records) - int(loop.steps) * settings.batch_size)
    started = time.perf_counter()
    try:
        for after in _steps(setup, loop, batches, watch):
            loop = after
            check()
        train = metrics.means(loop.sums)
        seconds = time.perf_counter() - started
        state = loop.state
        sums = evaluate(
            setup.network, state.trainable, setup.frozen, setup.val, state.hyper, settings.batch_size, check
        )
    except Interrupted as stop:
        return loop, stop
    val = metrics.means(sums)
    number = loop.epoch + 1
    progress, improved = optim.advance(
        loop.progress, number, np.asarray(val["loss"]), np.asarray(val["dice"]), setup.config.optim, settings
    )
    rates = np.asarray(state.hyper.learning_rate) * loop.progress.rate_scale
    state = state._replace(rate_scale=sharding.shard_trials(jnp.asarray(progress.rate_scale), setup.mesh))
    best = _where(sharding.shard_trials(jnp.asarray(improved), setup.mesh), state.trainable, loop.best)
    given = Epoch(number.tolist(), train, val, rates.tolist(), seconds, images, improved.tolist())
    return LoopState(state, best, progress, number, np.zeros_like(loop.steps), _no_sums(len(number), setup.mesh)), given


def evaluate(
    network: Network,
    trainable: FlatParams,
    frozen: FlatParams,
    split: Split,
    hyper: Hyperparameters,
    batch_size: int,
    check: Callable[[], None] = never,
) -> Sums:
    """Scores every trial on a whole split: (trials,) sums; `check` as in `run`, after each batch."""
    totals = _no_sums(len(hyper.seed), split.feed.mesh)
    for batch in split.feed.evaluation(batch_size):
        batch = _for_trials(network, batch, split.feed.mesh)
        with SENDING:
            sums, _ = step.eval_step(trainable, frozen, batch, split.table, hyper, network=network)
        totals = metrics.merge(totals, sums)
        check()
    return totals


def _steps(
    setup: TrainSetup, loop: LoopState, batches: Iterator[Source], watch: Callable[[int, Sums], None]
) -> Iterator[LoopState]:
    """The epoch's remaining batches, one after the other; step n is looked at after step n + 1 has been sent off."""
    previous: Sums | None = None
    for number, source in enumerate(batches, start=int(loop.steps) + 1):
        with SENDING:
            state, sums = step.train_step(
                loop.state,
                setup.frozen,
                source,
                setup.train.table,
                network=setup.network,
                schedule=setup.schedule,
            )
        loop = loop._replace(state=state, steps=np.int32(number), sums=metrics.merge(loop.sums, sums))
        if previous is not None:
            # Or steps would be told of, and batches sent, long before the device comes to them.
            watch(number - 1, jax.block_until_ready(previous))
        previous = sums
        yield loop
    if previous is not None:
        watch(setup.steps_per_epoch, previous)


def _for_trials(network: Network, batch: AnyBatch, mesh: Mesh) -> AnyBatch:
    """A batch where the trials want it: those that see each in their own way don't look at it together."""
    return sharding.along_data(batch, mesh) if "vision" in network.learner.changes else batch


def _no_sums(trials: int, mesh: Mesh) -> Sums:
    return sharding.shard_trials(Sums(*(jnp.zeros(trials) for _ in Sums._fields)), mesh)


@jax.jit
def _where(chosen: Array, new: FlatParams, old: FlatParams) -> FlatParams:
    """For each trial the new parameters where `chosen` (trials,), and the old ones elsewhere."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, old)
