"""CLIPSeg: CLIP's towers and a light decoder conditioned on the sentence (Lüddecke and Ecker 2022, section 3)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.changes import bottleneck
from tunevlseg_jax.models.clip import TOKEN_EMBEDDING, TextConfig, TextTower, VisionConfig, VisionTower
from tunevlseg_jax.models.features import Decoded, ImageFeatures, TextFeatures
from tunevlseg_jax.models.layers import Block
from tunevlseg_jax.models.products import Conv, Linear, Unfold
from tunevlseg_jax.models.settings import Recompute
from tunevlseg_jax.models.vectors import vectors
from tunevlseg_jax.prompts import ModelSpec, Prompts

FIXED = ("text_tower/blocks/", "vision_tower/blocks/", "vision_tower/post_norm/", "decoder/reduces/")
"""Starts of the paths of biases and scales that aren't among `ModelSpec.vectors`: those of blocks have their own place,
the post norm doesn't reach the mask, and `Decoder.reduce` is a part of the vision stage, whose features are cached."""


@dataclass(frozen=True)
class CLIPSegConfig:
    """Sizes of a CLIPSeg, a `ModelConfig`; the defaults are CIDAS/clipseg-rd64's.

    Attributes:
      taps: indices of the vision blocks whose output the decoder reads, shallowest first.
      conditional_layer: the decoder block before which the sentence modulates the tokens.
      complex_upsampling: three convolutions instead of one transposed convolution (clipseg-rd64-refined).
      image_size: side in pixels of the images that the model is used with.
      mean: of a colour channel, in 0..1 (ImageNet's), subtracted before the vision tower.
      std: likewise, divided by.
    """

    text: TextConfig = field(default_factory=TextConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    embedding_width: int = 512
    taps: tuple[int, ...] = (3, 6, 9)
    decoder_width: int = 64
    decoder_heads: int = 4
    decoder_hidden: int = 2048
    conditional_layer: int = 0
    complex_upsampling: bool = False
    image_size: int = 352
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def side_multiple(self) -> int:
        return self.vision.patch

    @property
    def feature_width(self) -> int:
        return self.decoder_width

    @property
    def upsampler_width(self) -> int | None:
        return None

    @property
    def token_embedding(self) -> str:
        return TOKEN_EMBEDDING

    def build(self, rngs: nnx.Rngs) -> "CLIPSeg":
        return CLIPSeg(self, rngs)

    def spec(self, embed_phrase: Callable[[str], Array]) -> ModelSpec:
        return ModelSpec(
            text_width=self.text.width,
            text_blocks=self.text.blocks,
            text_hidden=self.text.hidden,
            image_width=self.embedding_width,
            sentence_width=self.embedding_width,
            vision_width=self.vision.width,
            vision_blocks=self.vision.blocks,
            vision_hidden=self.vision.hidden,
            # The last tap already has the next block's prompt in it.
            effective_vision_prompts=min(max(self.taps) + 2, self.vision.blocks),
            effective_vision_blocks=max(self.taps) + 1,
            taps=len(self.taps),
            text_taps=len(self.taps) * (self.text.width == self.embedding_width and max(self.taps) < self.text.blocks),
            feature_width=self.feature_width,
            embed_phrase=embed_phrase,
            vectors=lambda stage: vectors(self, stage, FIXED),
        )

    def for_frozen_encoder(
        self, weights: Mapping[str, np.ndarray | Array]
    ) -> tuple["CLIPSegConfig", Mapping[str, np.ndarray | Array]]:
        """The same model: a frozen vision tower has no faster form."""
        return self, weights


class CLIPSeg(nnx.Module):
    """The model in three stages: `vision`, `text`, `decode`."""

    def __init__(self, config: CLIPSegConfig, rngs: nnx.Rngs):
        self.config = config
        self.text_tower = TextTower(config.text, config.embedding_width, rngs, taps=config.taps)
        self.vision_tower = VisionTower(config.vision, config.embedding_width, rngs, max(config.taps) + 1)
        self.decoder = Decoder(config, rngs)
        # CLIP's temperature is unused, and kept so that a conversion loses nothing.
        self.logit_scale = nnx.Param(jnp.full((), 2.6592))

    def text(self, tokens: Array, prompts: Prompts) -> TextFeatures:
        """See `TextTower`."""
        return self.text_tower(tokens, prompts)

    def vision(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """The tapped states in the decoder's width and the pooled image vector; see `VisionTower`."""
        states, pooled = self.vision_tower(images, prompts, recompute)
        taken = [states[tap] for tap in self.config.taps]
        for number, change in (prompts.taps or {}).items():
            taken[number] = bottleneck(taken[number], change)
        taps = self.decoder.reduce(taken)
        return ImageFeatures(taps, pooled, (images.shape[1], images.shape[2]))

    def encode(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """As `vision`: the taps are as small as features get."""
        return self.vision(images, prompts, recompute)

    def expand(self, image_features: ImageFeatures) -> ImageFeatures:
        """The same features."""
        return image_features

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Decoded:
        """See `Decoder`."""
        patch = self.config.vision.patch
        height, width = image_features.size
        return self.decoder(image_features.states, text_features.sentence, (height // patch, width // patch))


class Decoder(nnx.Module):
    """CLIPSeg's decoder: from the taps and a sentence to one logit for each pixel (section 3)."""

    def __init__(self, config: CLIPSegConfig, rngs: nnx.Rngs):
        width = config.decoder_width
        self.conditional_layer = config.conditional_layer
        self.film_scale = Linear(config.embedding_width, width, rngs=rngs)
        self.film_shift = Linear(config.embedding_width, width, rngs=rngs)
        self.reduces = nnx.List(Linear(config.vision.width, width, rngs=rngs) for _ in config.taps)
        self.blocks = nnx.List(
            Block(width, config.decoder_heads, config.decoder_hidden, jax.nn.relu, rngs, norm="after")
            for _ in config.taps
        )
        upsampling = ComplexUpsampling if config.complex_upsampling else PlainUpsampling
        self.upsampling = upsampling(width, config.vision.patch, rngs)

    def reduce(self, states: Sequence[Array]) -> tuple[Array, ...]:
        """The states of the taps, shallowest first, in the decoder's width; this part needs no sentence."""
        return tuple(linear(state) for linear, state in zip(reversed(self.reduces), states, strict=True))

    def __call__(self, states: Sequence[Array], sentence: Array, grid: tuple[int, int]) -> Decoded:
        """Decodes.

        Args:
          states: from `reduce`, shallowest first, (batch, 1 + patches + num_context, decoder width).
          sentence: (batch, embedding width).
          grid: the patch grid, rows and columns.

        Returns:
          Logits at the image's size, and the last grid.
        """
        x = jnp.zeros((), states[0].dtype)
        for number, reduced in enumerate(reversed(states)):
            x = reduced if number == 0 else reduced + x
            if number == self.conditional_layer:
                x = self.film_scale(sentence)[:, None] * x + self.film_shift(sentence)[:, None]
            x = self.blocks[number](x)
        patches = x[:, 1 : 1 + grid[0] * grid[1]]
        features = patches.reshape(x.shape[0], *grid, x.shape[-1])
        return Decoded(self.upsampling(features)[..., 0], features)


class PlainUpsampling(nnx.Module):
    """A transposed convolution from the vector of a patch to its pixels."""

    def __init__(self, width: int, patch: int, rngs: nnx.Rngs):
        self.pixels = Unfold(width, 1, patch, rngs)

    def __call__(self, features: Array) -> Array:
        """From (batch, rows, columns, width) to (batch, height, width, 1)."""
        return self.pixels(features)


class ComplexUpsampling(nnx.Module):
    """A convolution and two transposed convolutions, each with a quarter of the patch size (16) as its stride."""

    def __init__(self, width: int, patch: int, rngs: nnx.Rngs):
        if (patch // 4) ** 2 != patch:
            raise ValueError(f"the complex upsampling is made for a patch of 16, not {patch}")
        self.convolution = Conv(width, width, 3, rngs=rngs)
        self.unfold1 = Unfold(width, width // 2, patch // 4, rngs)
        self.unfold2 = Unfold(width // 2, 1, patch // 4, rngs)

    def __call__(self, features: Array) -> Array:
        """From (batch, rows, columns, width) to (batch, height, width, 1)."""
        x = jax.nn.relu(self.convolution(features))
        return self.unfold2(jax.nn.relu(self.unfold1(x)))
