"""The contract between learners and models: prompts and other small changes are arrays that a tower takes in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class LowRank(NamedTuple):
    """A path beside a frozen product: x @ W becomes x @ W + (x @ down) @ up; the sum W + down @ up is never formed.

    Attributes:
      down: (inputs, rank).
      up: (rank, outputs), already scaled.
    """

    down: Array
    up: Array


class Bottleneck(NamedTuple):
    """Two small layers around a residual: h becomes h + relu(relu(h @ down + down_bias) @ up + up_bias).

    Attributes:
      down: (width, hidden).
      down_bias: (hidden,).
      up: (hidden, width).
      up_bias: (width,).
    """

    down: Array
    down_bias: Array
    up: Array
    up_bias: Array


class Dropout(NamedTuple):
    """Dropout with a rate that is a value.

    Attributes:
      rate: float32 scalar.
      key: of the random numbers.
    """

    rate: Array
    key: Array


class BlockChange(NamedTuple):
    """The changes of one transformer block; a part without a value is left alone.

    Attributes:
      low_rank: paths beside the products "query", "key", "value", "out", "up" and "down".
      dropout: of the inputs of the low-rank paths.
      after_attention: applied to the attention's output, before its residual sum.
      after_mlp: applied to the MLP's output, before its residual sum.
      bias: differences of the biases of the products and of "norm1" and "norm2".
      scale: differences of the scales of "norm1" and "norm2".
    """

    low_rank: Mapping[str, LowRank] = {}
    dropout: Dropout | None = None
    after_attention: Bottleneck | None = None
    after_mlp: Bottleneck | None = None
    bias: Mapping[str, Array] = {}
    scale: Mapping[str, Array] = {}


BlockChanges = Mapping[int, BlockChange]
"""The changes of a tower by the number of the block, from 0; or from the last block that reaches the mask, which is -1.
Depth is in their values: a learner gives zeros for the blocks beyond it."""


class Prompts(NamedTuple):
    """The prompts and the other changes that a learner gives to a model; None leaves a part alone.

    Attributes:
      text: (max_depth, 1 or batch, num_context, text width), or None to leave the text tower alone.
      vision: (max_depth, 1 or batch, num_context, vision width), or None to leave the vision tower alone.
      depth: int32 scalar in 1..max_depth: block k takes prompt k where k < depth and carries the tokens otherwise.
        A value, not a shape, so that another depth compiles nothing.
      vision_depth: that of the vision tower; None for `depth`.
      text_blocks: changes of the text tower's blocks.
      vision_blocks: changes of the vision tower's blocks.
      taps: changes of the vision tower's states before the decoder reads them, by the number of the tap from the
        shallowest, 0.
      sentence: change of the sentence vector, between the text tower and the decoder.
    """

    text: Array | None = None
    vision: Array | None = None
    depth: Array | int = 0
    vision_depth: Array | int | None = None
    text_blocks: BlockChanges | None = None
    vision_blocks: BlockChanges | None = None
    taps: Mapping[int, Bottleneck] | None = None
    sentence: Bottleneck | None = None


class Outputs(NamedTuple):
    """What a network computes for a batch, as far as a learner's regulariser may read it.

    Attributes:
      logits: (batch, height, width) float32.
      sentence: (phrases, embedding width) float32, the sentence vector of each distinct phrase; of each image's phrase
        for a learner that computes text prompts for each image.
      image: (batch, image width) float32, the pooled image vectors.
    """

    logits: Array
    sentence: Array
    image: Array


@dataclass(frozen=True)
class ModelSpec:
    """The facts about a model that a learner needs.

    Attributes:
      text_width: width of the text tower's tokens.
      text_blocks: number of blocks in the text tower.
      text_hidden: width of the hidden layer of the text blocks' MLPs.
      image_width: width of the pooled image vector.
      vision_width: width of the vision tower's tokens; None where the model takes no vision prompts.
      vision_blocks: number of blocks in the vision tower.
      vision_hidden: width of the hidden layer of the vision blocks' MLPs.
      effective_vision_prompts: how many vision prompts, counted from the first, can reach the mask.
      effective_vision_blocks: how many vision blocks, counted from the first, reach the mask.
      taps: number of the vision tower's states that the decoder reads.
      embed_phrase: from a phrase to the embeddings of its tokens, (num_tokens, text width).
    """

    text_width: int
    text_blocks: int
    text_hidden: int
    image_width: int
    vision_width: int | None
    vision_blocks: int
    vision_hidden: int
    effective_vision_prompts: int
    effective_vision_blocks: int
    taps: int
    embed_phrase: Callable[[str], Array]


def insert(tokens: Array, prompts: Array | None, position: int) -> Array:
    """Splices prompt 0 in, before the first block.

    Args:
      tokens: (batch, length, width).
      prompts: (max_depth, 1 or batch, num_context, width) or None.
      position: index of the first prompt token in the result; the tokens from there on move back.

    Returns:
      (batch, length + num_context, width), in the type of `tokens`.
    """
    if prompts is None:
        return tokens
    first = _row(prompts, 0, tokens)
    return jnp.concatenate([tokens[:, :position], first, tokens[:, position:]], axis=1)


def inject(
    tokens: Array, prompts: Array | None, depth: Array | int, block: int, position: int, *, offset: int = 0
) -> Array:
    """Puts a prompt over the tokens at `position`, before block `block` > 0, while there are prompts left.

    Args:
      tokens: (batch, length, width), prompt 0 already inside.
      prompts: (max_depth, 1 or batch, num_context, width) or None.
      depth: number of prompts in use, int32 scalar.
      block: index of the block that reads the result.
      position: index of the first prompt token.
      offset: the block takes prompt `block` - `offset`, where that is in 0..`depth` - 1.

    Returns:
      (batch, length, width).
    """
    row = block - offset
    if prompts is None or not 0 <= row < prompts.shape[0]:
        return tokens
    end = position + prompts.shape[2]
    carried = tokens[:, position:end]
    taken = jnp.where(row < depth, _row(prompts, row, tokens), carried)
    return jnp.concatenate([tokens[:, :position], taken, tokens[:, end:]], axis=1)


def _row(prompts: Array, row: int, tokens: Array) -> Array:
    """Prompt `row` for every image of the batch, in the type of `tokens`."""
    shape = (tokens.shape[0], *prompts.shape[2:])
    return jnp.broadcast_to(prompts[row], shape).astype(tokens.dtype)
