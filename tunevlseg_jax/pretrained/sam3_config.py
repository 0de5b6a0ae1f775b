"""Converts between the configuration of Hugging Face's SAM 3 and ours."""

from typing import Any

from tunevlseg_jax.models.clip import ACTIVATIONS, TextConfig
from tunevlseg_jax.models.sam3 import TEXT as SAM3_TEXT
from tunevlseg_jax.models.sam3 import SAM3Config, check_sizes
from tunevlseg_jax.models.sam3_instances import SAM3InstancesConfig
from tunevlseg_jax.models.sam3_unused import SAM3UnusedConfig
from tunevlseg_jax.models.sam3_vision import SAM3VisionConfig
from tunevlseg_jax.pretrained.clipseg_config import TEXT
from tunevlseg_jax.pretrained.huggingface_config import (
    Keys,
    only,
    section,
    sizes,
    their_preprocessing,
    their_sizes,
    whole,
    with_preprocessing,
)
from tunevlseg_jax.pretrained.rules import ConversionError

WIDTH = 256
VISION: Keys = {
    "width": ("hidden_size", 1024),
    "blocks": ("num_hidden_layers", 32),
    "heads": ("num_attention_heads", 16),
    "hidden": ("intermediate_size", 4736),
    "patch": ("patch_size", 14),
    "image_size": ("pretrain_image_size", 336),
    "window": ("window_size", 24),
}
ENCODER: Keys = {
    "encoder_layers": ("num_layers", 6),
    "encoder_heads": ("num_attention_heads", 8),
    "encoder_hidden": ("intermediate_size", 2048),
}
BOXES: Keys = {
    "box_layers": ("num_layers", 3),
    "box_heads": ("num_attention_heads", 8),
    "box_hidden": ("intermediate_size", 2048),
    "roi_size": ("roi_size", 7),
}
INSTANCES: Keys = {
    "layers": ("num_layers", 6),
    "heads": ("num_attention_heads", 8),
    "hidden": ("intermediate_size", 2048),
    "queries": ("num_queries", 200),
}
MASK: Keys = {"mask_heads": ("num_attention_heads", 8)}
SECTIONS = ("geometry_encoder_config", "detr_encoder_config", "detr_decoder_config", "mask_decoder_config")
"""The parts whose width is that of the pyramid."""

# The only supported values of keys that may be missing.
ONLY_VISION = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "num_channels": 3}
ONLY_ROPE = {"rope_type": "axial", "rope_theta": 10000.0}
ONLY_TEXT = {"layer_norm_eps": 1e-5}
ONLY_LAYERS = {"hidden_act": "relu"}


def config_from_huggingface(theirs: dict[str, Any], preprocessor: dict[str, Any] | None = None) -> SAM3Config:
    """Our configuration from a config.json and, where there is one, a preprocessor_config.json.

    Args:
      theirs: content of config.json, of the detector alone or of the detector and the tracker together.
      preprocessor: content of preprocessor_config.json. Without it the image size is the vision tower's, and mean and
        standard deviation are 0.5.

    Raises:
      ConversionError: it is not a SAM 3, or one with unsupported settings.
    """
    if theirs.get("model_type") == "sam3_video":
        theirs = section(theirs, "detector_config") | {"model_type": "sam3"}
    if theirs.get("model_type") != "sam3":
        raise ConversionError(f"model_type must be sam3, got {theirs.get('model_type')!r}", "wrong-model")
    vision = section(theirs, "vision_config")
    backbone = section(vision, "backbone_config")
    only(backbone, ONLY_VISION, "config.json")
    only(section(backbone, "rope_parameters"), ONLY_ROPE, "config.json")
    width = whole(vision, "fpn_hidden_size", WIDTH)
    boxes, encoder, queries, mask = (_part(theirs, name, width) for name in SECTIONS)
    scales = _scales(vision)
    stages = whole(mask, "num_upsampling_stages", 3)
    text, sentence_width = _text(theirs)
    unused = SAM3UnusedConfig(scale=scales[-1], pixel_stages=stages - len(scales) + 2, **sizes(boxes, BOXES))
    config = SAM3Config(
        text=text,
        vision=SAM3VisionConfig(**sizes(backbone, VISION), global_blocks=_blocks(backbone), scales=scales[:-1]),
        unused=unused,
        instances=SAM3InstancesConfig(**sizes(queries, INSTANCES)),
        sentence_width=sentence_width,
        width=width,
        image_size=whole(backbone, "image_size", 1008),
        **sizes(encoder, ENCODER),
        **sizes(mask, MASK),
    )
    config = with_preprocessing(config, preprocessor)
    try:
        check_sizes(config)
    except ValueError as error:
        raise ConversionError(f"config.json: {error}", "model-config") from error
    return config


def _part(theirs: dict[str, Any], name: str, width: int) -> dict[str, Any]:
    """A section of config.json, after a check of its width and activation."""
    part = section(theirs, name)
    only({"hidden_size": WIDTH} | part, {"hidden_size": width}, f"config.json, {name}")
    only(part, ONLY_LAYERS, f"config.json, {name}")
    return part


def _text(theirs: dict[str, Any]) -> tuple[TextConfig, int]:
    """Sizes of the text tower, and the width of its last projection."""
    if "text_config" not in theirs:
        return SAM3_TEXT, SAM3Config.sentence_width
    text = section(theirs, "text_config")
    only(text, ONLY_TEXT, "config.json, text_config")
    activation = text.get("hidden_act", "quick_gelu")
    if activation not in ACTIVATIONS:
        raise ConversionError(
            f"config.json, text_config: hidden_act must be {' or '.join(ACTIVATIONS)}, got {activation!r}",
            "model-config",
        )
    return TextConfig(**sizes(text, TEXT), activation=activation), whole(text, "projection_dim", 512)


def _scales(vision: dict[str, Any]) -> tuple[float, ...]:
    scales = vision.get("scale_factors") or [4.0, 2.0, 1.0, 0.5]
    if not isinstance(scales, list) or len(scales) < 2 or not set(scales) <= {4, 2, 1, 0.5}:
        raise ConversionError(
            f"config.json: scale_factors must be two or more of 4, 2, 1 and 0.5, got {scales!r}", "model-config"
        )
    return tuple(map(float, scales))


def _blocks(backbone: dict[str, Any]) -> tuple[int, ...]:
    blocks = backbone.get("global_attn_indexes")
    if blocks is None:
        return SAM3VisionConfig().global_blocks
    if not isinstance(blocks, list) or any(type(number) is not int for number in blocks):
        raise ConversionError(
            f"config.json: global_attn_indexes must list block numbers, got {blocks!r}", "model-config"
        )
    return tuple(blocks)


def config_to_huggingface(config: SAM3Config) -> dict[str, Any]:
    """The config.json that transformers reads; the inverse of `config_from_huggingface`.

    Raises:
      ConversionError: the model lacks parts that transformers builds.
    """
    unused, instances, vision = config.unused, config.instances, config.vision
    if unused is None or instances is None:
        raise ConversionError(
            "the model lacks SAM 3's boxes or instances, which transformers needs; only a folder of ours holds it",
            "wrong-model",
        )
    backbone = their_sizes(vision, VISION) | {
        "model_type": "sam3_vit_model",
        "image_size": config.image_size,
        "global_attn_indexes": list(vision.global_blocks),
    }
    text = their_sizes(config.text, TEXT) | {
        "model_type": "clip_text_model",
        "hidden_act": config.text.activation,
        "projection_dim": config.sentence_width,
    }
    stages = unused.pixel_stages + len(vision.scales) - 1
    parts = (
        their_sizes(unused, BOXES),
        their_sizes(config, ENCODER),
        their_sizes(instances, INSTANCES),
        their_sizes(config, MASK) | {"num_upsampling_stages": stages},
    )
    return {
        "architectures": ["Sam3Model"],
        "model_type": "sam3",
        "text_config": text,
        "vision_config": {
            "model_type": "sam3_vision_model",
            "backbone_config": backbone,
            "fpn_hidden_size": config.width,
            "scale_factors": [*vision.scales, unused.scale],
        },
    } | {name: part | {"hidden_size": config.width} for name, part in zip(SECTIONS, parts, strict=True)}


def preprocessor_to_huggingface(config: SAM3Config) -> dict[str, Any]:
    """The preprocessor_config.json that transformers reads."""
    names = {"image_processor_type": "Sam3ImageProcessor", "processor_class": "Sam3Processor"}
    return their_preprocessing(config, names, resample=2)
