"""The contract of a model: the members of its configuration and its Flax module that other code uses."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.clip import TextConfig
from tunevlseg_jax.models.features import Decoded, ImageFeatures, TextFeatures
from tunevlseg_jax.models.settings import Recompute
from tunevlseg_jax.prompts import ModelSpec, Prompts


class Model(Protocol):
    """A Flax module in three stages: `vision`, `text` and `decode`. The features of either encoder can be cached.

    `vision` is `expand` of `encode`. A cache stores the output of `encode`, which is the smaller one.

    The parameters of the decoder are under `decoder/`, which train.tune "decoder" trains.
    """

    def vision(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """Encodes images.

        Args:
          images: (batch, height, width, 3), normalised; each side a multiple of `ModelConfig.side_multiple`.
          prompts: of which `vision`, `vision_blocks` and `taps` change the vision encoder.
          recompute: activations to rematerialise in the backward pass.

        Raises:
          ValueError: the sides don't fit, or there are changes of vision that the encoder doesn't take.
        """
        ...

    def encode(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """As `vision`, without the layers in which the features become larger; those take no changes but offsets."""
        ...

    def expand(self, image_features: ImageFeatures) -> ImageFeatures:
        """The output of `vision` from that of `encode`."""
        ...

    def text(self, tokens: Array, prompts: Prompts) -> TextFeatures:
        """Encodes phrases.

        Args:
          tokens: (batch, length) int32, start token first; padding follows the end token.
          prompts: of which `text` enters behind the start token, `text_blocks` changes the blocks, and `text_taps` the
            sentence vector.

        Raises:
          ValueError: tokens and prompts together are longer than the context.
        """
        ...

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Decoded:
        """Logits at the images' size and the decoder's last grid, one for each pair of image and phrase.

        A model that can say whether a phrase's object is there, or find its instances, also gives `Decoded.presence`
        and `Decoded.candidates`; they are None for the others.
        """
        ...


class ModelConfig(Protocol):
    """The sizes of a model: a frozen, hashable dataclass, so that compiled programs can depend on it.

    A new one joins `AnyModelConfig`, the classes that a model folder may hold.
    """

    @property
    def text(self) -> TextConfig:
        """Sizes of the text tower, of which the context length bounds the phrases."""
        ...

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the model is used with, unless the user asks for others."""
        ...

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of a colour channel, in 0..1, subtracted before the vision encoder."""
        ...

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of a colour channel, in 0..1, divided by."""
        ...

    @property
    def side_multiple(self) -> int:
        """Both sides of an image are a multiple of this number of pixels."""
        ...

    @property
    def feature_width(self) -> int:
        """Channels of the decoder's last grid."""
        ...

    @property
    def upsampler_width(self) -> int | None:
        """Channels to which the learnable upsampler reduces that grid first; None to take the grid as it is."""
        ...

    @property
    def token_embedding(self) -> str:
        """Path of the token embeddings among the weights, (vocabulary, text width)."""
        ...

    def build(self, rngs: nnx.Rngs) -> Model:
        """The model with fresh weights.

        Raises:
          ValueError: the sizes don't go together.
        """
        ...

    def spec(self, embed_phrase: Callable[[str], Array]) -> ModelSpec:
        """The facts about the model that a learner needs; `embed_phrase` as in `ModelSpec`."""
        ...

    def for_frozen_encoder(
        self, weights: Mapping[str, np.ndarray | Array]
    ) -> tuple["ModelConfig", Mapping[str, np.ndarray | Array]]:
        """Sizes and weights of an equal model that is fastest while its vision encoder is frozen."""
        ...
