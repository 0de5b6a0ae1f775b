"""The compiled steps of training and evaluation: pure functions over a leading axis of trials."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from tunevlseg_jax.data.feeding.batch import Batch, Source, WithFeatures, gather
from tunevlseg_jax.models.features import Candidates, ImageFeatures, TextFeatures
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.resize import resize_grid
from tunevlseg_jax.network import FrozenText, Network
from tunevlseg_jax.prompts import Outputs
from tunevlseg_jax.training import metrics, optim
from tunevlseg_jax.training.losses import dice_ce
from tunevlseg_jax.training.metrics import Scores, Sums
from tunevlseg_jax.training.optim import Schedule


class Hyperparameters(NamedTuple):
    """The values in which trials of one program differ; every array is (trials,), or has one more axis.

    Attributes:
      learning_rate: float32, before schedule and plateau.
      weight_decay: float32.
      depth: int32, number of prompts in use; or (trials, 2), those of the towers; or (trials, parts), those of the
        learner's parts.
      dropout: float32, the learner's rate, or (trials, parts).
      seed: uint32, of the dropout.
      values: float32, of the learner's `traced_fields`, by name.
    """

    learning_rate: Array
    weight_decay: Array
    depth: Array
    dropout: Array
    seed: Array
    values: Mapping[str, Array] = {}


class Answers(NamedTuple):
    """What a model answers to phrases in images.

    Attributes:
      logits: (batch, height, width) float32.
      presence: (batch,) float32, the probability that the phrase's object is there at all; None where the model
        doesn't say.
    """

    logits: Array
    presence: Array | None


class TrainState(NamedTuple):
    """The arrays that a step updates, and the hyperparameters; every leaf has a leading trial axis.

    Attributes:
      trainable: parameters that train, by path.
      optimizer: AdamW's state.
      hyper: see `Hyperparameters`.
      rate_scale: (trials,) float32, the plateau's factor of the learning rate.
      step: (trials,) int32, number of finished steps.
      average: mean of earlier values of `trainable`, by path; empty where none is kept.
    """

    trainable: FlatParams
    optimizer: optax.OptState
    hyper: Hyperparameters
    rate_scale: Array
    step: Array
    average: Mapping[str, Array] = {}

    @property
    def kept(self) -> FlatParams:
        """The parameters to validate and to keep: the average where there is one."""
        return dict(self.average) or self.trainable


def init(trainable: FlatParams, hyper: Hyperparameters, *, averaged: bool = False) -> TrainState:
    """The state before the first step; `trainable` and `hyper` have a leading trial axis.

    `averaged` says whether it holds an average of the parameters.
    """

    return TrainState(
        trainable=trainable,
        optimizer=jax.vmap(lambda trial: optim.adamw(0.0, 0.0, trial).init(trial))(trainable),
        hyper=hyper,
        rate_scale=jnp.ones_like(hyper.learning_rate),
        step=jnp.zeros_like(hyper.seed, jnp.int32),
        average=jax.tree.map(jnp.copy, trainable) if averaged else {},
    )


@partial(jax.jit, static_argnames=("network", "schedule", "negatives"), donate_argnames="state")
def train_step(
    state: TrainState,
    frozen: FlatParams,
    source: Source,
    token_table: Array | TextFeatures,
    frozen_text: FrozenText | None = None,
    ema: float | None = None,
    *,
    network: Network,
    schedule: Schedule,
    negatives: bool = False,
) -> tuple[TrainState, Sums]:
    """One step of every trial on one batch.

    Args:
      state: before the step; its buffers are donated.
      frozen: parameters that don't train, shared by the trials.
      source: of the batch, which the trials share.
      token_table: (phrases, length) int32, tokens; or their features, see `Network.logits`.
      frozen_text: of the phrases, for the learner's regulariser; None without one.
      ema: decay of the average of the parameters; None where no step averages.
      network: the model and the learner.
      schedule: of the learning rate.
      negatives: whether training asks for absent things, see `dice_ce`.

    Returns:
      The state after the step, and each trial's sums over the batch before the update, without the regulariser.
    """
    batch, images = _split(gather(source))
    # Outside the trials, which share it, and the gradient.
    expected = None if frozen_text is None else network.frozen_outputs(frozen, images, batch.phrase, frozen_text)

    def loss_of(trainable: FlatParams, trial: TrainState) -> tuple[Array, Sums]:
        key = jax.random.fold_in(jax.random.key(trial.hyper.seed), trial.step)
        scores, outputs = _scores(network, {**frozen, **trainable}, batch, token_table, trial.hyper, key, negatives)
        sums = metrics.total(scores, batch.weight)
        loss = sums.loss / sums.samples
        if expected is not None:
            loss = loss + network.learner.regulariser(outputs, expected, trial.hyper.values, batch.weight)
        return loss, sums

    def update(trial: TrainState) -> tuple[TrainState, Sums]:
        gradients, sums = jax.grad(loss_of, has_aux=True)(trial.trainable, trial)
        rate = trial.hyper.learning_rate * trial.rate_scale * schedule(trial.step)
        transform = optim.adamw(rate, trial.hyper.weight_decay, trial.trainable)
        updates, optimizer = transform.update(gradients, trial.optimizer, trial.trainable)
        trainable = optax.apply_updates(trial.trainable, updates)
        trial = trial._replace(trainable=trainable, optimizer=optimizer, step=trial.step + 1)
        return trial if ema is None else trial._replace(average=_ema(trial, ema)), sums

    return jax.vmap(update)(state)


@partial(jax.jit, static_argnames="network")
def eval_step(
    trainable: FlatParams,
    frozen: FlatParams,
    batch: Batch,
    token_table: Array | TextFeatures,
    hyper: Hyperparameters,
    *,
    network: Network,
) -> tuple[Sums, Scores]:
    """Scores every trial on one batch: the sums without padding, and each sample's scores, (trials, batch)."""

    def evaluate(trial: FlatParams, values: Hyperparameters) -> tuple[Sums, Scores]:
        scores, _ = _scores(network, {**frozen, **trial}, batch, token_table, values, None)
        return metrics.total(scores, batch.weight), scores

    return jax.vmap(evaluate)(trainable, hyper)


@partial(jax.jit, static_argnames="network")
def encode_images_step(frozen: FlatParams, images: Array, *, network: Network) -> ImageFeatures:
    """The features of images, for a learner that doesn't change the vision tower; see `Network.encode_images`."""
    return network.encode_images(frozen, images)


@partial(jax.jit, static_argnames="network")
def encode_text_step(frozen: FlatParams, token_table: Array, *, network: Network) -> TextFeatures:
    """The features of phrases, for a learner that doesn't change the text tower; see `Network.encode_text`."""
    return network.encode_text(frozen, token_table)


@partial(jax.jit, static_argnames="network")
def answer_step(
    params: FlatParams,
    images: Array | ImageFeatures,
    phrase: Array,
    token_table: Array | TextFeatures,
    hyper: Hyperparameters,
    *,
    network: Network,
) -> Answers:
    """The answers of one trial to phrases in images; `params` and `hyper` have no trial axis.

    The other arguments are those of `Network.decode`.
    """
    decoded, *_ = network.decode(params, images, phrase, token_table, depth=hyper.depth, dropout=hyper.dropout)
    return Answers(decoded.logits, None if decoded.presence is None else jax.nn.sigmoid(decoded.presence))


@partial(jax.jit, static_argnames="network")
def candidates_step(
    params: FlatParams,
    images: Array | ImageFeatures,
    phrase: Array,
    token_table: Array | TextFeatures,
    hyper: Hyperparameters,
    *,
    network: Network,
) -> tuple[Candidates, Array]:
    """The instances of each phrase's object, and its presence as in `Answers`; arguments as in `answer_step`.

    Raises:
      ValueError: the model doesn't look for instances.
    """
    decoded, *_ = network.decode(params, images, phrase, token_table, depth=hyper.depth, dropout=hyper.dropout)
    if decoded.candidates is None or decoded.presence is None:
        raise ValueError("the model doesn't look for instances")
    return decoded.candidates, jax.nn.sigmoid(decoded.presence)


def _scores(
    network: Network,
    params: FlatParams,
    batch: Batch,
    token_table: Array | TextFeatures,
    hyper: Hyperparameters,
    key: Array | None,
    negatives: bool = False,
) -> tuple[Scores, Outputs]:
    """Scores at the size of the masks; logits of another size are resized to it (bilinear). And the outputs."""
    outputs = network.outputs(
        params, batch.images, batch.phrase, token_table, depth=hyper.depth, dropout=hyper.dropout, key=key
    )
    logits = outputs.logits
    _, height, width = batch.masks.shape
    if logits.shape[1:] != (height, width):
        logits = resize_grid(logits[..., None], (height, width), "bilinear")[..., 0]
    return metrics.score(dice_ce(logits, batch.masks, negatives=negatives), logits, batch.masks), outputs


def toward(average: Mapping[str, Array], params: FlatParams, share: Array) -> FlatParams:
    """The average moved toward the parameters of one trial by a share of the distance; a share of 1 gives them."""

    def move(old: Array, new: Array) -> Array:
        return jnp.where(share == 1, new, old + share * (new - old))

    return {path: move(average[path], new) for path, new in params.items()}


def _ema(trial: TrainState, decay: Array | float) -> FlatParams:
    """The exponential moving average after a step, corrected for its start as Adam's are (Kingma and Ba 2015)."""
    return toward(trial.average, trial.trainable, (1 - decay) / (1 - jnp.power(decay, trial.step)))


def _split(batch: Batch) -> tuple[Batch, Array | ImageFeatures]:
    """The batch for the network, and the images of the frozen model, or their features."""
    images = batch.images
    if isinstance(images, WithFeatures):
        return batch._replace(images=images.images), images.features
    return batch, images
