"""SAM 3's vision tower: a ViT with windowed and global attention and rotary positions, and a simple feature pyramid
(Carion et al. 2025; the ViT is Perception Encoder's, Bolya et al. 2025; the pyramid is ViTDet's, Li et al. 2022)."""

import math
from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from tunevlseg_jax.models.changes import UNCHANGED, bottleneck, of_block
from tunevlseg_jax.models.clip import rematerialised
from tunevlseg_jax.models.insertion import inject, insert
from tunevlseg_jax.models.layers import Attention, LayerNorm, Mlp, gelu
from tunevlseg_jax.models.products import Conv, Linear, Unfold
from tunevlseg_jax.models.rotary import axial_rotation
from tunevlseg_jax.models.settings import Recompute
from tunevlseg_jax.models.windows import join, partition
from tunevlseg_jax.prompts import BlockChange, Bottleneck, Prompts

EPSILON = 1e-6
"""Of the ViT's LayerNorms."""


@dataclass(frozen=True)
class SAM3VisionConfig:
    """Sizes of the vision tower; the defaults are facebook/sam3's.

    Attributes:
      image_size: side in pixels of the images that the stored positions are for; larger images repeat them.
      window: side of a window in patches.
      global_blocks: the blocks that attend to the whole image; the others attend within windows.
      scales: of the grids of the pyramid, relative to the patches; each of 4, 2, 1 and 0.5, in descending order.
    """

    width: int = 1024
    blocks: int = 32
    heads: int = 16
    hidden: int = 4736
    patch: int = 14
    image_size: int = 336
    window: int = 24
    global_blocks: tuple[int, ...] = (7, 15, 23, 31)
    scales: tuple[float, ...] = (4.0, 2.0, 1.0)


class VisionTower(nnx.Module):
    """The ViT and its pyramid, for any image whose sides are multiples of the patch."""

    def __init__(self, config: SAM3VisionConfig, pyramid_width: int, rngs: nnx.Rngs):
        self.config = config
        normal = nnx.initializers.normal(0.02)
        self.position_embedding = nnx.Param(
            normal(rngs.params(), ((config.image_size // config.patch) ** 2, config.width))
        )
        self.patch_embedding = Linear(3 * config.patch**2, config.width, use_bias=False, rngs=rngs)
        self.pre_norm = LayerNorm(config.width, EPSILON)
        self.blocks = nnx.List(VisionBlock(config, number, rngs) for number in range(config.blocks))
        self.pyramid = nnx.List(Level(config.width, pyramid_width, scale, rngs) for scale in config.scales)

    def __call__(self, images: Array, prompts: Prompts, recompute: Recompute = "nothing") -> tuple[Array, Array]:
        """Encodes images.

        Args:
          images: (batch, height, width, 3), normalised; each side a multiple of the patch.
          prompts: `prompts.vision` is inserted after the patches, without positions, before the first norm;
            `prompts.vision_blocks` changes the blocks, and `prompts.taps` the last block's output.
          recompute: "elementwise" stores the products with weights for the backward pass, "blocks" only the input of
            each block.

        Returns:
          The patches after the last block as a grid, (batch, rows, columns, width), and their mean, (batch, width).

        Raises:
          ValueError: the patch doesn't divide the image.
        """
        grid, x = self._patches(images)
        end = x.shape[1]
        depth = prompts.depth if prompts.vision_depth is None else prompts.vision_depth
        x = self.pre_norm(insert(x, prompts.vision, end))
        for number, block in enumerate(self.blocks):
            if number > 0:
                x = inject(x, prompts.vision, depth, number, end)
            change = of_block(prompts.vision_blocks, number, len(self.blocks))
            x = rematerialised(partial(block, grid=grid, change=change), recompute)(x)
        x = bottleneck(x[:, :end], _last(prompts))
        return x.reshape(x.shape[0], *grid, x.shape[-1]), x.mean(axis=1)

    def grids(self, cells: Array) -> tuple[Array, ...]:
        """The pyramid of the last block's grid: grids of (batch, rows, columns, pyramid width), finest first."""
        return tuple(level(cells) for level in self.pyramid)

    def _patches(self, images: Array) -> tuple[tuple[int, int], Array]:
        """The grid of an image, and its embedded patches with their positions, (batch, rows * columns, width)."""
        batch, height, width, _ = images.shape
        patch = self.config.patch
        if height % patch or width % patch:
            raise ValueError(f"an image of {height}x{width} pixels is not a multiple of the patch, {patch}")
        rows, columns = height // patch, width // patch
        patches = images.reshape(batch, rows, patch, columns, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = self.patch_embedding(patches.reshape(batch, rows * columns, -1))
        side = math.isqrt(self.position_embedding.shape[0])
        stored = self.position_embedding[...].reshape(side, side, -1)
        down, across = np.arange(rows) % side, np.arange(columns) % side
        return (rows, columns), x + stored[down][:, across].reshape(1, rows * columns, -1)


class VisionBlock(nnx.Module):
    """A pre-norm transformer block that attends within windows or to the whole image, with rotary positions.

    Within windows, each window attends to a copy of the prompts of its own, and the mean of the copies goes on.
    """

    def __init__(self, config: SAM3VisionConfig, number: int, rngs: nnx.Rngs):
        self.window = config.window
        self.everywhere = number in config.global_blocks
        self.norm1 = LayerNorm(config.width, EPSILON)
        self.attention = Attention(config.width, config.heads, rngs)
        self.norm2 = LayerNorm(config.width, EPSILON)
        self.mlp = Mlp(config.width, config.hidden, gelu, rngs)

    def __call__(self, x: Array, grid: tuple[int, int], change: BlockChange = UNCHANGED) -> Array:
        """From (batch, rows * columns + num_context, width) to the same; `grid` has rows and columns."""
        attend = self._attend_everywhere if self.everywhere else self._attend_in_windows
        attended = attend(self.norm1(x, change, "norm1"), grid, change)
        x = x + bottleneck(attended, change.after_attention)
        return x + bottleneck(self.mlp(self.norm2(x, change, "norm2"), change), change.after_mlp)

    def _attend_everywhere(self, x: Array, grid: tuple[int, int], change: BlockChange) -> Array:
        rows, columns = grid
        # The grid takes the positions of a single window, in smaller or larger steps.
        step, prompts = self.window / columns, x.shape[1] - rows * columns
        rotation = axial_rotation(rows, columns, x.shape[-1] // self.attention.heads, step, prompts)
        return self.attention(x, change=change, rotation=rotation)

    def _attend_in_windows(self, x: Array, grid: tuple[int, int], change: BlockChange) -> Array:
        batch, cells, side = x.shape[0], grid[0] * grid[1], self.window
        windows, prompts = partition(x[:, :cells], grid, side), x[:, None, cells:]
        number, num_context = windows.shape[1], prompts.shape[2]
        copies = jnp.broadcast_to(prompts, (batch, number, *prompts.shape[2:]))
        y = jnp.concatenate([windows, copies], axis=2).reshape(batch * number, side**2 + num_context, -1)
        rotation = axial_rotation(side, side, x.shape[-1] // self.attention.heads, without=num_context)
        y = self.attention(y, change=change, rotation=rotation).reshape(batch, number, side**2 + num_context, -1)
        patches = join(y[:, :, : side**2], grid, side)
        return jnp.concatenate([patches, y[:, :, side**2 :].mean(axis=1)], axis=1) if num_context else patches


class Level(nnx.Module):
    """A grid of the pyramid: transposed convolutions to its scale, then a 1x1 and a 3x3 convolution."""

    def __init__(self, width: int, out_width: int, scale: float, rngs: nnx.Rngs):
        self.unfolds = nnx.List(Unfold(width >> i, width >> (i + 1), 2, rngs) for i in range(int(math.log2(scale))))
        self.project = Conv(width >> len(self.unfolds), out_width, 1, rngs=rngs)
        self.smooth = Conv(out_width, out_width, 3, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """From (batch, rows, columns, width) to (batch, scale * rows, scale * columns, out width)."""
        for number, unfold in enumerate(self.unfolds):
            x = unfold(x if number == 0 else gelu(x))
        return self.smooth(self.project(x))


def _last(prompts: Prompts) -> Bottleneck | None:
    """The change of the only state that the decoder reads."""
    return (prompts.taps or {}).get(0)
