"""Trains trials in parallel, each in a slot of a compiled program; the next trial takes the slot when one ends."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import AnyLearner
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.runs.run_folder import metrics_line, run_card, save_trial
from tunevlseg_jax.runtime import exchange, schema, sharding
from tunevlseg_jax.training import loop, optim, parallel_loops, step
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import TrainSetup
from tunevlseg_jax.training.metrics import Sums
from tunevlseg_jax.training.optim import StoppingState
from tunevlseg_jax.training.step import TrainState


@dataclass
class Run:
    """A trial in a slot.

    Attributes:
      number: of the trial.
      config: of the trial; `train` with it gives the same run.
      shapes: of the parameters, without padding.
      curve: a line of metrics for each epoch so far.
    """

    number: int
    config: Config
    shapes: Mapping[str, tuple[int, ...]]
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class SlotInfo:
    """The program that trained a trial, in the trial's card.

    Attributes:
      trials: number of slots.
      slot: the trial's slot, from 0.
      devices: numbers of devices along the mesh's trial axis and its data axis.
      learner: the program's learner, with room for every trial of the study.
    """

    trials: int
    slot: int
    devices: tuple[int, int]
    learner: AnyLearner


class Slots:
    """`size` trials, which share the frozen weights, the batches and their order.

    They are split evenly into parts of `size / parts` trials, which run the same program in a thread each. The free
    slots of a part train too, with unused results, so that nothing compiles when a trial comes or goes; a part without
    a trial rests.
    """

    def __init__(self, experiment: Experiment, setup: TrainSetup, size: int, parts: int = 1):
        self.experiment, self.setup, self.size = experiment, setup, size
        self.runs: list[Run | None] = [None] * size
        self.order = 0
        self.share = size // parts
        self.loops = [
            loop.begin(*experiment.for_trials(self.share), setup.mesh, averaged=setup.averaged) for _ in range(parts)
        ]

    @property
    def free(self) -> int:
        """The number of slots without a trial."""
        return self.runs.count(None)

    def put(self, number: int, config: Config, slot: int | None = None) -> None:
        """Puts a trial into a free slot, by default the first; the trial joins at the next epoch.

        All trials share each batch, so the order of the records continues: the trial's configuration gets the number of
        epochs that it skips. If all slots are free, the order begins where the given configuration says.
        """
        if self.free == self.size:
            self.order = config.train.order_skip
        order_seed = self.setup.config.train.seed_of_order
        train = dataclasses.replace(config.train, order_seed=order_seed, order_skip=self.order)
        config = dataclasses.replace(config, train=train)
        slot = self.runs.index(None) if slot is None else slot
        params = self.experiment.init_params(config)
        self.runs[slot] = Run(number, config, {path: array.shape for path, array in params.items()})
        part, place = divmod(slot, self.share)
        before = self.loops[part]
        params = jax.tree.map(lambda array: array[None], padded(params, self.experiment.trainable))
        hyper = dataclasses.replace(self.experiment, config=config).hyper()
        fresh = sharding.replicate(step.init(params, hyper, averaged=self.setup.averaged), self.setup.mesh)
        state, best = _put(before.state, before.best, fresh, place)
        progress = StoppingState(
            *(_with(old, place, new[0]) for old, new in zip(before.progress, optim.start(1), strict=True))
        )
        state, best = sharding.shard_trials((state, best), self.setup.mesh)
        epoch = _with(before.epoch, place, 0)
        self.loops[part] = before._replace(state=state, best=best, progress=progress, epoch=epoch)

    def train_epoch(self, watch: Callable[[int, Sums], None]) -> None:
        """Trains one epoch of every trial; `watch` is called for one part, as in `loop.train_epoch`."""
        self.order += 1
        busy = sorted({slot // self.share for slot, run in enumerate(self.runs) if run is not None})
        trained = parallel_loops.train_epochs(
            self.setup, [self.loops[part] for part in busy], self.setup.batches(self.order), watch
        )
        for part, (after, epoch) in zip(busy, trained, strict=True):
            self.loops[part] = after
            for place in range(self.share):
                if (run := self.runs[part * self.share + place]) is not None:
                    run.curve.append(metrics_line(epoch, place))

    def has_ended(self, slot: int) -> bool:
        """Whether a slot's trial has stopped early or trained its last epoch."""
        part, place = divmod(slot, self.share)
        trained = self.loops[part]
        return int(trained.epoch[place]) >= self.setup.config.train.epochs or bool(trained.progress.stopped[place])

    def best_epoch(self, slot: int) -> int:
        """The number of the best epoch of a slot's trial; 0 if there is none."""
        part, place = divmod(slot, self.share)
        return int(self.loops[part].progress.best_epoch[place])

    def save(self, folder: Path, slot: int, data: Mapping[str, Any]) -> None:
        """Writes a slot's trial, at its best epoch, as a run folder; `data` has the fingerprints for the card.

        All processes must call this; process 0 writes.
        """
        run = self.runs[slot]
        assert run is not None, "a slot with a trial"
        config = dataclasses.replace(run.config, workdir=str(folder))
        part, place = divmod(slot, self.share)
        trained = sharding.gather_to_host({path: array[place] for path, array in self.loops[part].best.items()})
        params = {  # without padding
            path: array[tuple(slice(side) for side in run.shapes[path])] for path, array in trained.items()
        }
        devices = self.setup.mesh.shape[sharding.TRIAL], self.setup.mesh.shape[sharding.DATA]
        info = SlotInfo(self.share, place, devices, self.experiment.config.learner)
        best = self.best_epoch(slot)
        scores = {"tuned": {"val": run.curve[best - 1]["val"]}} if best else {}
        card = run_card(self.experiment, config, data, epochs=len(run.curve), best_epoch=best, scores=scores)
        card |= {"program": schema.to_json(info)}
        exchange.from_primary(partial(save_trial, folder, config, run.curve, params, card))

    def clear(self, slot: int) -> None:
        """Frees a slot."""
        self.runs[slot] = None

    def close(self) -> None:
        """Releases the devices' memory; the slots can't train any more."""
        self.loops.clear()


def padded(params: Mapping[str, Array | np.ndarray], like: FlatParams) -> FlatParams:
    """The parameters with zeros behind them along every axis, in the shapes of `like`; see `Learner.padded_fields`."""
    return {
        path: jnp.zeros_like(array).at[tuple(slice(side) for side in params[path].shape)].set(params[path])
        for path, array in like.items()
    }


@partial(jax.jit, donate_argnums=(0, 1))
def _put(state: TrainState, best: FlatParams, fresh: TrainState, slot: Array) -> tuple[TrainState, FlatParams]:
    """Writes the state of a fresh trial into a slot."""

    def put(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis=0)

    return jax.tree.map(put, state, fresh), jax.tree.map(put, best, fresh.trainable)


def _with(values: np.ndarray, slot: int, value: Any) -> np.ndarray:
    """A copy of the values with another in one slot."""
    values = values.copy()
    values[slot] = value
    return values
