"""SAM 3's instances of a concept (Carion et al. 2025): queries that refine their boxes layer by layer (Zhang et al.
2023, DINO), a token that says whether the concept is there at all, and a mask for each query (Cheng et al. 2021,
MaskFormer)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.features import Candidates
from tunevlseg_jax.models.layers import Attention, LayerNorm, Mlp
from tunevlseg_jax.models.products import Conv, Linear
from tunevlseg_jax.models.sam3_decoder import Encoded

SCORE = 0.5
"""Least score of the candidates that a mask joins, as in the published code."""
OUTSIDE = -20.0
"""Logit of a pixel that no chosen candidate marks, a probability of 2e-9."""
PRESENCE_LIMIT, SCORE_LIMIT = 10.0, 12.0
"""Largest absolute logits of the presence, and of a candidate's score."""
NEAR_EDGE = 1e-3
"""Least distance of a share from 0 and 1 in `_logit`."""


@dataclass(frozen=True)
class SAM3InstancesConfig:
    """Sizes of the part that finds instances; the defaults are facebook/sam3's.

    Attributes:
      layers: of the DETR decoder.
      heads: of its attentions.
      hidden: width of its MLPs' hidden layers.
      queries: number of candidates.
    """

    layers: int = 6
    heads: int = 8
    hidden: int = 2048
    queries: int = 200


class Instances(nnx.Module):
    """From the encoder's states and the last grid to candidates and presence."""

    def __init__(self, config: SAM3InstancesConfig, width: int, rngs: nnx.Rngs):
        self.query_embedding = embedding(config.queries, width, rngs)
        self.box_embedding = embedding(config.queries, 4, rngs)
        self.presence_embedding = embedding(1, width, rngs)
        self.layers = nnx.List(QueryLayer(width, config.heads, config.hidden, rngs) for _ in range(config.layers))
        self.query_norm = LayerNorm(width)
        self.presence_norm = LayerNorm(width)
        self.position = _linears((2 * width, width, width), rngs)
        self.bias_across = _linears((2, width, config.heads), rngs)
        self.bias_down = _linears((2, width, config.heads), rngs)
        self.box = _linears((width, width, width, 4), rngs)
        self.presence = _linears((width, width, width, 1), rngs)
        self.scoring = Scoring(width, config.hidden, rngs)
        self.mask = _linears((width,) * 4, rngs)
        self.pixels = Conv(width, width, 1, rngs=rngs)

    def __call__(self, encoded: Encoded, features: Array) -> tuple[Array, Candidates]:
        """Finds the candidates.

        Args:
          encoded: states of the encoder.
          features: (batch, rows, columns, width), the last grid.

        Returns:
          The logit of the presence, (batch,) float32, and the candidates.
        """
        batch = len(encoded.cells)
        tokens = jnp.concatenate([self.presence_embedding[...], self.query_embedding[...]])
        x = jnp.broadcast_to(tokens[None], (batch, *tokens.shape)).astype(encoded.cells.dtype)
        boxes = jax.nn.sigmoid(self.box_embedding[...].astype(jnp.float32))
        boxes = jnp.broadcast_to(boxes[None], (batch, *boxes.shape))
        queries, last = x[:, 1:], boxes
        for number, layer in enumerate(self.layers):
            # The gradient of a box reaches the layer before its own, and no earlier one.
            start = jax.lax.stop_gradient(boxes) if number else boxes
            position = _stacked(self.position, sine_boxes(start, x.shape[-1] // 2).astype(x.dtype))
            x = layer(x, jnp.pad(position, ((0, 0), (1, 0), (0, 0))), encoded, self._bias(start, encoded.grid))
            queries = self.query_norm(x[:, 1:])
            offset = _stacked(self.box, queries).astype(jnp.float32)
            boxes, last = jax.nn.sigmoid(_logit(start) + offset), jax.nn.sigmoid(_logit(boxes) + offset)
        presence = _stacked(self.presence, self.presence_norm(x[:, :1]))[:, 0, 0].astype(jnp.float32)
        presence = jnp.clip(presence, -PRESENCE_LIMIT, PRESENCE_LIMIT)
        logits = self.scoring(queries, encoded.words, encoded.valid)
        scores = jax.nn.sigmoid(logits) * jax.nn.sigmoid(presence)[:, None]
        kernels, pixels = _stacked(self.mask, queries), self.pixels(features)
        masks = jnp.einsum("bqw,brcw->bqrc", kernels, pixels, preferred_element_type=jnp.float32)
        return presence, Candidates(masks, corners(last), logits, scores)

    def _bias(self, boxes: Array, grid: tuple[int, int]) -> Array:
        """What a query's attention to each cell gains by the cell's place relative to the query's box.

        Returns:
          (batch, heads, 1 + queries, rows * columns) float32; 0 for the presence token, which comes first.
        """
        edges = corners(boxes)
        across = _stacked(self.bias_across, _distances(edges[..., 0::2], grid[1]))
        down = _stacked(self.bias_down, _distances(edges[..., 1::2], grid[0]))
        bias = down[:, :, :, None] + across[:, :, None]
        bias = bias.reshape(*boxes.shape[:2], grid[0] * grid[1], -1).transpose(0, 3, 1, 2)
        return jnp.pad(bias, ((0, 0), (0, 0), (1, 0), (0, 0)))


class QueryLayer(nnx.Module):
    """Attention of the queries to each other, to the words and to the cells, and an MLP; a LayerNorm after each sum."""

    def __init__(self, width: int, heads: int, hidden: int, rngs: nnx.Rngs):
        self.self_attention = Attention(width, heads, rngs)
        self.norm1 = LayerNorm(width)
        self.word_attention = Attention(width, heads, rngs)
        self.norm2 = LayerNorm(width)
        self.cell_attention = Attention(width, heads, rngs)
        self.norm3 = LayerNorm(width)
        self.mlp = Mlp(width, hidden, jax.nn.relu, rngs)
        self.norm4 = LayerNorm(width)

    def __call__(self, x: Array, position: Array, encoded: Encoded, bias: Array) -> Array:
        """From (batch, 1 + queries, width) to the same; `bias` is added to the scores of the cells."""
        words, cells = encoded.words, encoded.cells
        x = self.norm1(x + self.self_attention(x + position, (x + position, x)))
        x = self.norm2(x + self.word_attention(x + position, (words, words), encoded.valid[:, None, None]))
        x = self.norm3(x + self.cell_attention(x + position, (cells + encoded.places, cells), bias))
        return self.norm4(x + self.mlp(x))


class Scoring(nnx.Module):
    """Compares each query with the mean word."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.mlp = _linears((width, hidden, width), rngs)
        self.norm = LayerNorm(width)
        self.word = Linear(width, width, rngs=rngs)
        self.query = Linear(width, width, rngs=rngs)

    def __call__(self, queries: Array, words: Array, valid: Array) -> Array:
        """From (batch, queries, width), (batch, length, width) and (batch, length) to (batch, queries) float32."""
        words = self.norm(_stacked(self.mlp, words) + words)
        share = valid / jnp.maximum(valid.sum(axis=1, keepdims=True), 1)
        mean = jnp.einsum("bl,blw->bw", share.astype(words.dtype), words)
        scores = jnp.einsum("bqw,bw->bq", self.query(queries), self.word(mean), preferred_element_type=jnp.float32)
        return jnp.clip(scores * queries.shape[-1] ** -0.5, -SCORE_LIMIT, SCORE_LIMIT)


def union(candidates: Candidates) -> Array:
    """The model's own choice: logits of the union of the candidates with a score over `SCORE`.

    Returns:
      (batch, grid height, grid width) float32, the largest logit of the chosen ones, and `OUTSIDE` at least.
    """
    chosen = candidates.scores > SCORE
    return jnp.where(chosen[:, :, None, None], candidates.masks, OUTSIDE).max(axis=1, initial=OUTSIDE)


def sine_boxes(boxes: Array, width: int) -> Array:
    """Codes of boxes, (batch, queries, 4) as centre and size in 0..1, as (batch, queries, 4 * width) sines and cosines.

    Their order is row, column, width and height.
    """
    rates = 2 * np.pi * 10000.0 ** (-np.arange(0, width, 2) / width)
    angles = boxes[..., jnp.array([1, 0, 2, 3]), None] * jnp.asarray(rates, jnp.float32).reshape(1, 1, 1, -1)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*boxes.shape[:2], 4 * width)


def corners(boxes: Array) -> Array:
    """From boxes as centre and size to left, top, right and bottom; (..., 4)."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def embedding(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    """Random vectors, (rows, width) float32."""
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (rows, width), jnp.float32))


def _distances(edges: Array, cells: int) -> Array:
    """The signed logarithms of the distances of each cell from two edges, both in 0..1.

    From (batch, queries, 2) to (batch, queries, cells, 2).
    """
    starts = (jnp.arange(cells, dtype=jnp.float32) / cells).reshape(1, 1, -1, 1)
    distances = 8 * (starts - edges[:, :, None])
    return jnp.sign(distances) * jnp.log2(jnp.abs(distances) + 1) / 3


def _logit(share: Array) -> Array:
    """The logit of a share in 0..1, finite at its ends."""
    return jnp.log(jnp.maximum(share, NEAR_EDGE) / jnp.maximum(1 - share, NEAR_EDGE))


def _linears(widths: Sequence[int], rngs: nnx.Rngs) -> nnx.List:
    return nnx.List(Linear(a, b, rngs=rngs) for a, b in pairwise(widths))


def _stacked(layers: nnx.List, x: Array) -> Array:
    """Linear layers with a ReLU between two of them."""
    for number, layer in enumerate(layers):
        x = layer(jax.nn.relu(x) if number else x)
    return x
