"""A loaded model with a learner: what training, evaluation and prediction build on."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding.feature_cache import Encoded, FeatureCache
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.models.features import ImageFeatures, TextFeatures
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.network import FrozenText, Network
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.tokenizer import with_full_stop
from tunevlseg_jax.prompts import ModelSpec
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training import step
from tunevlseg_jax.training.loop import TrainSetup
from tunevlseg_jax.training.precision import ComputeTypes
from tunevlseg_jax.training.split import Split
from tunevlseg_jax.training.step import Hyperparameters


@dataclass(frozen=True)
class Experiment:
    """A loaded model, its network and its parameters, for one configuration.

    Attributes:
      config: of the run.
      pretrained: the model as loaded, without its weights: `frozen` and `trainable` hold them.
      spec: the facts about the model that the learner needs.
      network: the static part of the program.
      trainable: initial parameters that train.
      frozen: the other parameters, in the type of the model's computations.
      image_size: (height, width) of the model's images.
      computed: the types of the computations, and why.
      masks: what the masks are; those of instances only predict and are only evaluated.

    With `abstract` of `build.build_experiment`, shapes take the place of both kinds of parameters.
    """

    config: Config
    pretrained: Pretrained
    spec: ModelSpec
    network: Network
    trainable: FlatParams
    frozen: FlatParams
    image_size: tuple[int, int]
    computed: ComputeTypes
    masks: Masks = "semantic"

    def hyper(self) -> Hyperparameters:
        """The hyperparameters of this run, as one trial."""
        learner = self.config.learner
        depth, dropout = learner.traced_values()
        return Hyperparameters(
            learning_rate=jnp.asarray([self.config.optim.learning_rate], jnp.float32),
            weight_decay=jnp.asarray([self.config.optim.weight_decay], jnp.float32),
            depth=jnp.asarray([depth], jnp.int32),
            dropout=jnp.asarray([dropout], jnp.float32),
            seed=jnp.asarray([self.config.train.seed], jnp.uint32),
            values={
                name: jnp.asarray([_number(getattr(learner, name))], jnp.float32) for name in learner.traced_fields
            },
        )

    def for_trials(self, trials: int) -> tuple[FlatParams, Hyperparameters]:
        """Initial parameters and hyperparameters, repeated for `trials` trials."""
        trainable = {path: jnp.broadcast_to(array, (trials, *array.shape)) for path, array in self.trainable.items()}
        return trainable, jax.tree.map(
            lambda values: jnp.broadcast_to(values, (trials, *values.shape[1:])), self.hyper()
        )

    def on_mesh(self, mesh: Mesh) -> "Experiment":
        """The experiment with its frozen parameters on the devices, sharded if the configuration says so."""
        place = sharding.shard_params if self.config.train.shard_frozen else sharding.replicate
        return dataclasses.replace(self, frozen=place(self.frozen, mesh))

    def init_params(self, config: Config) -> FlatParams:
        """Initial parameters that train, for another learner or seed on the same model.

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

    def with_config(self, config: Config) -> "Experiment":
        """The same model with another learner or upsampler.

        Raises:
          UserError: the learner doesn't fit the model.
        """
        network = dataclasses.replace(self.network, learner=config.learner.static_part(), upsampling=config.upsampling)
        frozen, trainable = network.with_copies(self.frozen), self.init_params(config)
        return dataclasses.replace(self, config=config, network=network, frozen=frozen, trainable=trainable)

    def zero_shot(self) -> tuple[Network, FlatParams]:
        """The network and the parameters of the model without a learner."""
        network = dataclasses.replace(self.network, learner=ZeroShot(), upsampling="none")
        params = {**self.frozen, **self.trainable}
        return network, {path: array for path, array in params.items() if path.startswith("model/")}

    def feature_cache(self, mesh: Mesh, room: float = 0.0) -> FeatureCache:
        """An empty cache of splits and of this model's features."""
        return FeatureCache(self.encode_images, self.image_size, mesh, room)

    def split(
        self, name: str, data: Data | None = None, *, complete: bool = False, cache: FeatureCache | None = None
    ) -> Split:
        """A split of the run's data set or of `data`, ready for the model.

        With a `cache`, features take the place of images where they never change. `complete` is that of
        `registry.load`.

        Raises:
          UserError: there is no such data set or split, it is empty, or a prompt is too long.
        """
        encoded: Encoded = "alone" if cache is not None and self.config.features_cacheable(name) else "no"
        if cache is not None and name == "train" and self.config.frozen_features_cacheable:
            encoded = "beside"
        cache = cache or self.feature_cache(sharding.mesh())
        feed = cache.feed(data or self.config.data, name, encoded=encoded, complete=complete)
        return Split(feed, self.encode_text(feed.records.phrases, cache.mesh))

    def splits(self, cache: FeatureCache) -> dict[str, Split]:
        """The splits of a run: train, val, and test where there is one; raises as `split` does."""
        names = ("train", "val", "test") if "test" in registry.splits(self.config.data) else ("train", "val")
        try:
            return {name: self.split(name, cache=cache) for name in names}
        except UserError as error:
            if error.code != "prompt-too-long":
                raise
            raise UserError(f"{error}, or cut prompts with --data.truncate", error.code) from error

    def train_setup(self, splits: Mapping[str, Split], cache: FeatureCache, *, parallel: bool = False) -> TrainSetup:
        """The training of this configuration, with its augmented views.

        Args:
          splits: of the run.
          cache: of the splits.
          parallel: whether several trials train. On a CPU they share the features of each augmented batch, unless they
            change the vision tower.

        Raises:
          UserError: the cache folder's disk is full.
        """
        config, settings, train, val = self.config, self.config.train, splits["train"], splits["val"]
        parallel = parallel and config.features_shareable and sharding.is_single_cpu(cache.mesh)
        encoded: Encoded = "beside" if config.frozen_features_cacheable else "alone"
        encoded = "no" if train.feed.encode_images is None else encoded
        view = partial(cache.feed, config.data, "train", encoded=encoded)
        numbers = range(1, (settings.augmented_views or 0) + 1)
        views = tuple(view(view=number, seed=settings.seed_of_order) for number in numbers)
        shared = cache if parallel and settings.augments_each_step else None
        frozen_text = self.frozen_text(train.records.phrases, cache.mesh)
        return TrainSetup(config, self.network, self.frozen, train, val, cache.mesh, views, shared, frozen_text)

    def encode_images(self, images: Array) -> ImageFeatures:
        """The features of images, (batch, height, width, 3) uint8, without vision prompts."""
        return step.encode_images_step(self.frozen, images, network=self.network)

    def encode_text(
        self, phrases: Sequence[str], mesh: Mesh | None = None, *, multiple: int = 1
    ) -> Array | TextFeatures:
        """The features of phrases if they never change, else their tokens; replicated on the mesh if there is one.

        `multiple` is that of `token_table`.

        Raises:
          UserError: a phrase is too long.
        """
        tokens = self.token_table(phrases, multiple=multiple)
        if mesh is not None:
            tokens = sharding.replicate(tokens, mesh)
        if "text" in self.network.learner.changes or self.config.train.tune != "prompts":
            return tokens
        features = step.encode_text_step(self.frozen, tokens, network=self.network)
        return features if mesh is None else sharding.replicate(features, mesh)

    def frozen_text(self, phrases: Sequence[str], mesh: Mesh | None = None) -> FrozenText | None:
        """What the frozen model makes of phrases, for the learner's regulariser; None without one.

        Raises:
          UserError: a phrase in a template is too long.
        """
        learner = self.network.learner
        if not learner.compared:
            return None
        written = [t.replace("{}", phrase.rstrip(".")) for t in learner.hand_written for phrase in phrases]
        tokens = self._tokens([*phrases, *written], 0)
        if mesh is not None:
            tokens = sharding.replicate(tokens, mesh)
        # One table at a time: the memory of a training step is enough for it.
        tables = tokens.reshape(-1, len(phrases), tokens.shape[1])
        network, _ = self.zero_shot()
        features, *others = (step.encode_text_step(self.frozen, table, network=network) for table in tables)
        sentence = jnp.stack([other.sentence for other in others]).astype(jnp.float32).mean(axis=0)
        text = FrozenText(sentence, features)
        return text if mesh is None else sharding.replicate(text, mesh)

    def token_table(self, phrases: Sequence[str], *, multiple: int = 1) -> Array:
        """(phrases, length) int32 tokens, ready for the text tower and the learner's context.

        The length is a multiple of `multiple` where that fits, so that phrases of other lengths need no program of
        their own.

        Raises:
          UserError: a phrase is too long.
        """
        return self._tokens(phrases, self.network.learner.text_tokens, multiple)

    def _tokens(self, phrases: Sequence[str], reserved: int, multiple: int = 1) -> Array:
        """As `token_table`, with `reserved` positions for other tokens."""
        data = self.config.data
        phrases = [with_full_stop(phrase) if data.full_stop else phrase for phrase in phrases]
        longest = self.network.config.text.context_length - reserved
        return jnp.asarray(self.pretrained.tokenizer.table(phrases, longest, truncate=data.truncate, multiple=multiple))


def _number(value: float | None) -> float:
    """A value of `Learner.traced_fields`."""
    return math.inf if value is None else value
