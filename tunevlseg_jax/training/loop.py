"""The training loop: epochs of steps, each followed by validation, early stopping and the plateau."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import chex
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
from tunevlseg_jax.network import FrozenText, Network
from tunevlseg_jax.runtime import cache as disk_cache
from tunevlseg_jax.runtime import memory, sharding
from tunevlseg_jax.runtime.signals import Interrupted, never
from tunevlseg_jax.training import metrics, optim, step
from tunevlseg_jax.training.metrics import Sums
from tunevlseg_jax.training.optim import Schedule, StoppingState
from tunevlseg_jax.training.split import Split
from tunevlseg_jax.training.step import Hyperparameters, TrainState

NOTED_BYTES = 2**30
"""Features of images that take more are announced before they are computed."""
AnyBatch = TypeVar("AnyBatch", Batch, Source)

DISPATCH = threading.Lock()
"""Held while a step is dispatched, so that only one of several training threads compiles it."""


class LoopState(NamedTuple):
    """The state of training between steps, as checkpoints store it.

    Attributes:
      state: of the steps.
      best: each trial's parameters at its best epoch, or their average there.
      progress: of early stopping and the plateau.
      epoch: (trials,) int32, finished epochs.
      steps: () int32, finished steps of the current epoch.
      sums: (trials,) over these steps.
    """

    state: TrainState
    best: FlatParams
    progress: StoppingState
    epoch: np.ndarray
    steps: np.ndarray
    sums: Sums


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch; scores are (trials,) lists by name.

    Attributes:
      number: (trials,) the trial's epoch, from 1.
      train: loss, dice, iou and sample_iou of the training batches, each before its update.
      val: the same of the validation split, after the epoch.
      learning_rate: (trials,) of the epoch, without the schedule.
      seconds: of training, without validation; of a resumed epoch, since it was resumed.
      images: number of images trained on in this time.
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
    """The constants of a run.

    Attributes:
      config: of the run.
      network: the model and the learner.
      frozen: parameters that don't train.
      train: training split.
      val: validation split.
      mesh: the devices.
      views: the training split in augmented views, of which each epoch takes one in turn; () for the split itself.
      cache: of features of augmented batches, which are encoded once for all trials; None encodes within each step.
      frozen_text: of the training phrases, for the learner's regulariser; None without one.
    """

    config: Config
    network: Network
    frozen: FlatParams
    train: Split
    val: Split
    mesh: Mesh
    views: tuple[Feed, ...] = ()
    cache: FeatureCache | None = None
    frozen_text: FrozenText | None = None

    @property
    def averaged(self) -> bool:
        """Whether an average of the parameters is validated and kept in their place."""
        return self.config.train.ema is not None or self.network.learner.averages_epochs

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return batching.num_batches(self.train.records, self.config.train.batch_size)

    @property
    def schedule(self) -> Schedule:
        """The learning rate's schedule."""
        total = self.steps_per_epoch * self.config.train.epochs
        return Schedule(self.config.optim.warmup_steps, total if self.config.optim.cosine else 0)

    @property
    def negatives(self) -> bool:
        """Whether training asks for absent things, which changes the loss of empty masks."""
        return self.config.data.negatives > 0

    def features_note(self, others: Iterable[Split] = ()) -> str | None:
        """A line on the features that will be kept of the images, and of other splits; None if they are small."""
        feeds = (*(self.views or (self.train.feed,)), self.val.feed, *(split.feed for split in others))
        stored = sum(feed.feature_bytes for feed in feeds)
        if stored <= NOTED_BYTES:
            return None
        return f"features of images, computed once, take {stored / 2**30:.1f} GiB in {disk_cache.folder()}"

    def batches(self, order: int, skip: int = 0) -> Iterator[Source]:
        """The training batches of one epoch, except the first `skip`.

        Order and augmentation depend only on `order`, from 1, and on the seed.
        """
        settings = self.config.train
        epoch = settings.batch_size, settings.seed_of_order, order
        if self.cache is not None:
            batches = itertools.islice(self.cache.augmented_epoch(self.config.data, *epoch), skip, None)
        else:
            feed = self.views[(order - 1) % len(self.views)] if self.views else self.train.feed
            batches = feed.training(*epoch, augment=settings.augments_each_step, skip=skip)
        return (_for_trials(self.network, source, self.mesh) for source in batches)


def begin(trainable: FlatParams, hyper: Hyperparameters, mesh: Mesh, *, averaged: bool = False) -> LoopState:
    """The state before the first epoch; `trainable` has a leading trial axis. `averaged` as in `TrainSetup`."""
    trials = len(hyper.seed)
    chex.assert_tree_shape_prefix((trainable, hyper), (trials,))
    memory.release_freed()
    # Copies, because the step donates the buffers of its state.
    state = sharding.shard_trials(jax.tree.map(jnp.copy, step.init(trainable, hyper, averaged=averaged)), mesh)
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
    """Trains one trial until its last epoch, early stopping or an interruption.

    Args:
      setup: the constants of the run.
      loop: the state to continue from; its buffers are donated.
      watch: called with epoch, step within the epoch (both from 1) and the step's sums, one step late, so that the
        device never waits for it; it may raise to end the run.
      check: called after each step and each validation batch; it may raise Interrupted.

    Yields:
      The state after each epoch and the epoch's results; or the state within an epoch and the interruption.
    """
    while loop.epoch[0] < setup.config.train.epochs and not loop.progress.stopped.all():
        epoch = int(loop.epoch[0]) + 1
        batches = setup.batches(setup.config.train.order_skip + epoch, skip=int(loop.steps))
        loop, result = train_epoch(setup, loop, batches, partial(watch, epoch), check)
        yield loop, result


def train_epoch(
    setup: TrainSetup,
    loop: LoopState,
    batches: Iterator[Source],
    watch: Callable[[int, Sums], None],
    check: Callable[[], None] = never,
) -> tuple[LoopState, Epoch | Interrupted]:
    """One epoch of every trial, or the rest of one, with its validation.

    Args:
      setup: the constants of the run.
      loop: the state before or within the epoch; its buffers are donated.
      batches: the remaining batches of the epoch, see `TrainSetup.batches`.
      watch: called with the step within the epoch and its sums, as in `run`.
      check: as in `run`.

    Returns:
      As `run` yields.
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
        state = _averaged(setup, loop)
        val = metrics.means(
            evaluate(setup.network, state.kept, setup.frozen, setup.val, state.hyper, settings.batch_size, check)
        )
    except Interrupted as stop:
        return loop, stop
    number = loop.epoch + 1
    progress, improved = optim.after_epoch(
        loop.progress, number, np.asarray(val["loss"]), np.asarray(val["dice"]), setup.config.optim, settings
    )
    rates = sharding.gather_to_host(state.hyper.learning_rate) * loop.progress.rate_scale
    state = state._replace(rate_scale=sharding.shard_trials(jnp.asarray(progress.rate_scale), setup.mesh))
    best = _where(sharding.shard_trials(jnp.asarray(improved), setup.mesh), state.kept, loop.best)
    epoch = Epoch(number.tolist(), train, val, rates.tolist(), seconds, images, improved.tolist())
    return LoopState(state, best, progress, number, np.zeros_like(loop.steps), _no_sums(len(number), setup.mesh)), epoch


def _averaged(setup: TrainSetup, loop: LoopState) -> TrainState:
    """The state after the steps of an epoch, with the learner's mean over epochs, if it has one."""
    learner, state = setup.network.learner, loop.state
    if not learner.averages_epochs:
        return state
    share = learner.epoch_share(loop.epoch + 1, sharding.gather_to_host(state.hyper.values))
    share = sharding.shard_trials(jnp.asarray(share, jnp.float32), setup.mesh)
    return state._replace(average=_toward(state.average, state.trainable, share))


def evaluate(
    network: Network,
    trainable: FlatParams,
    frozen: FlatParams,
    split: Split,
    hyper: Hyperparameters,
    batch_size: int,
    check: Callable[[], None] = never,
) -> Sums:
    """The (trials,) sums of scores over a whole split; `check` as in `run`, after each batch."""
    totals = _no_sums(len(hyper.seed), split.feed.mesh)
    for batch in split.feed.evaluation(batch_size):
        batch = _for_trials(network, batch, split.feed.mesh)
        with DISPATCH:
            sums, _ = step.eval_step(trainable, frozen, batch, split.table, hyper, network=network)
        totals = metrics.merge(totals, sums)
        check()
    return totals


def _steps(
    setup: TrainSetup, loop: LoopState, batches: Iterator[Source], watch: Callable[[int, Sums], None]
) -> Iterator[LoopState]:
    """The state after each remaining step of the epoch; step n is watched after step n + 1 has been dispatched."""
    previous: Sums | None = None
    for number, source in enumerate(batches, start=int(loop.steps) + 1):
        with DISPATCH:
            state, sums = step.train_step(
                loop.state,
                setup.frozen,
                source,
                setup.train.table,
                setup.frozen_text,
                setup.config.train.ema,
                network=setup.network,
                schedule=setup.schedule,
                negatives=setup.negatives,
            )
        loop = loop._replace(state=state, steps=np.int32(number), sums=metrics.merge(loop.sums, sums))
        if previous is not None:
            # Waiting keeps reports and transfers at most one step ahead of the device.
            watch(number - 1, jax.block_until_ready(previous))
        previous = sums
        yield loop
    if previous is not None:
        watch(setup.steps_per_epoch, previous)


def _for_trials(network: Network, batch: AnyBatch, mesh: Mesh) -> AnyBatch:
    """The batch, whole in each shard of trials if each trial encodes the images differently."""
    return sharding.along_data(batch, mesh) if "vision" in network.learner.changes else batch


def _no_sums(trials: int, mesh: Mesh) -> Sums:
    return sharding.shard_trials(Sums(*(jnp.zeros(trials) for _ in Sums._fields)), mesh)


_toward = jax.jit(jax.vmap(step.toward))


@jax.jit
def _where(chosen: Array, new: FlatParams, old: FlatParams) -> FlatParams:
    """The new parameters of the trials in `chosen`, (trials,) bool, and the old ones of the others."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, old)
