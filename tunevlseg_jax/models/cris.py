"""CRIS (Wang et al. 2022, section 3): CLIP's ResNet and text tower, a pyramid joined with the sentence, a decoder that
attends to the words, and a convolution whose kernel is a projection of the sentence."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.clip import TOKEN_EMBEDDING, TextConfig, TextTower
from tunevlseg_jax.models.features import Decoded, ImageFeatures, TextFeatures
from tunevlseg_jax.models.layers import Attention, LayerNorm
from tunevlseg_jax.models.products import Conv, Linear
from tunevlseg_jax.models.resize import resize_grid
from tunevlseg_jax.models.resnet import STRIDE, BatchNorm, ConvNorm, ModifiedResNet, ResNetConfig, average_pool, fold
from tunevlseg_jax.models.settings import Recompute
from tunevlseg_jax.models.vectors import vectors
from tunevlseg_jax.prompts import ModelSpec, Prompts
from tunevlseg_jax.runtime import schema

PROJECTOR_SIZE = 3
"""Side of the convolution whose kernel is a projection of the sentence."""
ENCODER = "vision_tower/"
FIXED = ("text_tower/blocks/", ENCODER, "decoder/neck/enter")
"""Starts of the paths of biases and scales that aren't among `ModelSpec.vectors`: those of blocks have their own place,
and `Neck.enter` is a part of the vision stage, whose features are cached."""


@dataclass(frozen=True)
class CRISConfig:
    """Sizes of a CRIS, a `ModelConfig`; the defaults are those of the public RN50.

    Attributes:
      neck_widths: channels of the pyramid at 1/8, 1/16 and 1/32 of the image's size. The second is also the width of
        the decoder and must equal that of the text tower, since the decoder attends to its states directly.
      decoder_layers: number of cross-modal layers.
      decoder_heads: of their attentions.
      decoder_hidden: width of their feed-forward parts.
      image_size: side in pixels of the images that the model is used with.
      mean: of a colour channel, in 0..1 (CLIP's), subtracted before the encoder.
      std: likewise, divided by.
      folded: whether the encoder's BatchNorms are part of its convolutions, see `for_frozen_encoder`; they are
        separate in a model folder.
      prompt_offset: delay of the text prompts in blocks: block 0 takes prompt 0, and block k > 0 takes prompt
        k - prompt_offset. The published code has 1, so its prompt 0 enters blocks 0 and 1.
    """

    text: TextConfig = field(default_factory=TextConfig)
    vision: ResNetConfig = field(default_factory=ResNetConfig)
    neck_widths: tuple[int, int, int] = (256, 512, 1024)
    decoder_layers: int = 3
    decoder_heads: int = 8
    decoder_hidden: int = 2048
    image_size: int = 416
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    folded: bool = False
    prompt_offset: int = schema.added(0)

    @property
    def side_multiple(self) -> int:
        return STRIDE

    @property
    def feature_width(self) -> int:
        return self.neck_widths[1]

    @property
    def upsampler_width(self) -> int | None:
        return 64

    @property
    def token_embedding(self) -> str:
        return TOKEN_EMBEDDING

    def build(self, rngs: nnx.Rngs) -> "CRIS":
        return CRIS(self, rngs)

    def spec(self, embed_phrase: Callable[[str], Array]) -> ModelSpec:
        """The facts about the model that a learner needs; there is no vision transformer to take prompts."""
        return ModelSpec(
            text_width=self.text.width,
            text_blocks=self.text.blocks,
            text_hidden=self.text.hidden,
            image_width=self.vision.embedding_width,
            sentence_width=self.vision.embedding_width,
            vision_width=None,
            vision_blocks=0,
            vision_hidden=0,
            effective_vision_prompts=0,
            effective_vision_blocks=0,
            taps=0,
            text_taps=0,
            feature_width=self.feature_width,
            embed_phrase=embed_phrase,
            vectors=lambda stage: vectors(self, stage, FIXED),
        )

    def for_frozen_encoder(
        self, weights: Mapping[str, np.ndarray | Array]
    ) -> tuple["CRISConfig", Mapping[str, np.ndarray | Array]]:
        """The same model with the encoder's BatchNorms folded into its convolutions."""
        return dataclasses.replace(self, folded=True), fold(weights, ENCODER)


class CRIS(nnx.Module):
    """The model in three stages: `vision`, `text`, `decode`.

    Every BatchNorm normalises by its stored statistics, in training too. With train.tune "all" its scale and bias
    train, and its mean and variance stay as loaded. There is no dropout.
    """

    def __init__(self, config: CRISConfig, rngs: nnx.Rngs):
        if config.text.width != config.feature_width:
            raise ValueError(
                f"text.width is {config.text.width} and neck_widths[1] is {config.feature_width}; they must agree, "
                "since the decoder reads the words as they are"
            )
        if config.feature_width % config.decoder_heads or config.feature_width % 4:
            raise ValueError(f"decoder_heads {config.decoder_heads} and 4 must divide the width {config.feature_width}")
        self.config = config
        self.text_tower = TextTower(config.text, config.vision.embedding_width, rngs, config.prompt_offset)
        self.vision_tower = ModifiedResNet(config.vision, rngs, folded=config.folded)
        self.decoder = Decoder(config, rngs)
        # CLIP's temperature is unused, and kept so that a conversion loses nothing.
        self.logit_scale = nnx.Param(jnp.full((), 2.6592))

    def text(self, tokens: Array, prompts: Prompts) -> TextFeatures:
        """See `TextTower`."""
        return self.text_tower(tokens, prompts)

    def vision(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """The input grids of the neck, from C3, C4 and C5 of `ModifiedResNet`; the image vector is the mean of C5.

        `recompute` has no effect, since no learner's gradient passes through the encoder.

        Raises:
          ValueError: there are vision prompts or changes of vision blocks, which a ResNet doesn't take.
        """
        if any(part is not None for part in (prompts.vision, prompts.vision_blocks, prompts.taps)):
            raise ValueError("CRIS has no vision transformer, and takes no vision prompts or changes of vision blocks")
        grids = self.vision_tower(images)
        pooled = grids[-1].mean(axis=(1, 2))
        return ImageFeatures(self.decoder.neck.enter(grids), pooled, (images.shape[1], images.shape[2]))

    def encode(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> ImageFeatures:
        """As `vision`: the grids are as small as features get."""
        return self.vision(images, prompts, recompute)

    def expand(self, image_features: ImageFeatures) -> ImageFeatures:
        """The same features."""
        return image_features

    def decode(self, image_features: ImageFeatures, text_features: TextFeatures) -> Decoded:
        """See `Decoder`."""
        f3, f4, f5 = image_features.states
        return self.decoder((f3, f4, f5), text_features, image_features.size)


class Decoder(nnx.Module):
    """CRIS's neck, cross-modal layers and projector: from three grids, a sentence and its words to the mask."""

    def __init__(self, config: CRISConfig, rngs: nnx.Rngs):
        self.neck = Neck(config, rngs)
        self.layers = nnx.List(DecoderLayer(config, rngs) for _ in range(config.decoder_layers))
        self.norm = LayerNorm(config.feature_width)
        self.projector = Projector(config, rngs)

    def __call__(self, grids: tuple[Array, Array, Array], words: TextFeatures, size: tuple[int, int]) -> Decoded:
        """Decodes.

        Args:
          grids: from `Neck.enter`.
          words: features of the phrase of each image.
          size: (height, width) of the images in pixels.

        Returns:
          Logits at the images' size, and the last grid, at 1/16 of it.
        """
        x = self.neck(grids, words.sentence)
        batch, rows, columns, width = x.shape
        places = jnp.asarray(grid_positions(rows, columns, width), x.dtype)[None]
        order = jnp.asarray(sine_positions(words.states.shape[1], width), x.dtype)[None]
        keys = words.states + order
        mask = words.valid[:, None, None]
        tokens = x.reshape(batch, rows * columns, width)
        for layer in self.layers:
            tokens = layer(tokens, places, keys, words.states, mask)
        features = self.norm(tokens).reshape(batch, rows, columns, width)
        logits = self.projector(features, words.sentence)
        return Decoded(resize_grid(logits[..., None], size, "bicubic", align_corners=True)[..., 0], features)


class Neck(nnx.Module):
    """A pyramid of three grids at C4's size: C5 multiplied by the sentence, joined with C4 and C3 (section 3.1)."""

    def __init__(self, config: CRISConfig, rngs: nnx.Rngs):
        low, middle, high = config.neck_widths
        c3, c4, c5 = config.vision.width * 8, config.vision.width * 16, config.vision.embedding_width
        self.sentence = Linear(c5, high, use_bias=False, rngs=rngs)
        self.sentence_norm = BatchNorm(high)
        self.enter5 = ConvNorm(c5, high, 1, rngs)
        self.joint_norm = BatchNorm(high)
        self.enter4 = ConvNorm(c4, middle, 3, rngs)
        self.join4 = ConvNorm(high + middle, middle, 1, rngs)
        self.enter3 = ConvNorm(c3, low, 3, rngs)
        self.join3 = ConvNorm(low + middle, middle, 1, rngs)
        self.leave5 = ConvNorm(high, middle, 3, rngs)
        self.leave4 = ConvNorm(middle, middle, 3, rngs)
        self.leave3 = ConvNorm(middle, middle, 3, rngs)
        self.aggregate = ConvNorm(3 * middle, middle, 1, rngs)
        self.locate = ConvNorm(middle + 2, middle, 3, rngs)
        self.last = ConvNorm(middle, middle, 3, rngs)

    def enter(self, grids: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """C3, C4 and C5 in the neck's widths, C3 at C4's size; this part needs no sentence."""
        relu = jax.nn.relu
        c3, c4, c5 = grids
        return average_pool(relu(self.enter3(c3)), 2), relu(self.enter4(c4)), relu(self.enter5(c5))

    def __call__(self, grids: tuple[Array, Array, Array], sentence: Array) -> Array:
        """From `enter`'s grids and (batch, embedding width) to (batch, rows, columns, middle width), at C4's size."""
        relu = jax.nn.relu
        f3, f4, f5 = grids
        gate = relu(self.sentence_norm(self.sentence(sentence)))[:, None, None]
        f5 = relu(self.joint_norm(f5 * gate))
        f4 = relu(self.join4(_concatenate(f4, double(f5))))
        f3 = relu(self.join3(_concatenate(f3, f4)))
        leaves = (relu(self.leave3(f3)), relu(self.leave4(f4)), double(relu(self.leave5(f5))))
        x = relu(self.aggregate(_concatenate(*leaves)))
        x = relu(self.locate(_concatenate(x, coordinates(x))))
        return relu(self.last(x))


class DecoderLayer(nnx.Module):
    """Self-attention of the cells, cross-attention to the words, and an MLP, all with LayerNorms (section 3.2)."""

    def __init__(self, config: CRISConfig, rngs: nnx.Rngs):
        width, heads, hidden = config.feature_width, config.decoder_heads, config.decoder_hidden
        self.norm1 = LayerNorm(width)
        self.self_attention = Attention(width, heads, rngs)
        self.self_norm = LayerNorm(width)
        self.norm2 = LayerNorm(width)
        self.cross_attention = Attention(width, heads, rngs)
        self.cross_norm = LayerNorm(width)
        self.norm3 = LayerNorm(width)
        self.up = Linear(width, hidden, rngs=rngs)
        self.hidden_norm = LayerNorm(hidden)
        self.down = Linear(hidden, width, rngs=rngs)

    def __call__(self, x: Array, places: Array, keys: Array, words: Array, mask: Array) -> Array:
        """One layer.

        Args:
          x: (batch, cells, width).
          places: (1, cells, width), positions of the cells.
          keys: (batch, length, width), the words with their positions.
          words: (batch, length, width).
          mask: (batch, 1, 1, length) bool, True for words to attend to.

        Returns:
          Like `x`.
        """
        y = self.norm1(x)
        x = x + self.self_norm(self.self_attention(y + places, (y + places, y)))
        x = x + self.cross_norm(self.cross_attention(self.norm2(x) + places, (keys, words), mask))
        return x + self.down(self.hidden_norm(jax.nn.relu(self.up(self.norm3(x)))))


class Projector(nnx.Module):
    """Enlarges the grid four times and convolves it with a projection of the sentence as kernel (section 3.3)."""

    def __init__(self, config: CRISConfig, rngs: nnx.Rngs):
        width = config.feature_width
        self.conv1 = ConvNorm(width, width, 3, rngs)
        self.conv2 = ConvNorm(width, width // 2, 3, rngs)
        self.conv3 = Conv(width // 2, width // 2, 1, rngs=rngs)
        self.sentence = Linear(config.vision.embedding_width, width // 2 * PROJECTOR_SIZE**2 + 1, rngs=rngs)

    def __call__(self, features: Array, sentence: Array) -> Array:
        """From (batch, rows, columns, width) and (batch, embedding width) to (batch, 4 * rows, 4 * columns)."""
        x = jax.nn.relu(self.conv1.of_doubled(features))
        x = self.conv3(jax.nn.relu(self.conv2.of_doubled(x)))
        weights = self.sentence(sentence)
        kernels = weights[:, :-1].reshape(x.shape[0], x.shape[-1], PROJECTOR_SIZE, PROJECTOR_SIZE)
        return convolve_each(x, kernels) + weights[:, -1, None, None]


def convolve_each(x: Array, kernels: Array) -> Array:
    """A convolution to one channel with another kernel for each sample, and zeros beyond the borders.

    A matrix product reduces the channels to one map for each offset of the kernel, and the shifted maps are added. This
    is faster than a convolution with one group for each sample.

    Args:
      x: (batch, rows, columns, channels).
      kernels: (batch, channels, size, size), size odd.

    Returns:
      (batch, rows, columns).
    """
    _, rows, columns, _ = x.shape
    size = kernels.shape[-1]
    maps = jnp.einsum("brcw,bwij->bijrc", x, kernels)
    border = (size // 2, size // 2)
    maps = jnp.pad(maps, ((0, 0), (0, 0), (0, 0), border, border))
    return sum(
        (maps[:, i, j, i : i + rows, j : j + columns] for i in range(size) for j in range(size)),
        start=jnp.zeros((), x.dtype),
    )


def double(x: Array) -> Array:
    """Twice the rows and columns, bilinear with half-pixel centres."""
    return resize_grid(x, (2 * x.shape[1], 2 * x.shape[2]), "bilinear")


def coordinates(x: Array) -> Array:
    """(batch, rows, columns, 2): each cell's x and y in [-1, 1], for a grid like `x`."""
    batch, rows, columns, _ = x.shape
    across, down = jnp.meshgrid(jnp.linspace(-1, 1, columns), jnp.linspace(-1, 1, rows))
    return jnp.broadcast_to(jnp.stack([across, down], axis=-1)[None], (batch, rows, columns, 2)).astype(x.dtype)


def sine_positions(length: int, width: int) -> np.ndarray:
    """(length, width) float32: sines in even channels, cosines in odd ones (Vaswani et al. 2017, section 3.5)."""
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width).astype(np.float32)


def grid_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """(rows * columns, width) float32: the first half of the channels for the column, the second for the row."""
    shape = (rows, columns, width // 2)
    across = np.broadcast_to(sine_positions(columns, width // 2)[None], shape)
    down = np.broadcast_to(sine_positions(rows, width // 2)[:, None], shape)
    return np.concatenate([across, down], axis=-1).reshape(rows * columns, width)


def _concatenate(*grids: Array) -> Array:
    """Grids of the same size, concatenated along their channels."""
    return jnp.concatenate(grids, axis=-1)
