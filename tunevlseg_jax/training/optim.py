"""The optimizer, the learning rate's schedule, and each trial's early stopping and plateau."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from tunevlseg_jax.config import Optim, Train
from tunevlseg_jax.models.parameters import DECAY, FlatParams, decide


def adamw(
    learning_rate: Array | float, weight_decay: Array | float, trainable: FlatParams
) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter 2019) that decays only matrices; the rates may be traced values."""
    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=decide(DECAY, trainable))


@dataclass(frozen=True)
class Schedule:
    """The factor of the learning rate at each step, before the plateau's factor.

    Attributes:
      warmup_steps: steps of linear increase, 0 for none.
      total_steps: steps of cosine decay to zero, 0 for none.
    """

    warmup_steps: int
    total_steps: int

    def __call__(self, step: Array) -> Array:
        """The factor at `step`, an int32 scalar from 0; float32 scalar."""
        factor = jnp.ones(())
        if self.warmup_steps:
            factor = jnp.minimum(1.0, (step + 1) / self.warmup_steps)
        if self.total_steps:
            factor = factor * 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(1.0, step / self.total_steps)))
        return factor


class StoppingState(NamedTuple):
    """Each trial's early stopping and plateau; every field is a (trials,) numpy array.

    Attributes:
      best_loss: lowest validation loss so far.
      waited: epochs since `best_loss` fell by more than `min_delta`.
      plateau: epochs since then or since the rate was last reduced.
      rate_scale: product of the reductions so far.
      best_dice: highest validation Dice so far.
      best_epoch: the epoch, from 1, of `best_dice`; 0 before any.
      stopped: whether the trial has stopped early.
    """

    best_loss: np.ndarray
    waited: np.ndarray
    plateau: np.ndarray
    rate_scale: np.ndarray
    best_dice: np.ndarray
    best_epoch: np.ndarray
    stopped: np.ndarray


def start(trials: int) -> StoppingState:
    """The state before the first epoch."""
    return StoppingState(
        best_loss=np.full(trials, np.inf),
        waited=np.zeros(trials, np.int32),
        plateau=np.zeros(trials, np.int32),
        rate_scale=np.ones(trials, np.float32),
        best_dice=np.full(trials, -np.inf),
        best_epoch=np.zeros(trials, np.int32),
        stopped=np.zeros(trials, bool),
    )


def after_epoch(
    progress: StoppingState, epoch: np.ndarray, loss: np.ndarray, dice: np.ndarray, optim: Optim, train: Train
) -> tuple[StoppingState, np.ndarray]:
    """The state after an epoch.

    Args:
      progress: the state before the epoch.
      epoch: (trials,) the epoch's number, from 1.
      loss: (trials,) validation loss.
      dice: (trials,) validation Dice.
      optim: the rate is multiplied by `plateau_factor` after `plateau_patience` epochs without improvement.
      train: a trial stops after `patience` epochs without improvement.

    Returns:
      The state, which stays the same for a stopped trial, and (trials,) bool, whether this is a trial's best epoch by
      validation Dice.
    """
    alive = ~progress.stopped
    lower = loss < progress.best_loss - train.min_delta
    waited = np.where(lower, 0, progress.waited + 1)
    plateau = np.where(lower, 0, progress.plateau + 1)
    cut = plateau >= optim.plateau_patience
    improved = alive & (dice > progress.best_dice)
    after = StoppingState(
        best_loss=np.where(lower, loss, progress.best_loss),
        waited=waited.astype(np.int32),
        plateau=np.where(cut, 0, plateau).astype(np.int32),
        rate_scale=np.where(cut, progress.rate_scale * optim.plateau_factor, progress.rate_scale).astype(np.float32),
        best_dice=np.where(improved, dice, progress.best_dice),
        best_epoch=np.where(improved, epoch, progress.best_epoch).astype(np.int32),
        stopped=waited >= train.patience,
    )
    return jax.tree.map(partial(np.where, alive), after, progress), improved
