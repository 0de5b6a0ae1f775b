"""Puts a learner's prompts among the tokens of a tower."""

import jax.numpy as jnp
from jax import Array


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
