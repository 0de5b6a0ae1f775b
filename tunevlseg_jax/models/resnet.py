"""CLIP's modified ResNet (Radford et al. 2021, section 2.3), with an attention pool that keeps the grid as in CRIS
(Wang et al. 2022, section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax import numpy as jnp

from tunevlseg_jax.models.layers import Attention
from tunevlseg_jax.models.products import Conv
from tunevlseg_jax.models.resize import resize_positions

HEAD_WIDTH = 64
EXPANSION = 4
"""Ratio of a bottleneck's output channels to its middle channels."""
STRIDE = 32
"""Side in pixels of a cell of the last grid."""
EPSILON = 1e-5
"""BatchNorm's."""


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of an encoder; the defaults are RN50's.

    Attributes:
      layers: number of bottlenecks in each of the four stages.
      width: channels of the stem; a stage's bottlenecks are 1, 2, 4 and 8 times as wide.
      embedding_width: channels of the attention pool's output.
      image_size: side in pixels of the images that the stored positions are for.
    """

    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    embedding_width: int = 1024
    image_size: int = 224


RN50 = ResNetConfig()
RN101 = ResNetConfig(layers=(3, 4, 23, 3), embedding_width=512)


class ModifiedResNet(nnx.Module):
    """A stem of three convolutions and four stages of bottlenecks, with average pools for strided convolutions."""

    def __init__(self, config: ResNetConfig, rngs: nnx.Rngs, *, folded: bool = False):
        """Fresh weights; `folded` for a network whose BatchNorms are part of its convolutions, see `fold`."""
        width = config.width
        self.stem = nnx.List(
            [
                ConvNorm(3, width // 2, 3, rngs, stride=2, folded=folded),
                ConvNorm(width // 2, width // 2, 3, rngs, folded=folded),
                ConvNorm(width // 2, width, 3, rngs, folded=folded),
            ]
        )
        self.stages = nnx.List()
        source = width
        for number, blocks in enumerate(config.layers):
            middle = width * 2**number
            stage = nnx.List()
            for block in range(blocks):
                pool = 2 if number > 0 and block == 0 else 1
                stage.append(Bottleneck(source, middle, pool, rngs, folded=folded))
                source = middle * EXPANSION
            self.stages.append(stage)
        self.pool = GridAttentionPool(source, config, rngs, folded=folded)

    def __call__(self, images: Array) -> tuple[Array, Array, Array]:
        """Encodes images.

        Args:
          images: (batch, height, width, 3), normalised; each side a multiple of 32.

        Returns:
          C3, C4 and C5, at 1/8, 1/16 and 1/32 of the image's size, (batch, rows, columns, channels); C5 is the output
          of the attention pool.

        Raises:
          ValueError: a side of the image is not a multiple of 32.
        """
        grids = self.stage_grids(images)
        return grids[1], grids[2], self.pool(grids[3])

    def stage_grids(self, images: Array) -> list[Array]:
        """The output of each stage, at 1/4, 1/8, 1/16 and 1/32 of the image's size."""
        _, height, width, _ = images.shape
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"an image of {height}x{width} pixels is not a multiple of {STRIDE}")
        x = images
        for layer in self.stem:
            x = jax.nn.relu(layer(x))
        x = average_pool(x, 2)
        grids = []
        for stage in self.stages:
            for block in stage:
                x = block(x)
            grids.append(x)
        return grids


class Bottleneck(nnx.Module):
    """Three convolutions with a residual connection, which has a convolution where the shape changes."""

    def __init__(self, source: int, middle: int, pool: int, rngs: nnx.Rngs, *, folded: bool):
        self.pool = pool
        target = middle * EXPANSION
        self.conv1 = ConvNorm(source, middle, 1, rngs, folded=folded)
        self.conv2 = ConvNorm(middle, middle, 3, rngs, folded=folded)
        self.conv3 = ConvNorm(middle, target, 1, rngs, folded=folded)
        changes = pool > 1 or source != target
        self.shortcut = ConvNorm(source, target, 1, rngs, folded=folded) if changes else None

    def __call__(self, x: Array) -> Array:
        """From (batch, rows, columns, source) to (batch, rows / pool, columns / pool, 4 * middle)."""
        y = jax.nn.relu(self.conv1(x))
        y = average_pool(jax.nn.relu(self.conv2(y)), self.pool)
        y = self.conv3(y)
        if self.shortcut is not None:
            x = self.shortcut(average_pool(x, self.pool))
        return jax.nn.relu(x + y)


class GridAttentionPool(nnx.Module):
    """CLIP's attention pool with every cell of the grid as a query, plus CRIS's convolution of its input."""

    def __init__(self, width: int, config: ResNetConfig, rngs: nnx.Rngs, *, folded: bool):
        cells = (config.image_size // STRIDE) ** 2
        normal = nnx.initializers.normal(width**-0.5)
        # The first row is for CLIP's mean token. It is unused, and kept so that a conversion loses nothing.
        self.position_embedding = nnx.Param(normal(rngs.params(), (1 + cells, width)))
        self.attention = Attention(width, width // HEAD_WIDTH, rngs, out_width=config.embedding_width)
        self.connect = ConvNorm(width, config.embedding_width, 1, rngs, folded=folded)

    def __call__(self, x: Array) -> Array:
        """From (batch, rows, columns, width) to (batch, rows, columns, embedding width)."""
        batch, rows, columns, width = x.shape
        positions = resize_positions(self.position_embedding[...][1:], (rows, columns))
        tokens = x.reshape(batch, rows * columns, width) + positions[None].astype(x.dtype)
        pooled = self.attention(tokens).reshape(batch, rows, columns, -1)
        return jax.nn.relu(pooled + self.connect(x))


class ConvNorm(nnx.Module):
    """A convolution that keeps the grid (or halves it, stride 2) and a BatchNorm, which is part of it if `folded`."""

    def __init__(self, source: int, target: int, size: int, rngs: nnx.Rngs, *, stride: int = 1, folded: bool = False):
        self.conv = Conv(source, target, size, stride=stride, use_bias=folded, rngs=rngs)
        self.norm = None if folded else BatchNorm(target)

    def __call__(self, x: Array) -> Array:
        """From (batch, rows, columns, source) to (batch, rows, columns, target)."""
        return self._normalised(self.conv(x))

    def of_doubled(self, x: Array) -> Array:
        """From (batch, rows, columns, source) to (batch, 2 * rows, 2 * columns, target), see `Conv.of_doubled`."""
        return self._normalised(self.conv.of_doubled(x))

    def _normalised(self, x: Array) -> Array:
        return x if self.norm is None else self.norm(x)


class BatchNorm(nnx.Module):
    """Batch normalisation by stored statistics, in training too; `mean` and `variance` never change."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.mean = nnx.Param(jnp.zeros(width))
        self.variance = nnx.Param(jnp.ones(width))

    def __call__(self, x: Array) -> Array:
        """Normalises the last axis in float32 and returns the type of `x`."""
        scale, bias, mean, variance = (
            parameter[...].astype(jnp.float32) for parameter in (self.scale, self.bias, self.mean, self.variance)
        )
        factor = scale * jax.lax.rsqrt(variance + EPSILON)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)).astype(x.dtype)


def fold(weights: Mapping[str, np.ndarray | Array], prefix: str) -> dict[str, np.ndarray | Array]:
    """Moves each BatchNorm under `prefix` into the convolution before it.

    Args:
      weights: by path; a `ConvNorm` has conv/kernel and norm/scale, bias, mean, variance.
      prefix: start of the paths to fold; other weights stay.

    Returns:
      Weights with conv/kernel and conv/bias instead, which give the same outputs except for rounding; computed in
      float64.
    """
    folded = dict(weights)
    for path in weights:
        name = path.removesuffix("/norm/variance")
        if not path.startswith(prefix) or name == path:
            continue
        scale, bias, mean, variance = (
            np.asarray(folded.pop(f"{name}/norm/{part}"), np.float64) for part in ("scale", "bias", "mean", "variance")
        )
        factor = scale / np.sqrt(variance + EPSILON)
        kernel = np.asarray(weights[f"{name}/conv/kernel"], np.float64)
        folded[f"{name}/conv/kernel"] = (kernel * factor).astype(np.float32)
        folded[f"{name}/conv/bias"] = (bias - mean * factor).astype(np.float32)
    return folded


def average_pool(x: Array, size: int) -> Array:
    """The mean of each `size` x `size` square of (batch, rows, columns, channels); `size` divides both sides."""
    if size == 1:
        return x
    batch, rows, columns, channels = x.shape
    return x.reshape(batch, rows // size, size, columns // size, size, channels).mean(axis=(2, 4))
