"""The parts of SAM 3 that the mask of a concept doesn't need, as weights alone, so that a conversion loses nothing."""

from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from tunevlseg_jax.models.layers import Attention, LayerNorm, Mlp
from tunevlseg_jax.models.products import Conv, Linear
from tunevlseg_jax.models.sam3_decoder import PixelStage
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
      query_layers: of the DETR decoder, which finds the instances.
      query_heads: of its attentions.
      query_hidden: width of its MLPs' hidden layers.
      queries: number of instances that it looks for.
    """

    scale: float = 0.5
    pixel_stages: int = 1
    box_layers: int = 3
    box_heads: int = 8
    box_hidden: int = 2048
    roi_size: int = 7
    query_layers: int = 6
    query_heads: int = 8
    query_hidden: int = 2048
    queries: int = 200


class Unused(nnx.Module):
    """Weights of the encoder of boxes, the DETR decoder, the heads of instances, and what the used parts leave over."""

    def __init__(self, config: SAM3UnusedConfig, vision_width: int, width: int, rngs: nnx.Rngs):
        self.level = Level(vision_width, width, config.scale, rngs)
        self.pixels = nnx.List(PixelStage(width, rngs) for _ in range(config.pixel_stages))
        self.boxes = BoxEncoder(config, width, rngs)
        self.instances = InstanceDecoder(config, width, rngs)
        self.scoring = Scoring(width, config.query_hidden, rngs)
        self.mask_embedder = _linears([width] * 4, rngs)
        self.instance_projection = Conv(width, width, 1, rngs=rngs)


class BoxEncoder(nnx.Module):
    """Weights of the encoder of boxes."""

    def __init__(self, config: SAM3UnusedConfig, width: int, rngs: nnx.Rngs):
        self.label_embedding = _embedding(2, width, rngs)
        self.class_embedding = _embedding(1, width, rngs)
        self.direct = Linear(4, width, rngs=rngs)
        self.pooled = Conv(width, width, config.roi_size, rngs=rngs)
        self.position = Linear(width + 2, width, rngs=rngs)
        self.vision_norm = LayerNorm(width)
        self.final = Linear(width, width, rngs=rngs)
        self.prompt_norm = LayerNorm(width)
        self.layers = nnx.List(
            UnusedLayer(("self", "cross"), width, config.box_heads, config.box_hidden, rngs)
            for _ in range(config.box_layers)
        )
        self.output_norm = LayerNorm(width)


class InstanceDecoder(nnx.Module):
    """Weights of the DETR decoder with boxes and presence."""

    def __init__(self, config: SAM3UnusedConfig, width: int, rngs: nnx.Rngs):
        self.layers = nnx.List(
            UnusedLayer(("self", "text", "vision"), width, config.query_heads, config.query_hidden, rngs)
            for _ in range(config.query_layers)
        )
        self.output_norm = LayerNorm(width)
        self.box_head = _linears([width, width, width, 4], rngs)
        self.query_embedding = _embedding(config.queries, width, rngs)
        self.reference_embedding = _embedding(config.queries, 4, rngs)
        self.presence_embedding = _embedding(1, width, rngs)
        self.presence_head = _linears([width, width, width, 1], rngs)
        self.presence_norm = LayerNorm(width)
        self.reference_head = _linears([2 * width, width, width], rngs)
        self.bias_across = _linears([2, width, config.query_heads], rngs)
        self.bias_down = _linears([2, width, config.query_heads], rngs)


class UnusedLayer(nnx.Module):
    """Weights of a transformer layer with an attention and a LayerNorm for each of several sources."""

    def __init__(self, sources: tuple[str, ...], width: int, heads: int, hidden: int, rngs: nnx.Rngs):
        self.attentions = nnx.List(Attention(width, heads, rngs) for _ in sources)
        self.mlp = Mlp(width, hidden, jax.nn.relu, rngs)
        self.norms = nnx.List(LayerNorm(width) for _ in (*sources, "mlp"))


class Scoring(nnx.Module):
    """Weights of the comparison of instances with the words."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.mlp = _linears([width, hidden, width], rngs)
        self.norm = LayerNorm(width)
        self.text = Linear(width, width, rngs=rngs)
        self.query = Linear(width, width, rngs=rngs)


def _linears(widths: list[int], rngs: nnx.Rngs) -> nnx.List:
    return nnx.List(Linear(a, b, rngs=rngs) for a, b in pairwise(widths))


def _embedding(rows: int, width: int, rngs: nnx.Rngs) -> nnx.Param[Array]:
    return nnx.Param(0.02 * jax.random.normal(rngs.params(), (rows, width), jnp.float32))
