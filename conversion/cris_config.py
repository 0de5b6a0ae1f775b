"""Derives the sizes of a CRIS from the shapes of its tensors."""

import math
import re
from collections.abc import Mapping

import numpy as np

from tunevlseg_jax.models.clip import TextConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.resnet import RN50, RN101, STRIDE, ResNetConfig
from tunevlseg_jax.pretrained.rules import ConversionError

HEAD_WIDTH = 64
"""Of CLIP's text towers; the tensors don't show the number of heads."""
PRESETS = {"RN50": RN50, "RN101": RN101}


def config_from_tensors(theirs: Mapping[str, np.ndarray], *, decoder_heads: int, image_size: int) -> CRISConfig:
    """Our configuration from tensors by published name.

    Args:
      theirs: tensors of the checkpoint, names without "module.".
      decoder_heads: number of heads, which the tensors don't show; CRIS has 8.
      image_size: side of the images that the model is used with.

    Raises:
      ConversionError: a tensor is missing or has an impossible shape, or the sizes don't go together.
    """
    text_width = _shape(theirs, "backbone.token_embedding.weight", 2)[1]
    low, middle, high = (_shape(theirs, f"neck.f{level}_v_proj.0.weight", 4)[0] for level in (3, 2, 1))
    config = CRISConfig(
        text=TextConfig(
            width=text_width,
            blocks=_count(theirs, "backbone.transformer.resblocks"),
            heads=max(1, text_width // HEAD_WIDTH),
            hidden=_shape(theirs, "backbone.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            vocabulary=_shape(theirs, "backbone.token_embedding.weight", 2)[0],
            context_length=_shape(theirs, "backbone.positional_embedding", 2)[0],
        ),
        vision=encoder_from_tensors(theirs),
        neck_widths=(low, middle, high),
        decoder_layers=_count(theirs, "decoder.layers"),
        decoder_heads=decoder_heads,
        decoder_hidden=_shape(theirs, "decoder.layers.0.ffn.0.weight", 2)[0],
        image_size=image_size,
    )
    _check(config)
    taken = _shape(theirs, "neck.f1_v_proj.0.weight", 4)[1]
    if taken != config.vision.embedding_width:
        raise ConversionError(f"the encoder has width {config.vision.embedding_width}, the neck {taken}", "wrong-model")
    return config


def encoder_from_tensors(theirs: Mapping[str, np.ndarray], prefix: str = "backbone.visual.") -> ResNetConfig:
    """The sizes of a modified ResNet whose tensors start with `prefix`.

    Raises:
      ConversionError: a tensor is missing or has an impossible shape.
    """
    first, second, third, fourth = (_count(theirs, f"{prefix}layer{stage}") for stage in range(1, 5))
    rows = _shape(theirs, f"{prefix}attnpool.positional_embedding", 2)[0]
    side = math.isqrt(max(rows - 1, 0))
    if side < 1 or side**2 + 1 != rows:
        raise ConversionError(f"{prefix}attnpool.positional_embedding has {rows} rows, not n * n + 1", "wrong-weights")
    return ResNetConfig(
        layers=(first, second, third, fourth),
        width=_shape(theirs, f"{prefix}conv3.weight", 4)[0],
        embedding_width=_shape(theirs, f"{prefix}attnpool.c_proj.weight", 2)[0],
        image_size=side * STRIDE,
    )


def check_preset(config: ResNetConfig, preset: str, what: str) -> None:
    """Raises a ConversionError unless an encoder has the preset's sizes; `what` names its file."""
    asked = PRESETS[preset]
    if (config.layers, config.width, config.embedding_width) == (asked.layers, asked.width, asked.embedding_width):
        return
    found = next((name for name, sizes in PRESETS.items() if sizes.layers == config.layers), "another ResNet")
    raise ConversionError(
        f"{what} holds the weights of {found} ({config.layers} bottlenecks, {config.width} channels in the stem), "
        f"not {preset}'s {asked.layers} and {asked.width}",
        "wrong-model",
    )


def _check(config: CRISConfig) -> None:
    """Raises a ConversionError if the sizes don't go together."""
    demands = {
        f"the text tower is {config.text.width} wide and the decoder {config.feature_width}": (
            config.text.width == config.feature_width
        ),
        f"{config.decoder_heads} heads don't divide the decoder's width, {config.feature_width}; see --decoder-heads": (
            config.decoder_heads > 0 and config.feature_width % config.decoder_heads == 0
        ),
        f"the image size {config.image_size} is no multiple of {STRIDE}; see --image-size": (
            config.image_size > 0 and config.image_size % STRIDE == 0
        ),
    }
    for problem, holds in demands.items():
        if not holds:
            raise ConversionError(f"the model's sizes disagree: {problem}", "model-config")


def _shape(theirs: Mapping[str, np.ndarray], name: str, axes: int) -> tuple[int, ...]:
    if name not in theirs:
        raise ConversionError(f"the checkpoint lacks {name}", "wrong-weights")
    shape = theirs[name].shape
    if len(shape) != axes or 0 in shape:
        raise ConversionError(f"{name} must have {axes} axes, got the shape {shape}", "wrong-weights")
    return shape


def _count(theirs: Mapping[str, np.ndarray], prefix: str) -> int:
    """The number of numbered parts under a name."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    numbers = {int(match[1]) for match in map(pattern.match, theirs) if match}
    if not numbers:
        raise ConversionError(f"the checkpoint lacks {prefix}.0", "wrong-weights")
    return max(numbers) + 1
