"""SAM 3's path from image and words to the mask of a concept (Carion et al. 2025): an encoder in which the image
attends to the words (Carion et al. 2020, DETR), and a pixel decoder (Cheng et al. 2021, MaskFormer)."""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.features import Decoded, TextFeatures
from tunevlseg_jax.models.layers import EPSILON, Attention, LayerNorm, Mlp
from tunevlseg_jax.models.products import Conv, Linear
from tunevlseg_jax.models.resize import resize_grid

GROUPS = 8
"""Of the pixel decoder's GroupNorms."""


class Encoded(NamedTuple):
    """The states of the encoder, and what it read.

    Attributes:
      cells: (batch, rows * columns, width).
      places: (1, rows * columns, width), the positions of the cells.
      grid: (rows, columns).
      words: (batch, length, width).
      valid: (batch, length) bool, True for words to attend to.
    """

    cells: Array
    places: Array
    grid: tuple[int, int]
    words: Array
    valid: Array


class Decoder(nnx.Module):
    """From the grids of the pyramid and a phrase to one logit for each pixel."""

    def __init__(
        self,
        width: int,
        text_width: int,
        *,
        layers: int,
        heads: int,
        hidden: int,
        mask_heads: int,
        grids: int,
        rngs: nnx.Rngs,
    ):
        """Fresh weights.

        Args:
          width: of the pyramid and of everything here.
          text_width: of the words.
          layers: of the encoder.
          heads: of its attentions.
          hidden: width of its MLPs' hidden layers.
          mask_heads: of the attention to the words before the pixel decoder.
          grids: of the pyramid.
          rngs: random numbers.
        """
        self.words = Linear(text_width, width, rngs=rngs)
        self.layers = nnx.List(EncoderLayer(width, heads, hidden, rngs) for _ in range(layers))
        self.prompt_norm = LayerNorm(width)
        self.prompt_attention = Attention(width, mask_heads, rngs)
        self.pixels = nnx.List(PixelStage(width, rngs) for _ in range(grids - 1))
        self.semantic = Conv(width, 1, 1, rngs=rngs)

    def __call__(self, grids: tuple[Array, ...], text: TextFeatures, size: tuple[int, int]) -> tuple[Decoded, Encoded]:
        """Decodes.

        Args:
          grids: of the pyramid, finest first, (batch, rows, columns, width).
          text: features of the phrase of each image.
          size: (height, width) of the images in pixels.

        Returns:
          Logits at the images' size, the pixel embedding, which is the finest grid, and the states of the encoder.
        """
        *finer, coarsest = grids
        encoded = self.encode(coarsest, text)
        words, mask = encoded.words, encoded.valid[:, None, None]
        x = encoded.cells + self.prompt_attention(self.prompt_norm(encoded.cells), (words, words), mask)
        features = x.reshape(coarsest.shape)
        for stage, grid in zip(self.pixels, reversed(finer), strict=True):
            features = stage(features, grid)
        return Decoded(resize_grid(self.semantic(features), size, "bilinear")[..., 0], features), encoded

    def encode(self, grid: Array, text: TextFeatures) -> Encoded:
        """The DETR encoder; `grid` is (batch, rows, columns, width)."""
        batch, rows, columns, width = grid.shape
        words, mask = self.words(text.states), text.valid[:, None, None]
        places = jnp.asarray(sine_positions(rows, columns, width), grid.dtype)[None]
        x = grid.reshape(batch, rows * columns, width)
        for layer in self.layers:
            x = layer(x, places, words, mask)
        return Encoded(x, places, (rows, columns), words, text.valid)


class EncoderLayer(nnx.Module):
    """Self-attention of the cells, cross-attention to the words, and an MLP, each after a LayerNorm."""

    def __init__(self, width: int, heads: int, hidden: int, rngs: nnx.Rngs):
        self.norm1 = LayerNorm(width)
        self.self_attention = Attention(width, heads, rngs)
        self.norm2 = LayerNorm(width)
        self.cross_attention = Attention(width, heads, rngs)
        self.norm3 = LayerNorm(width)
        self.mlp = Mlp(width, hidden, jax.nn.relu, rngs)

    def __call__(self, x: Array, places: Array, words: Array, mask: Array) -> Array:
        """From (batch, cells, width) to the same; `places` are the (1, cells, width) positions of the cells."""
        y = self.norm1(x)
        x = x + self.self_attention(y + places, (y + places, y))
        x = x + self.cross_attention(self.norm2(x), (words, words), mask)
        return x + self.mlp(self.norm3(x))


class PixelStage(nnx.Module):
    """Enlarges the features to a finer grid, adds it, and mixes the neighbours."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.conv = Conv(width, width, 3, rngs=rngs)
        self.norm = GroupNorm(width)

    def __call__(self, x: Array, finer: Array) -> Array:
        """From (batch, rows, columns, width) to the shape of `finer`, which has twice the rows and columns."""
        # The convolution of the sum, by its parts: that of the finer grid is computed once for trials that share it.
        convolved = self.conv(finer) + self.conv.of_doubled(x, "nearest", use_bias=False)
        return jax.nn.relu(self.norm(convolved))


class GroupNorm(nnx.Module):
    """Normalises groups of neighbouring channels over the whole grid, in float32 (Wu and He 2018)."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Array) -> Array:
        """(batch, rows, columns, width), in the type of `x`."""
        full = x.astype(jnp.float32).reshape(*x.shape[:-1], GROUPS, -1)
        centred = full - full.mean(axis=(1, 2, 4), keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=(1, 2, 4), keepdims=True) + EPSILON)
        shape = (1, 1, 1, -1)
        return (normal.reshape(x.shape) * self.scale[...].reshape(shape) + self.bias[...].reshape(shape)).astype(
            x.dtype
        )


def sine_positions(rows: int, columns: int, width: int) -> np.ndarray:
    """(rows * columns, width) float32: the first half of the channels for the row, the second for the column.

    A position counts from 1 and is a share of the last one's, as an angle of at most 2 pi.
    """
    rates = 10000.0 ** (-np.arange(0, width // 2, 2) / (width // 2))

    def encoded(length: int) -> np.ndarray:
        angles = 2 * np.pi * np.arange(1, length + 1)[:, None] / (length + 1e-6) * rates
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width // 2)

    down = np.repeat(encoded(rows), columns, axis=0)
    across = np.tile(encoded(columns), (rows, 1))
    return np.concatenate([down, across], axis=-1).astype(np.float32)


def are_consecutive(scales: tuple[float, ...]) -> bool:
    """Whether each grid of a pyramid has twice the rows of the next, the coarsest as many as there are patches."""
    return bool(scales) and scales[-1] == 1 and scales[0] <= 4 and all(a == 2 * b for a, b in pairwise(scales))
