"""The configuration of Hugging Face's CLIPSeg and ours, both ways."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.rules import ConversionError

# What transformers takes for a key that a config.json leaves out.
TEXT_DEFAULTS = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
VISION_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 32,
    "image_size": 224,
}
DEFAULTS = {
    "projection_dim": 512,
    "extract_layers": [3, 6, 9],
    "reduce_dim": 64,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 2048,
    "conditional_layer": 0,
    "use_complex_transposed_convolution": False,
}

# The only values that this model knows, of keys that may be left out.
ONLY = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_channels": 3}
PREPROCESSING = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
PREPROCESSOR = "preprocessor_config.json"


def config_from_huggingface(theirs: dict[str, Any], preprocessor: dict[str, Any] | None = None) -> CLIPSegConfig:
    """Our configuration from a config.json and, where there is one, a preprocessor_config.json.

    Args:
      theirs: what config.json holds.
      preprocessor: what preprocessor_config.json holds. Without it the image size is CLIPSeg's 352, or that of the
        stored positions where the patch doesn't divide 352, and mean and standard deviation are ImageNet's.

    Raises:
      ConversionError: it isn't a CLIPSeg, or one that this model can't be.
    """
    if theirs.get("model_type") != "clipseg":
        raise ConversionError(f"model_type must be clipseg, got {theirs.get('model_type')!r}", "wrong-model")
    text, vision = _section(theirs, "text_config", TEXT_DEFAULTS), _section(theirs, "vision_config", VISION_DEFAULTS)
    top = DEFAULTS | theirs
    for tower in (text, vision):
        _only(tower, ONLY, "config.json")
    taps = top["extract_layers"]
    if not isinstance(taps, list) or not taps:
        raise ConversionError(f"config.json: extract_layers must list block numbers, got {taps!r}", "model-config")
    config = CLIPSegConfig(
        text=TextConfig(
            width=_whole(text, "hidden_size"),
            blocks=_whole(text, "num_hidden_layers"),
            heads=_whole(text, "num_attention_heads"),
            hidden=_whole(text, "intermediate_size"),
            vocabulary=_whole(text, "vocab_size"),
            context_length=_whole(text, "max_position_embeddings"),
            end_token=_whole(text, "eos_token_id"),
        ),
        vision=VisionConfig(
            width=_whole(vision, "hidden_size"),
            blocks=_whole(vision, "num_hidden_layers"),
            heads=_whole(vision, "num_attention_heads"),
            hidden=_whole(vision, "intermediate_size"),
            patch=_whole(vision, "patch_size"),
            image_size=_whole(vision, "image_size"),
        ),
        embedding_width=_whole(top, "projection_dim"),
        taps=tuple(taps),
        decoder_width=_whole(top, "reduce_dim"),
        decoder_heads=_whole(top, "decoder_num_attention_heads"),
        decoder_hidden=_whole(top, "decoder_intermediate_size"),
        conditional_layer=_whole(top, "conditional_layer", least=0),
        complex_upsampling=bool(top["use_complex_transposed_convolution"]),
    )
    config = _preprocessing(config, preprocessor)
    _check(config)
    return config


def _section(theirs: dict[str, Any], name: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """A tower's part of config.json; where an old one says it twice, transformers takes `..._dict`."""
    for key in (f"{name}_dict", name):
        if theirs.get(key) is not None:
            if not isinstance(theirs[key], dict):
                raise ConversionError(f"config.json: {key} must be an object, got {theirs[key]!r}", "model-config")
            return defaults | theirs[key]
    return dict(defaults)


def _only(section: dict[str, Any], supported: dict[str, Any], file: str) -> None:
    for key, only in supported.items():
        if section.get(key, only) != only:
            raise ConversionError(f"{file}: {key} must be {only!r}, got {section[key]!r}", "model-config")


def _whole(section: dict[str, Any], key: str, least: int = 1) -> int:
    value = section[key]
    if type(value) is not int or value < least:
        raise ConversionError(f"{key} must be an integer of at least {least}, got {value!r}", "model-config")
    return value


def _preprocessing(config: CLIPSegConfig, preprocessor: dict[str, Any] | None) -> CLIPSegConfig:
    """The configuration with the image size, the mean and the standard deviation that images are prepared with."""
    if preprocessor is None:
        divides = config.image_size % config.vision.patch == 0
        return config if divides else dataclasses.replace(config, image_size=config.vision.image_size)
    _only(preprocessor, PREPROCESSING, PREPROCESSOR)
    return dataclasses.replace(
        config,
        image_size=_side(preprocessor.get("size")),
        mean=_channels(preprocessor, "image_mean"),
        std=_channels(preprocessor, "image_std", above=0),
    )


def _channels(preprocessor: dict[str, Any], key: str, above: float = -math.inf) -> tuple[float, float, float]:
    match preprocessor.get(key):
        case [int() | float() as red, int() | float() as green, int() | float() as blue] if (
            min(red, green, blue) > above
        ):
            return float(red), float(green), float(blue)
    raise ConversionError(f"{PREPROCESSOR}: {key} must be three numbers, got {preprocessor.get(key)!r}", "model-config")


def _side(size: Any) -> int:
    """The side of the square that `size` of a preprocessor means: a number, height and width, or the shortest edge."""
    match size:
        case int(side) | {"shortest_edge": int(side)}:
            return side
        case {"height": int(height), "width": int(width)} if height == width:
            return height
    raise ConversionError(f"{PREPROCESSOR}: size must be the side of a square, got {size!r}", "model-config")


def _check(config: CLIPSegConfig) -> None:
    """Raises a ConversionError where sizes don't go together."""
    patch = config.vision.patch
    demands = {
        f"extract_layers {config.taps} are not all among {config.vision.blocks} blocks": all(
            type(tap) is int and 0 <= tap < config.vision.blocks for tap in config.taps
        ),
        f"conditional_layer {config.conditional_layer} is not among {len(config.taps)} decoder blocks": (
            config.conditional_layer < len(config.taps)
        ),
        f"images of {config.image_size} pixels are no multiple of the patch, {patch}": (
            config.image_size > 0 and config.image_size % patch == 0
        ),
        f"the complex upsampling is made for a patch of 16, not {patch}": (
            not config.complex_upsampling or (patch // 4) ** 2 == patch
        ),
        "a tower's heads don't divide its width": all(
            width % heads == 0
            for width, heads in (
                (config.text.width, config.text.heads),
                (config.vision.width, config.vision.heads),
                (config.decoder_width, config.decoder_heads),
            )
        ),
    }
    for problem, holds in demands.items():
        if not holds:
            raise ConversionError(f"the model's sizes disagree: {problem}", "model-config")


def preprocessor_to_huggingface(config: CLIPSegConfig) -> dict[str, Any]:
    """The preprocessor_config.json that transformers reads."""
    return PREPROCESSING | {
        "image_processor_type": "ViTImageProcessor",
        "processor_class": "CLIPSegProcessor",
        "do_resize": True,
        "size": {"height": config.image_size, "width": config.image_size},
        "resample": 3,  # bicubic, as our data are resized
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def config_to_huggingface(config: CLIPSegConfig) -> dict[str, Any]:
    """The config.json that transformers reads; the inverse of `config_from_huggingface`."""
    text, vision = config.text, config.vision
    return {
        "architectures": ["CLIPSegForImageSegmentation"],
        "model_type": "clipseg",
        "projection_dim": config.embedding_width,
        "extract_layers": list(config.taps),
        "reduce_dim": config.decoder_width,
        "decoder_num_attention_heads": config.decoder_heads,
        "decoder_intermediate_size": config.decoder_hidden,
        "conditional_layer": config.conditional_layer,
        "use_complex_transposed_convolution": config.complex_upsampling,
        "text_config": {
            "model_type": "clipseg_text_model",
            "hidden_size": text.width,
            "num_hidden_layers": text.blocks,
            "num_attention_heads": text.heads,
            "intermediate_size": text.hidden,
            "vocab_size": text.vocabulary,
            "max_position_embeddings": text.context_length,
            "eos_token_id": text.end_token,
        },
        "vision_config": {
            "model_type": "clipseg_vision_model",
            "hidden_size": vision.width,
            "num_hidden_layers": vision.blocks,
            "num_attention_heads": vision.heads,
            "intermediate_size": vision.hidden,
            "patch_size": vision.patch,
            "image_size": vision.image_size,
        },
    }
