"""Trials side by side in one compiled program: each in a slot of its own, that the next one takes when it ends."""

from __future__ import annotations

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

from tunevlseg_jax import artefacts, devices, loop, optim, schema, step
from tunevlseg_jax.config import Config
from tunevlseg_jax.experiment import Experiment
from tunevlseg_jax.learners import AnyLearner
from tunevlseg_jax.loop import Epoch, Fit
from tunevlseg_jax.metrics import Sums
from tunevlseg_jax.optim import Progress
from tunevlseg_jax.partition import Flat
from tunevlseg_jax.step import State


@dataclass
class Run:
    """A trial in a slot.

    Attributes:
      number: of the trial.
      config: its own configuration, with which `train` gives the same alone.
      shapes: of its parameters, without padding.
      curve: a line of metrics for each epoch so far.
    """

    number: int
    config: Config
    shapes: Mapping[str, tuple[int, ...]]
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """What a trial's card says of the program that trained it.

    Attributes:
      trials: how many slots it had.
      slot: the trial's, from 0.
      devices: how many there were along the mesh's trial axis and its data axis.
      learner: the program's, with room for every trial of the study.
    """

    trials: int
    slot: int
    devices: tuple[int, int]
    learner: AnyLearner


class Slots:
    """`size` trials of one program, which share the frozen weights, the batches and their order.

    What the free slots hold trains along and is never looked at, so that nothing compiles when a trial comes or goes.
    """

    def __init__(self, made: Experiment, fit: Fit, size: int):
        self.made, self.fit, self.size = made, fit, size
        self.runs: list[Run | None] = [None] * size
        self.order = 0
        self.loop = loop.begin(*made.repeated(size), fit.mesh)

    @property
    def free(self) -> int:
        """The number of slots without a trial."""
        return self.runs.count(None)

    def put(self, number: int, config: Config, slot: int | None = None) -> None:
        """A trial into a free slot, the first unless told which; it joins at the next epoch.

        The order of the records goes on as it was, so that all trials share each batch: the trial's configuration
        says how many epochs of it had gone by. In empty slots the order begins where the given configuration says.
        """
        if self.free == self.size:
            self.order = config.train.order_skip
        order_seed = self.fit.config.train.seed_of_order
        train = dataclasses.replace(config.train, order_seed=order_seed, order_skip=self.order)
        config = dataclasses.replace(config, train=train)
        slot = self.runs.index(None) if slot is None else slot
        fresh = self.made.fresh(config)
        self.runs[slot] = Run(number, config, {path: array.shape for path, array in fresh.items()})
        one = jax.tree.map(lambda array: array[None], padded(fresh, self.made.trainable))
        hyper = dataclasses.replace(self.made, config=config).hyper()
        state, best = _put(self.loop.state, self.loop.best, step.init(one, hyper), slot)
        progress = Progress(
            *(_with(old, slot, new[0]) for old, new in zip(self.loop.progress, optim.start(1), strict=True))
        )
        state, best = devices.by_trial((state, best), self.fit.mesh)
        self.loop = self.loop._replace(state=state, best=best, progress=progress, epoch=_with(self.loop.epoch, slot, 0))

    def advance(self, watch: Callable[[int, Sums], None]) -> Epoch:
        """One epoch of every trial; `watch` as in `loop.advance`."""
        self.order += 1
        self.loop, epoch = loop.advance(self.fit, self.loop, self.order, watch)
        assert isinstance(epoch, Epoch), "nothing interrupts it"
        for slot, run in enumerate(self.runs):
            if run is not None:
                run.curve.append(artefacts.metrics_line(epoch, slot))
        return epoch

    def has_ended(self, slot: int) -> bool:
        """Whether a slot's trial has stopped early, or has had its last epoch."""
        last = int(self.loop.epoch[slot]) >= self.fit.config.train.epochs
        return last or bool(self.loop.progress.stopped[slot])

    def best(self, slot: int) -> dict[str, np.ndarray]:
        """The parameters of a slot's trial at its best epoch, without padding."""
        run = self.runs[slot]
        assert run is not None, "a slot with a trial"
        return {
            path: np.asarray(array[slot])[tuple(slice(side) for side in run.shapes[path])]
            for path, array in self.loop.best.items()
        }

    def save(self, folder: Path, slot: int, data: Mapping[str, Any]) -> None:
        """Writes a slot's trial as a run folder.

        Args:
          folder: of the run.
          slot: of the trial.
          data: name and fingerprints of the data, for the card.
        """
        run = self.runs[slot]
        assert run is not None, "a slot with a trial"
        config = dataclasses.replace(run.config, workdir=str(folder))
        best = int(self.loop.progress.best_epoch[slot])
        axes = self.fit.mesh.shape
        place = Place(self.size, slot, (axes[devices.TRIAL], axes[devices.DATA]), self.made.config.learner)
        card = artefacts.card(config, self.made.pretrained.sha256, self.made.image_size, data) | {
            "best_epoch": best,
            "scores": {"tuned": {"val": run.curve[best - 1]["val"]}} if best else {},
            "program": schema.to_json(place),
        }
        artefacts.save_trial(folder, config, run.curve, self.best(slot), card)

    def take(self, slot: int) -> None:
        """Frees a slot."""
        self.runs[slot] = None

    def close(self) -> None:
        """Gives the devices' memory back, whoever still holds the slots; nothing trains in them any more."""
        del self.loop


def padded(params: Mapping[str, Array | np.ndarray], like: Flat) -> Flat:
    """The parameters with zeros behind them along every axis, in the shapes of `like`; see `Learner.widths`."""
    return {
        path: jnp.zeros_like(array).at[tuple(slice(side) for side in params[path].shape)].set(params[path])
        for path, array in like.items()
    }


@partial(jax.jit, donate_argnums=(0, 1))
def _put(state: State, best: Flat, fresh: State, slot: Array) -> tuple[State, Flat]:
    """A fresh trial in place of what a slot holds."""

    def put(old: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), slot, axis=0)

    return jax.tree.map(put, state, fresh), jax.tree.map(put, best, fresh.trainable)


def _with(values: np.ndarray, slot: int, value: Any) -> np.ndarray:
    """The values with another in one slot."""
    changed = values.copy()
    changed[slot] = value
    return changed
