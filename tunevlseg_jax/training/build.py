"""Builds the experiment of a configuration: loads its model, joins it with the learner, and checks that they fit."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from tunevlseg_jax.config import Config, Model, Precision
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import random_model, weight_shapes, with_masks, with_prompt_offset
from tunevlseg_jax.models.catalogue import AnyModelConfig, ModelConfig
from tunevlseg_jax.models.parameters import DECAY, FlatParams, decide, flatten, nested, on_device, split, subtree
from tunevlseg_jax.models.settings import Masks, Tune
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.prompts import ModelSpec
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training import precision
from tunevlseg_jax.training.experiment import Experiment


def build_experiment(
    config: Config,
    model: Pretrained | None = None,
    *,
    trains: bool = True,
    platform: str | None = None,
    kept: Precision | None = None,
    abstract: bool = False,
    masks: Masks = "semantic",
) -> Experiment:
    """The experiment of a configuration.

    Args:
      config: of the experiment.
      model: a loaded model; None to load the one that the configuration names.
      trains: whether the experiment will train; one without trainable parameters is then an error. Otherwise those of
        learner and upsampler are zeros, for learnt ones to take their places.
      platform: of the devices, such as "tpu"; None for this process's.
      kept: the precision in which the run began on a CPU, see `precision.choose`.
      abstract: whether shapes take the place of the parameters, so that no weight is read or made: for programs that
        are compiled and not run.
      masks: what the masks are; those of instances don't train.

    Raises:
      UserError: the model can't be loaded, the learner or the masks don't fit it, or there is nothing to train.
    """
    model = model or load_pretrained(config.model.checkpoint, weights=not (config.model.fresh or abstract))
    sizes = _with_masks(model.config, masks, config, trains=trains)
    fresh = config.model.fresh and not abstract
    learner_key, model_key = _keys(config.train.seed, drawn=trains or fresh)
    weights: Mapping[str, Any] = random_model(model.config, model_key) if fresh else model.weights
    image_size = model_image_size(config.model, model.config)
    types = precision.choose(config.train.precision, platform or jax.default_backend(), model.config.text.width, kept)
    try:
        sizes = with_prompt_offset(sizes, config.model.prompt_offset)
        if config.train.tune != "all":
            sizes, weights = sizes.for_frozen_encoder({} if abstract else weights)
        network = Network(
            sizes, config.learner, config.upsampling, types.kernels, types.activations, config.train.recompute
        )
        make = partial(_parameters, network, model, config.train.tune, trains)
        if abstract:
            weights = {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in weight_shapes(sizes).items()}
        trainable, frozen = jax.eval_shape(make, learner_key, weights) if abstract else make(learner_key, weights)
        decide(DECAY, trainable)
    except ValueError as error:
        raise UserError(str(error), "learner-unfit") from error
    _check_head(config.learner, masks, trainable)
    if trains:
        _check_trainable(config, trainable)
    return Experiment(
        config=config,
        pretrained=dataclasses.replace(model, weights={}),
        spec=_spec(sizes, model, weights),
        network=dataclasses.replace(network, learner=config.learner.static_part()),
        trainable=trainable,
        frozen=frozen,
        image_size=image_size,
        computed=types,
        masks=masks,
    )


def _keys(seed: int, *, drawn: bool) -> tuple[Array, Array]:
    """The keys of learner and model; where nothing is drawn their types alone, which need no program."""

    def keys() -> tuple[Array, Array]:
        learner, model = jax.random.split(jax.random.key(seed))
        return learner, model

    return keys() if drawn else jax.eval_shape(keys)


def _check_trainable(config: Config, trainable: FlatParams) -> None:
    if not trainable:
        details = f"a learner without parameters, no upsampler, and train.tune is {config.train.tune!r}"
        raise UserError(f"nothing to train: {details}", "nothing-to-train")


def _parameters(
    network: Network, model: Pretrained, tune: Tune, trains: bool, key: Array, weights: Mapping[str, Any]
) -> tuple[FlatParams, FlatParams]:
    """The parameters that train, and the frozen ones in the types of the computations."""
    params = network.init(key, weights, _spec(network.config, model, weights), zeros=not trains)
    trainable, frozen = split(params, tune)
    cast = flatten(network.cast(subtree(frozen, "model")), "model")
    trainable = {path: on_device(array, jnp.float32) for path, array in trainable.items()}
    return trainable, network.with_copies(cast) if trains else cast


def _spec(sizes: ModelConfig, model: Pretrained, weights: Mapping[str, Any]) -> ModelSpec:
    embedding, words = weights[sizes.token_embedding], model.tokenizer.words  # the other weights can be freed
    return sizes.spec(lambda phrase: jnp.asarray(embedding)[words(phrase)])


def _with_masks(sizes: AnyModelConfig, masks: Masks, config: Config, *, trains: bool) -> AnyModelConfig:
    """The model with these masks; raises a UserError where they can't be what the configuration asks for."""
    try:
        sizes = with_masks(sizes, masks)
    except ValueError as error:
        raise UserError(f"{config.model.checkpoint}: {error}", "masks-unfit") from error
    if masks == "instances" and trains:
        raise _unfit("they don't train: which instances belong to a mask is a choice, and has no gradient")
    if masks == "instances" and config.upsampling != "none":
        raise _unfit(f"upsampling must be none, got {config.upsampling}: it has learnt to change the semantic mask")
    return sizes


def _unfit(reason: str) -> UserError:
    return UserError(f"masks must be semantic, got instances; {reason}", "masks-unfit")


def _check_head(learner: Learner, masks: Masks, params: FlatParams) -> None:
    """Raises a UserError if a learner computes the logits, in place of the instances."""
    if masks == "semantic":
        return
    prompts = jax.eval_shape(
        lambda values: learner.prompts(values, jnp.int32(1), dropout=jnp.float32(0), key=None),
        nested(subtree(params, "learner")),
    )
    if prompts.head is not None:
        raise _unfit(f"{type(learner).__name__} computes the mask itself")


def model_image_size(model: Model, sizes: ModelConfig) -> tuple[int, int]:
    """(height, width) of a model's images; raises a UserError if the model takes no such images."""
    size = model.image_size or (sizes.image_size, sizes.image_size)
    if any(side % sizes.side_multiple or side <= 0 for side in size):
        raise UserError(f"model.image_size must be multiples of {sizes.side_multiple} pixels, got {size}", "image-size")
    return size
