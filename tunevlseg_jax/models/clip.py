"""CLIP's text tower and vision transformer, each open to prompts (Radford et al. 2021, section 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tunevlseg_jax.models.features import TextFeatures
from tunevlseg_jax.models.layers import Block, LayerNorm, quick_gelu
from tunevlseg_jax.models.resize import resize_grid
from tunevlseg_jax.prompts import Prompts, inject, insert

Recompute = Literal["nothing", "elementwise", "blocks"]
"""What the way back through a block makes anew instead of keeping it from the way forward."""
TOKEN_EMBEDDING = "text_tower/token_embedding"
"""Path of the token embeddings among a model's weights; the model's text tower is its `text_tower`."""
LEGACY_END_TOKEN = 2
"""Configurations of OpenAI's checkpoints give 2 as the end token; the real one is then the largest id."""


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a text tower; the defaults are CLIP ViT-B/16's."""

    width: int = 512
    blocks: int = 12
    heads: int = 8
    hidden: int = 2048
    vocabulary: int = 49408
    context_length: int = 77
    end_token: int = LEGACY_END_TOKEN


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of a vision tower; the defaults are CLIP ViT-B/16's. `image_size` is that of the stored positions."""

    width: int = 768
    blocks: int = 12
    heads: int = 12
    hidden: int = 3072
    patch: int = 16
    image_size: int = 224


class TextTower(nnx.Module):
    """CLIP's text transformer: causal, read at the end token."""

    def __init__(self, config: TextConfig, embedding_width: int, rngs: nnx.Rngs, prompt_offset: int = 0):
        """Fresh weights; block k > 0 takes text prompt k - `prompt_offset`, and block 0 always prompt 0."""
        self.config = config
        self.prompt_offset = prompt_offset
        normal = nnx.initializers.normal(0.02)
        self.token_embedding = nnx.Param(normal(rngs.params(), (config.vocabulary, config.width)))
        self.position_embedding = nnx.Param(normal(rngs.params(), (config.context_length, config.width)))
        self.blocks = nnx.List(
            Block(config.width, config.heads, config.hidden, quick_gelu, rngs) for _ in range(config.blocks)
        )
        self.final_norm = LayerNorm(config.width)
        self.projection = nnx.Linear(config.width, embedding_width, use_bias=False, rngs=rngs)

    def __call__(self, tokens: Array, prompts: Prompts) -> TextFeatures:
        """Reads prompts.

        Args:
          tokens: (batch, length) int32, start token first; what follows the end token is padding.
          prompts: `prompts.text` goes in after the start token, before the positions are added.

        Returns:
          `Words` of length + num_context positions.

        Raises:
          ValueError: more positions than the tower has.
        """
        x = insert(self.token_embedding[...][tokens], prompts.text, 1)
        length = x.shape[1]
        if length > self.config.context_length:
            raise ValueError(f"{length} text positions, more than the tower's {self.config.context_length}")
        x = x + self.position_embedding[...][None, :length]
        end = self._end(tokens) + length - tokens.shape[1]
        valid = jnp.arange(length)[None] <= end[:, None]
        mask = jnp.tril(jnp.ones((length, length), bool))[None, None] & valid[:, None, None]
        for number, block in enumerate(self.blocks):
            if number > 0:
                x = inject(x, prompts.text, prompts.depth, number, 1, offset=self.prompt_offset)
            x = block(x, mask)
        states = self.final_norm(x)
        return TextFeatures(states, self.projection(states[jnp.arange(x.shape[0]), end]), valid)

    def _end(self, tokens: Array) -> Array:
        """(batch,) position of the end token."""
        if self.config.end_token == LEGACY_END_TOKEN:
            return tokens.argmax(axis=-1)
        return (tokens == self.config.end_token).argmax(axis=-1)


class VisionTower(nnx.Module):
    """CLIP's vision transformer on any image that its patch divides."""

    def __init__(self, config: VisionConfig, embedding_width: int, rngs: nnx.Rngs):
        self.config = config
        normal = nnx.initializers.normal(0.02)
        positions = (config.image_size // config.patch) ** 2 + 1
        self.class_embedding = nnx.Param(normal(rngs.params(), (config.width,)))
        self.position_embedding = nnx.Param(normal(rngs.params(), (positions, config.width)))
        self.patch_embedding = nnx.Linear(3 * config.patch**2, config.width, use_bias=False, rngs=rngs)
        self.pre_norm = LayerNorm(config.width)
        self.blocks = nnx.List(
            Block(config.width, config.heads, config.hidden, quick_gelu, rngs) for _ in range(config.blocks)
        )
        self.post_norm = LayerNorm(config.width)
        self.projection = nnx.Linear(config.width, embedding_width, use_bias=False, rngs=rngs)

    def __call__(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> tuple[list[Array], Array]:
        """Looks at images.

        Args:
          images: (batch, height, width, 3), normalised; each side a multiple of the patch.
          prompts: `prompts.vision` goes in behind the patches, without positions, before the first norm.
          recompute: "elementwise" keeps the results of matrix products with weights for the way back, "blocks" only
            what goes from block to block.

        Returns:
          The output of every block with the next one's prompt already in it, (batch, 1 + patches + num_context,
          vision width), and the pooled image vector, (batch, embedding width). What goes unread costs nothing: XLA
          drops it.

        Raises:
          ValueError: the patch doesn't divide the image.
        """
        batch, height, width, _ = images.shape
        patch = self.config.patch
        if height % patch or width % patch:
            raise ValueError(f"an image of {height}x{width} pixels is not a multiple of the patch, {patch}")
        grid = (height // patch, width // patch)
        patches = images.reshape(batch, grid[0], patch, grid[1], patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = self.patch_embedding(patches.reshape(batch, grid[0] * grid[1], -1))
        first = jnp.broadcast_to(self.class_embedding[...][None, None], (batch, 1, x.shape[-1])).astype(x.dtype)
        x = jnp.concatenate([first, x], axis=1) + self._positions(grid)[None]
        end = x.shape[1]
        x = self.pre_norm(insert(x, prompts.vision, end))
        states = []
        for number, block in enumerate(self.blocks):
            # The next prompt goes in before the state is handed out: a decoder sees what the next block sees.
            x = inject(_kept(block, recompute)(x), prompts.vision, prompts.depth, number + 1, end)
            states.append(x)
        return states, self.projection(self.post_norm(x[:, 0]))

    def _positions(self, grid: tuple[int, int]) -> Array:
        """(1 + patches, width) position embeddings, resized to the patch grid as PyTorch's bicubic does."""
        stored = self.position_embedding[...]
        side = self.config.image_size // self.config.patch
        if grid == (side, side):
            return stored
        resized = resize_grid(stored[1:].reshape(side, side, -1).astype(jnp.float32), grid, "bicubic")
        return jnp.concatenate([stored[:1], resized.reshape(grid[0] * grid[1], -1).astype(stored.dtype)])


def _kept(block: Block, recompute: Recompute) -> Callable[[Array], Array]:
    """The block, keeping less for the way back."""
    if recompute == "nothing":
        return block
    policies = jax.checkpoint_policies
    kept = policies.nothing_saveable if recompute == "blocks" else policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(lambda x: block(x), policy=kept)
