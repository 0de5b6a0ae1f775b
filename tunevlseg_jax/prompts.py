"""The contract between learners and models: prompts are arrays that a tower inserts before its blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array


class Prompts(NamedTuple):
    """The prompts that a learner gives to a model.

    Attributes:
      text: (max_depth, 1 or batch, num_context, text width), or None to leave the text tower alone.
      vision: (max_depth, 1 or batch, num_context, vision width), or None to leave the vision tower alone.
      depth: int32 scalar in 1..max_depth: block k takes prompt k where k < depth and carries the tokens otherwise.
        A value, not a shape, so that another depth compiles nothing.
    """

    text: Array | None = None
    vision: Array | None = None
    depth: Array | int = 0


@dataclass(frozen=True)
class ModelSpec:
    """The facts about a model that a learner needs.

    Attributes:
      text_width: width of the text tower's tokens.
      text_blocks: number of blocks in the text tower.
      image_width: width of the pooled image vector.
      vision_width: width of the vision tower's tokens; None where the model takes no vision prompts.
      vision_blocks: number of blocks in the vision tower.
      effective_vision_prompts: how many vision prompts, counted from the first, can reach the mask.
      embed_phrase: from a phrase to the embeddings of its tokens, (num_tokens, text width).
    """

    text_width: int
    text_blocks: int
    image_width: int
    vision_width: int | None
    vision_blocks: int
    effective_vision_prompts: int
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
