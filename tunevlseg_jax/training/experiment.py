"""From a configuration to everything that training, evaluation and prediction need."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax.config import Config, Model, Precision
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding import augmented_views
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.models import ModelConfig
from tunevlseg_jax.models.build import random_model, with_prompt_offset
from tunevlseg_jax.models.features import ImageFeatures, TextFeatures
from tunevlseg_jax.models.parameters import FlatParams, split
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.tokenizer import with_full_stop
from tunevlseg_jax.prompts import ModelSpec
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training import step
from tunevlseg_jax.training.split import Split
from tunevlseg_jax.training.step import Hyperparameters


@dataclass(frozen=True)
class Experiment:
    """A loaded model, its network and its parameters, for one configuration.

    Attributes:
      config: of the run.
      pretrained: the model folder.
      spec: the facts about the model that the learner needs.
      network: the static part of the program.
      trainable: fresh parameters that train.
      frozen: the rest, in the type that the model computes in.
      image_size: (height, width) of the images that the model sees.
    """

    config: Config
    pretrained: Pretrained
    spec: ModelSpec
    network: Network
    trainable: FlatParams
    frozen: FlatParams
    image_size: tuple[int, int]

    def hyper(self) -> Hyperparameters:
        """The values of this run, as one trial."""
        depth, dropout = self.config.learner.traced_values()
        return Hyperparameters(
            learning_rate=jnp.asarray([self.config.optim.learning_rate], jnp.float32),
            weight_decay=jnp.asarray([self.config.optim.weight_decay], jnp.float32),
            depth=jnp.asarray([depth], jnp.int32),
            dropout=jnp.asarray([dropout], jnp.float32),
            seed=jnp.asarray([self.config.train.seed], jnp.uint32),
        )

    def for_trials(self, trials: int) -> tuple[FlatParams, Hyperparameters]:
        """Fresh parameters and hyperparameters, the same for so many trials."""
        trainable = {path: jnp.broadcast_to(array, (trials, *array.shape)) for path, array in self.trainable.items()}
        return trainable, jax.tree.map(lambda values: jnp.broadcast_to(values, trials), self.hyper())

    def on_mesh(self, mesh: Mesh) -> Experiment:
        """The same with its frozen parameters on the devices, shared out or whole on each."""
        place = sharding.shard_params if self.config.train.shard_frozen else sharding.replicate
        return dataclasses.replace(self, frozen=place(self.frozen, mesh))

    def init_params(self, config: Config) -> FlatParams:
        """Fresh parameters that train, for another learner or seed on the same model.

        Raises:
          UserError: the learner doesn't fit the model.
        """
        learner_key, _ = jax.random.split(jax.random.key(config.train.seed))
        network = dataclasses.replace(self.network, learner=config.learner, upsampling=config.upsampling)
        try:
            params = network.init(learner_key, {}, self.spec)
        except ValueError as error:
            raise UserError(str(error), "learner-unfit") from error
        model = {path: array for path, array in self.trainable.items() if path.startswith("model/")}
        return model | {path: jnp.asarray(array, jnp.float32) for path, array in params.items()}

    def with_config(self, config: Config) -> Experiment:
        """The same model with another learner or upsampler.

        Raises:
          UserError: the learner doesn't fit the model.
        """
        network = dataclasses.replace(self.network, learner=config.learner.static_part(), upsampling=config.upsampling)
        return dataclasses.replace(self, config=config, network=network, trainable=self.init_params(config))

    def zero_shot(self) -> tuple[Network, FlatParams]:
        """The model as it was loaded, with nothing learnt: its program and its parameters."""
        network = dataclasses.replace(self.network, learner=ZeroShot(), upsampling="none")
        params = {**self.frozen, **self.trainable}
        return network, {path: array for path, array in params.items() if path.startswith("model/")}

    def split(
        self,
        name: str,
        data: Data | None = None,
        *,
        complete: bool = False,
        encode_once: bool = False,
        mesh: Mesh | None = None,
    ) -> Split:
        """A split of the run's data set, or of another, ready for the model.

        Args:
          name: of the split.
          data: another data set.
          complete: see `registry.load`.
          encode_once: whether to encode each image once for all epochs, where that changes nothing.
          mesh: the devices; None for all of them along `data`.

        Raises:
          UserError: there is no such data set or split, it is empty, or a prompt is too long.
        """
        data = data or self.config.data
        records = registry.load(data, name, self.image_size, complete=complete)
        encode = self.encode_images if encode_once and self.config.features_cacheable(name) else None
        mesh = mesh or sharding.mesh()
        feed = Feed(records, mesh, data.placement, data.workers, encode)
        return Split(feed, self.encode_text(records.phrases, mesh))

    def splits(self, mesh: Mesh) -> dict[str, Split]:
        """What a run of this configuration trains on and is scored on: train, val, and test where there is one.

        Raises:
          UserError: as in `split`.
        """
        names = ("train", "val", "test") if "test" in registry.splits(self.config.data) else ("train", "val")
        splits = {name: self.split(name, encode_once=True, mesh=mesh) for name in names}
        return splits | {"train": self.in_views(splits["train"])}

    def in_views(self, split: Split) -> Split:
        """The training split with the augmented views that the configuration asks for."""
        settings, feed = self.config.train, split.feed
        numbers = range(1, (settings.augmented_views or 0) + 1)
        records = [augmented_views.view(feed.records, number, settings.seed_of_order) for number in numbers]
        return dataclasses.replace(split, views=tuple(dataclasses.replace(feed, records=one) for one in records))

    def encode_images(self, images: Array) -> ImageFeatures:
        """The features of images, (batch, height, width, 3) uint8, without vision prompts."""
        return step.encode_images_step(self.frozen, images, network=self.network)

    def encode_text(self, phrases: Sequence[str], mesh: Mesh | None = None) -> Array | TextFeatures:
        """The features of phrases, where neither the learner nor training changes them, else their tokens.

        Args:
          phrases: to encode.
          mesh: the devices, each of which gets the result; None for one.

        Raises:
          UserError: a phrase is too long.
        """
        tokens = self.token_table(phrases)
        if mesh is not None:
            tokens = sharding.replicate(tokens, mesh)
        if "text" in self.network.learner.changes or self.config.train.tune != "prompts":
            return tokens
        features = step.encode_text_step(self.frozen, tokens, network=self.network)
        return features if mesh is None else sharding.replicate(features, mesh)

    def token_table(self, phrases: Sequence[str]) -> Array:
        """(phrases, length) int32 tokens, ready for the text tower.

        Raises:
          UserError: a phrase is too long.
        """
        data = self.config.data
        phrases = [with_full_stop(phrase) if data.full_stop else phrase for phrase in phrases]
        longest = self.network.config.text.context_length - self.network.learner.text_tokens
        return jnp.asarray(self.pretrained.tokenizer.table(phrases, longest, truncate=data.truncate))


def build_experiment(config: Config, *, trains: bool = True) -> Experiment:
    """Loads the model and makes an experiment of it.

    Args:
      config: of the experiment.
      trains: whether it is to be trained; False lets it be one that learns nothing.

    Raises:
      UserError: the model can't be had, the learner doesn't fit it, or there is nothing to train.
    """
    return assemble_experiment(
        config, load_pretrained(config.model.checkpoint, weights=not config.model.fresh), trains=trains
    )


def assemble_experiment(config: Config, model: Pretrained, *, trains: bool = True) -> Experiment:
    """Makes fresh parameters for a loaded model and splits them; see `build_experiment`.

    Raises:
      UserError: the learner doesn't fit the model, or there is nothing to train.
    """
    learner_key, model_key = jax.random.split(jax.random.key(config.train.seed))
    weights = random_model(model.config, model_key) if config.model.fresh else model.weights
    size = model_image_size(config.model, model.config)
    dtype = compute_type(config.train.precision)
    try:
        sizes = with_prompt_offset(model.config, config.model.prompt_offset)
    except ValueError as error:
        raise UserError(str(error), "learner-unfit") from error
    if config.train.tune != "all":
        sizes, weights = sizes.for_frozen_encoder(weights)
    network = Network(sizes, config.learner, config.upsampling, dtype, config.train.recompute)

    def embed_phrase(phrase: str) -> Array:
        return jnp.asarray(weights[sizes.token_embedding])[model.tokenizer.words(phrase)]

    spec = sizes.spec(embed_phrase)
    try:
        params = network.init(learner_key, weights, spec)
        trainable, frozen = split(params, config.train.tune)
    except ValueError as error:
        raise UserError(str(error), "learner-unfit") from error
    if trains and not trainable:
        details = f"a learner without parameters, no upsampler, and train.tune is {config.train.tune!r}"
        raise UserError(f"nothing to train: {details}", "nothing-to-train")
    return Experiment(
        config=config,
        pretrained=model,
        spec=spec,
        network=dataclasses.replace(network, learner=config.learner.static_part()),
        trainable={path: jnp.asarray(array, jnp.float32) for path, array in trainable.items()},
        frozen={path: jnp.asarray(array, dtype) for path, array in frozen.items()},
        image_size=size,
    )


def model_image_size(model: Model, sizes: ModelConfig) -> tuple[int, int]:
    """Height and width of the images that a model of these sizes sees.

    Raises:
      UserError: it takes no such images.
    """
    size = model.image_size or (sizes.image_size, sizes.image_size)
    if any(side % sizes.side_multiple or side <= 0 for side in size):
        raise UserError(f"model.image_size must be multiples of {sizes.side_multiple} pixels, got {size}", "image-size")
    return size


def compute_type(precision: Precision) -> np.dtype:
    """The type that a model computes in; "auto" is float32 on a CPU and bfloat16 elsewhere."""
    if precision == "auto":
        precision = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return np.dtype(jnp.float32 if precision == "float32" else jnp.bfloat16)
