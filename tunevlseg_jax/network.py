"""A model, a learner and an upsampler joined into pure functions of one flat dict of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import fill_model, fill_module, products, transposed_copies
from tunevlseg_jax.models.catalogue import Model as FlaxModel
from tunevlseg_jax.models.catalogue import ModelConfig
from tunevlseg_jax.models.changes import bottleneck
from tunevlseg_jax.models.features import Decoded, ImageFeatures, TextFeatures
from tunevlseg_jax.models.linear_head import probed
from tunevlseg_jax.models.parameters import FlatParams, flatten, module_parameters, nested, on_device, subtree
from tunevlseg_jax.models.products import TRANSPOSED
from tunevlseg_jax.models.settings import Recompute, Upsampling
from tunevlseg_jax.models.upsampler import Upsampler
from tunevlseg_jax.models.vectors import shifted
from tunevlseg_jax.prompts import ModelSpec, Outputs, Prompts

FLOAT32 = np.dtype(np.float32)


class FrozenText(NamedTuple):
    """What a frozen model makes of phrases, for a learner's regulariser.

    Attributes:
      sentence: (phrases, embedding width) float32, mean sentence vectors of the phrases in the learner's templates.
      features: of the phrases as they are.
    """

    sentence: Array
    features: TextFeatures


@dataclass(frozen=True)
class Network:
    """The static part of a network; its parameters are `model/...`, `learner/...` and `upsampler/...`.

    Attributes:
      config: sizes of the model.
      learner: computes the prompts and other changes of the model from its parameters.
      upsampling: use of the learnable upsampler.
      dtype: type of the model's kernels (but see `Product.halves`), of the operands of their products, and of cached
        features; learner, upsampler, softmax, norms and loss stay in float32.
      activation_dtype: type of the products' results, of what the model computes from them, and of its other weights.
      recompute: activations of a vision transformer to rematerialise in the backward pass, see `VisionTower`.
    """

    config: ModelConfig
    learner: Learner
    upsampling: Upsampling = "none"
    dtype: np.dtype = FLOAT32
    activation_dtype: np.dtype = FLOAT32
    recompute: Recompute = "nothing"

    def logits(
        self,
        params: FlatParams,
        images: Array | ImageFeatures,
        phrase: Array,
        token_table: Array | TextFeatures,
        *,
        depth: Array,
        dropout: Array,
        key: Array | None = None,
    ) -> Array:
        """Logits of the mask of each phrase in its image, (batch, height, width) float32; see `outputs`."""
        return self.outputs(params, images, phrase, token_table, depth=depth, dropout=dropout, key=key).logits

    def outputs(
        self,
        params: FlatParams,
        images: Array | ImageFeatures,
        phrase: Array,
        token_table: Array | TextFeatures,
        *,
        depth: Array,
        dropout: Array,
        key: Array | None = None,
    ) -> Outputs:
        """The logits of each phrase's mask, and the vectors that a regulariser may read; arguments as in `decode`."""
        decoded, sentence, image = self.decode(
            params, images, phrase, token_table, depth=depth, dropout=dropout, key=key
        )
        sentence, image = (vectors.astype(jnp.float32) for vectors in (sentence, image))
        return Outputs(decoded.logits, sentence, image)

    def decode(
        self,
        params: FlatParams,
        images: Array | ImageFeatures,
        phrase: Array,
        token_table: Array | TextFeatures,
        *,
        depth: Array,
        dropout: Array,
        key: Array | None = None,
    ) -> tuple[Decoded, Array, Array]:
        """What the decoder gives for each phrase in its image, the sentence vectors and the image vectors.

        Args:
          params: every parameter, by path.
          images: (batch, height, width, 3) uint8, RGB; or (batch / n, ...), each for n neighbouring phrases; or their
            features from `encode_images`, for a learner that doesn't change "vision".
          phrase: (batch,) int32, rows of `token_table`.
          token_table: (phrases, length) int32, tokens of the distinct phrases. Each is encoded once, unless the learner
            computes prompts for each image. Or their features from `encode_text`, for a learner that
            doesn't change "text".
          depth: int32 scalar, see `Prompts`; or (2,), those of the towers; or (parts,), those of the learner's parts.
          dropout: float32 scalar, the learner's rate, or (parts,).
          key: of the dropout; None in evaluation.

        Returns:
          The decoder's output with the final logits, in float32; and both vectors of `Outputs`, in the type of the
          activations.
        """
        learner_params = nested(subtree(params, "learner"))

        prompts = self.learner.prompts(learner_params, depth, dropout=dropout, key=key)
        model = self._model(params, prompts)
        features = self._decoder_inputs(model, images, prompts, phrase.shape[0])
        prompts = self.learner.condition(learner_params, prompts, features.pooled)
        if "condition" in self.learner.changes:
            distinct = text_features = model.text(cast(Array, token_table)[phrase], prompts)
        else:
            distinct = token_table if isinstance(token_table, TextFeatures) else model.text(token_table, prompts)
            text_features = jax.tree.map(lambda rows: rows[phrase], distinct)
        text_features = text_features._replace(sentence=bottleneck(text_features.sentence, prompts.sentence))
        decoded = probed(model.decode(features, text_features), prompts.head)
        decoded = decoded._replace(logits=decoded.logits.astype(jnp.float32))
        return decoded._replace(logits=self._upsampled(params, decoded)), distinct.sentence, features.pooled

    def frozen_outputs(
        self, params: FlatParams, images: Array | ImageFeatures, phrase: Array, text: FrozenText
    ) -> Outputs:
        """The outputs without learner and upsampler, for the learner's regulariser; as for `outputs`.

        XLA leaves out the vision pass if the regulariser reads the sentence vectors alone.
        """
        model = self._model(params, Prompts())
        features = self._decoder_inputs(model, images, Prompts(), phrase.shape[0])
        decoded = model.decode(features, jax.tree.map(lambda rows: rows[phrase], text.features))
        return Outputs(decoded.logits.astype(jnp.float32), text.sentence, features.pooled.astype(jnp.float32))

    def encode_images(self, params: FlatParams, images: Array) -> ImageFeatures:
        """The features of images, (batch, height, width, 3) uint8, without vision prompts."""
        return self._encoded(self._model(params, Prompts()), images, Prompts())

    def encode_text(self, params: FlatParams, token_table: Array) -> TextFeatures:
        """The features of phrases, (phrases, length) int32 tokens, without text prompts."""
        return self._model(params, Prompts()).text(token_table, Prompts())

    def _model(self, params: FlatParams, prompts: Prompts) -> FlaxModel:
        weights = self.cast(subtree(params, "model"))
        return fill_model(self.config, shifted(weights, prompts.offsets))

    def _upsampled(self, params: FlatParams, decoded: Decoded) -> Array:
        if self.upsampling == "none":
            return decoded.logits
        upsampler = fill_module(self._upsampler, subtree(params, "upsampler"))
        return upsampler.blend(decoded) if self.upsampling == "blend" else upsampler.add(decoded)

    def _encoded(self, model: FlaxModel, images: Array, prompts: Prompts) -> ImageFeatures:
        """The features of images, as a cache stores them."""
        images = normalize(images, self.config).astype(self.activation_dtype)
        return model.encode(images, prompts, self.recompute).astype(self.dtype)

    def _decoder_inputs(
        self, model: FlaxModel, images: Array | ImageFeatures, prompts: Prompts, phrases: int
    ) -> ImageFeatures:
        """The decoder's inputs from images or their features, repeated for as many phrases."""
        features = images if isinstance(images, ImageFeatures) else self._encoded(model, images, prompts)
        return model.expand(features.astype(self.activation_dtype)).repeat(phrases // features.pooled.shape[0])

    def cast(self, weights: Mapping[str, Array | np.ndarray]) -> FlatParams:
        """Weights of the model in the types of its computations."""
        mixed = self.dtype != self.activation_dtype
        halved = {path for path, layer in products(self.config).items() if layer.halves or not mixed}
        return {
            path: on_device(array, self.dtype if path in halved or path.endswith(TRANSPOSED) else self.activation_dtype)
            for path, array in weights.items()
        }

    def with_copies(self, frozen: FlatParams) -> FlatParams:
        """Frozen weights with the transposed copies that the learner's gradient needs, see `Product`.

        Only a CPU's bfloat16 products need any. The gradient passes through the decoder, and through the stages that
        the learner changes.
        """
        changes = self.learner.changes
        if self.dtype == self.activation_dtype or not changes:
            return frozen
        stages = ["decoder"]
        stages += ["text_tower"] if changes & {"text", "condition"} else []
        stages += ["vision_tower"] if "vision" in changes else []
        copies = transposed_copies(self.config, subtree(frozen, "model"), stages)
        return flatten(copies, "model") | frozen

    def init(
        self, key: Array, model: Mapping[str, Array | np.ndarray], spec: ModelSpec, *, zeros: bool = False
    ) -> FlatParams:
        """Every parameter: those of `model`, and fresh ones for learner and upsampler.

        With `zeros` the fresh ones are zero, for learnt ones to take their places; random values compile for a while.

        Raises:
          ValueError: the learner doesn't fit the model, or its `changes` don't name what it changes.
        """
        params = {f"model/{path}": on_device(array, array.dtype) for path, array in model.items()}
        if zeros:
            shapes = jax.eval_shape(partial(self._fresh, spec=spec), key)
            return params | {path: jnp.asarray(np.zeros(leaf.shape, leaf.dtype)) for path, leaf in shapes.items()}
        return params | self._fresh(key, spec)

    def _fresh(self, key: Array, spec: ModelSpec) -> FlatParams:
        """Fresh parameters of learner and upsampler."""
        learner_key, upsampler_key = jax.random.split(key)
        learnt = self.learner.init(learner_key, spec)
        self.learner.check_changes(learnt)
        params = flatten(learnt, "learner")
        if self.upsampling != "none":
            upsampler = module_parameters(self._upsampler(nnx.Rngs(upsampler_key)))
            params |= {f"upsampler/{path}": array for path, array in upsampler.items()}
        return params

    def _upsampler(self, rngs: nnx.Rngs) -> Upsampler:
        return Upsampler(self.config.feature_width, rngs, self.config.upsampler_width)


def normalize(images: Array, config: ModelConfig) -> Array:
    """uint8 images as float32, standardised by the mean and standard deviation of the model's training images."""
    shape = (1, 1, 1, 3)
    mean, std = (jnp.asarray(values, jnp.float32).reshape(shape) for values in (config.mean, config.std))
    return (images.astype(jnp.float32) / 255 - mean) / std
