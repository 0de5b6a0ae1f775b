"""CLIP's text tower and vision transformer (Radford et al. 2021, section 2.4), with places for prompts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tunevlseg_jax.models.changes import bottleneck, of_block
from tunevlseg_jax.models.features import TextFeatures
from tunevlseg_jax.models.insertion import inject, insert
from tunevlseg_jax.models.layers import Activation, Block, LayerNorm, gelu, quick_gelu
from tunevlseg_jax.models.products import Linear
from tunevlseg_jax.models.resize import resize_positions
from tunevlseg_jax.models.settings import Recompute
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.runtime import schema

TOKEN_EMBEDDING = "text_tower/token_embedding"
"""Path of the token embeddings among a model's weights; the model's text tower is its `text_tower`."""
LEGACY_END_TOKEN = 2
"""Configurations of OpenAI's checkpoints give 2 as the end token; the real one is then the largest id."""
ActivationName = Literal["quick_gelu", "gelu"]
ACTIVATIONS: dict[ActivationName, Activation] = {"quick_gelu": quick_gelu, "gelu": gelu}


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
    activation: ActivationName = schema.added("quick_gelu")


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
    """CLIP's causal text transformer; the state at the end token represents the sentence."""

    def __init__(
        self,
        config: TextConfig,
        embedding_width: int,
        rngs: nnx.Rngs,
        prompt_offset: int = 0,
        taps: tuple[int, ...] = (),
    ):
        """Fresh weights.

        Block 0 takes text prompt 0, and block k > 0 takes text prompt k - `prompt_offset`; `taps` are the blocks after
        which `Prompts.text_taps` read the state.
        """
        self.config = config
        self.prompt_offset = prompt_offset
        self.taps = taps
        normal = nnx.initializers.normal(0.02)
        self.token_embedding = nnx.Param(normal(rngs.params(), (config.vocabulary, config.width)))
        self.position_embedding = nnx.Param(normal(rngs.params(), (config.context_length, config.width)))
        activation = ACTIVATIONS[config.activation]
        self.blocks = nnx.List(
            Block(config.width, config.heads, config.hidden, activation, rngs) for _ in range(config.blocks)
        )
        self.final_norm = LayerNorm(config.width)
        self.projection = Linear(config.width, embedding_width, use_bias=False, rngs=rngs)

    def __call__(self, tokens: Array, prompts: Prompts) -> TextFeatures:
        """Encodes phrases.

        Args:
          tokens: (batch, length) int32, start token first; padding follows the end token.
          prompts: `prompts.text` is inserted after the start token, before the positions are added;
            `prompts.text_blocks` changes the blocks, `prompts.text_taps` the sentence vector.

        Returns:
          Features of length + num_context positions.

        Raises:
          ValueError: there are more positions than the tower has.
        """
        x = insert(self.token_embedding[...][tokens], prompts.text, 1)
        length = x.shape[1]
        if length > self.config.context_length:
            raise ValueError(f"{length} text positions, more than the tower's {self.config.context_length}")
        x = x + self.position_embedding[...][None, :length]
        end = self._end(tokens) + length - tokens.shape[1]
        valid = jnp.arange(length)[None] <= end[:, None]
        mask = jnp.tril(jnp.ones((length, length), bool))[None, None] & valid[:, None, None]
        rows, added = jnp.arange(x.shape[0]), []
        for number, block in enumerate(self.blocks):
            if number > 0:
                x = inject(x, prompts.text, prompts.depth, number, 1, offset=self.prompt_offset)
            x = block(x, mask, of_block(prompts.text_blocks, number, len(self.blocks)))
            if number in self.taps and (tap := (prompts.text_taps or {}).get(self.taps.index(number))):
                added.append(tap.weight.astype(x.dtype) * bottleneck(x[rows, end], tap.bottleneck))
        states = self.final_norm(x)
        return TextFeatures(states, sum(added, start=self.projection(states[rows, end])), valid)

    def _end(self, tokens: Array) -> Array:
        """(batch,) position of the end token."""
        if self.config.end_token == LEGACY_END_TOKEN:
            return tokens.argmax(axis=-1)
        return (tokens == self.config.end_token).argmax(axis=-1)


class VisionTower(nnx.Module):
    """CLIP's vision transformer, for any image whose sides are multiples of the patch."""

    def __init__(self, config: VisionConfig, embedding_width: int, rngs: nnx.Rngs, effective_blocks: int | None = None):
        """Fresh weights; `effective_blocks` of the blocks reach the mask, by default all."""
        self.config = config
        self.effective_blocks = effective_blocks or config.blocks
        normal = nnx.initializers.normal(0.02)
        positions = (config.image_size // config.patch) ** 2 + 1
        self.class_embedding = nnx.Param(normal(rngs.params(), (config.width,)))
        self.position_embedding = nnx.Param(normal(rngs.params(), (positions, config.width)))
        self.patch_embedding = Linear(3 * config.patch**2, config.width, use_bias=False, rngs=rngs)
        self.pre_norm = LayerNorm(config.width)
        self.blocks = nnx.List(
            Block(config.width, config.heads, config.hidden, quick_gelu, rngs) for _ in range(config.blocks)
        )
        self.post_norm = LayerNorm(config.width)
        self.projection = Linear(config.width, embedding_width, use_bias=False, rngs=rngs)

    def __call__(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> tuple[list[Array], Array]:
        """Encodes images.

        Args:
          images: (batch, height, width, 3), normalised; each side a multiple of the patch.
          prompts: `prompts.vision` is inserted after the patches, without positions, before the first norm;
            `prompts.vision_blocks` changes the blocks.
          recompute: "elementwise" stores the products with weights for the backward pass, "blocks" only the input of
            each block.

        Returns:
          The output of every block with the next block's prompt already in it, (batch, 1 + patches + num_context,
          vision width), and the pooled image vector, (batch, embedding width). XLA removes blocks whose output is
          unused.

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
        depth = prompts.depth if prompts.vision_depth is None else prompts.vision_depth
        first = jnp.broadcast_to(self.class_embedding[...][None, None], (batch, 1, x.shape[-1])).astype(x.dtype)
        positions = self.position_embedding[...]
        positions = jnp.concatenate([positions[:1], resize_positions(positions[1:], grid)])
        x = jnp.concatenate([first, x], axis=1) + positions[None]
        end = x.shape[1]
        x = self.pre_norm(insert(x, prompts.vision, end))
        states = []
        for number, block in enumerate(self.blocks):
            change = of_block(prompts.vision_blocks, number, self.effective_blocks)
            # The decoder reads the state with the next prompt in it, as the next block does.
            x = rematerialised(partial(block, change=change), recompute)(x)
            x = inject(x, prompts.vision, depth, number + 1, end)
            states.append(x)
        return states, self.projection(self.post_norm(x[:, 0]))


def rematerialised(block: Callable[[Array], Array], recompute: Recompute) -> Callable[[Array], Array]:
    """A block with fewer activations stored for the backward pass."""
    if recompute == "nothing":
        return block
    policies = jax.checkpoint_policies
    policy = policies.nothing_saveable if recompute == "blocks" else policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(block, policy=policy)
