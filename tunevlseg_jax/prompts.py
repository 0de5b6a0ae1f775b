"""The contract between learners and models: prompts and other small changes are arrays that a tower takes in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
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


class TextTap(NamedTuple):
    """A second way from a text tower's block to the sentence vector: a bottleneck of the end token's state is added.

    Attributes:
      weight: float32 scalar, 1 where the bottleneck is in use and 0 beyond the depth.
      bottleneck: from the state to the part of the sentence vector.
    """

    weight: Array
    bottleneck: Bottleneck


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


def join(first: BlockChange, second: BlockChange) -> BlockChange:
    """Both changes of a block; of a part that both have, the second's."""
    return BlockChange(
        low_rank={**first.low_rank, **second.low_rank},
        dropout=second.dropout or first.dropout,
        after_attention=second.after_attention or first.after_attention,
        after_mlp=second.after_mlp or first.after_mlp,
        bias={**first.bias, **second.bias},
        scale={**first.scale, **second.scale},
    )


class LinearHead(NamedTuple):
    """A linear layer from the decoder's last grid to logits, resized to the image, in place of the decoder's own.

    Attributes:
      kernel: (feature width, 1).
      bias: (1,).
    """

    kernel: Array
    bias: Array


Stage = Literal["text", "vision", "decoder"]


class Prompts(NamedTuple):
    """The prompts and the other changes that a learner gives to a model; None leaves a part alone.

    Attributes:
      text: (max_depth, 1 or batch, num_context, text width), or None to leave the text tower alone.
      vision: (max_depth, 1 or batch, num_context, vision width), or None to leave the vision tower alone.
      depth: int32 scalar in 1..max_depth: block k takes prompt k where k < depth and carries the tokens otherwise.
        A value, not a shape, so that another depth compiles nothing.
      vision_depth: the depth of `vision`, where it isn't `depth`.
      text_blocks: changes of the text tower's blocks.
      vision_blocks: changes of the vision tower's blocks.
      taps: changes of the vision tower's states before the decoder reads them, by the number of the tap from the
        shallowest, 0.
      text_taps: ways from the text tower's block of the same number as a tap's to the sentence vector, by the number of
        the tap as in `taps`.
      sentence: change of the sentence vector, between the text tower and the decoder.
      offsets: differences of biases and scales outside of the towers' blocks, by stage and by path within it.
      head: computes the logits in place of the decoder's last layers.
    """

    text: Array | None = None
    vision: Array | None = None
    depth: Array | int = 0
    vision_depth: Array | int | None = None
    text_blocks: BlockChanges | None = None
    vision_blocks: BlockChanges | None = None
    taps: Mapping[int, Bottleneck] | None = None
    text_taps: Mapping[int, TextTap] | None = None
    sentence: Bottleneck | None = None
    offsets: Mapping[Stage, Mapping[str, Array]] | None = None
    head: LinearHead | None = None


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
      sentence_width: width of the sentence vector; None where the decoder doesn't read it.
      vision_width: width of the vision tower's tokens; None where the model takes no vision prompts.
      vision_blocks: number of blocks in the vision tower.
      vision_hidden: width of the hidden layer of the vision blocks' MLPs.
      effective_vision_prompts: how many vision prompts, counted from the first, can reach the mask.
      effective_vision_blocks: how many vision blocks, counted from the first, reach the mask.
      taps: number of the vision tower's states that the decoder reads.
      text_taps: number of those for which the text tower has a state that can be added to the sentence vector.
      feature_width: width of the decoder's last grid.
      embed_phrase: from a phrase to the embeddings of its tokens, (num_tokens, text width).
      vectors: from a stage to the widths of its biases and scales outside of blocks, by path within it; only those that
        a learner may change by `Prompts.offsets`.
    """

    text_width: int
    text_blocks: int
    text_hidden: int
    image_width: int
    sentence_width: int | None
    vision_width: int | None
    vision_blocks: int
    vision_hidden: int
    effective_vision_prompts: int
    effective_vision_blocks: int
    taps: int
    text_taps: int
    feature_width: int
    embed_phrase: Callable[[str], Array]
    vectors: Callable[[Stage], Mapping[str, int]]
