"""The parts of SAM 3 that nothing here needs, as weights alone, so that a conversion loses nothing."""

from dataclasses import dataclass

import jax
from flax import nnx

from tunevlseg_jax.models.layers import Attention, LayerNorm, Mlp
from tunevlseg_jax.models.products import Conv, Linear
from tunevlseg_jax.models.sam3_decoder import PixelStage
from tunevlseg_jax.models.sam3_instances import embedding
from tunevlseg_jax.models.sam3_vision import Level


@dataclass(frozen=True)
class SAM3UnusedConfig:
    """Sizes of the unused parts; the defaults are facebook/sam3's.

    Attributes:
      scale: of the last grid of the pyramid.
      pixel_stages: of the pixel decoder, beyond those that the grids need.
      box_layers: of the encoder of boxes that the user draws.
      box_heads: of its attentions.
      box_hidden: width of its MLPs' hidden layers.
      roi_size: side of the grid that it pools from a box.
    """

    scale: float = 0.5
    pixel_stages: int = 1
    box_layers: int = 3
    box_heads: int = 8
    box_hidden: int = 2048
    roi_size: int = 7


class Unused(nnx.Module):
    """Weights of the encoder of boxes, and what the used parts leave over."""

    def __init__(self, config: SAM3UnusedConfig, vision_width: int, width: int, rngs: nnx.Rngs):
        self.level = Level(vision_width, width, config.scale, rngs)
        self.pixels = nnx.List(PixelStage(width, rngs) for _ in range(config.pixel_stages))
        self.boxes = BoxEncoder(config, width, rngs)


class BoxEncoder(nnx.Module):
    """Weights of the encoder of boxes."""

    def __init__(self, config: SAM3UnusedConfig, width: int, rngs: nnx.Rngs):
        self.label_embedding = embedding(2, width, rngs)
        self.class_embedding = embedding(1, width, rngs)
        self.direct = Linear(4, width, rngs=rngs)
        self.pooled = Conv(width, width, config.roi_size, rngs=rngs)
        self.position = Linear(width + 2, width, rngs=rngs)
        self.vision_norm = LayerNorm(width)
        self.final = Linear(width, width, rngs=rngs)
        self.prompt_norm = LayerNorm(width)
        self.layers = nnx.List(
            UnusedLayer(width, config.box_heads, config.box_hidden, rngs) for _ in range(config.box_layers)
        )
        self.output_norm = LayerNorm(width)


class UnusedLayer(nnx.Module):
    """Weights of a transformer layer with self-attention, cross-attention and an MLP."""

    def __init__(self, width: int, heads: int, hidden: int, rngs: nnx.Rngs):
        self.attentions = nnx.List(Attention(width, heads, rngs) for _ in range(2))
        self.mlp = Mlp(width, hidden, jax.nn.relu, rngs)
        self.norms = nnx.List(LayerNorm(width) for _ in range(3))
