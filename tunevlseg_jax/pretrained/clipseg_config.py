"""Converts between the configuration of Hugging Face's CLIPSeg and ours."""

import dataclasses
import math
from typing import Any

from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.rules import ConversionError

Keys = dict[str, tuple[str, int]]
"""From our field to Hugging Face's key, and the value that transformers uses if config.json lacks the key."""
TOWER: Keys = {
    "width": ("hidden_size", 768),
    "blocks": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "hidden": ("intermediate_size", 3072),
}
VISION: Keys = TOWER | {"patch": ("patch_size", 32), "image_size": ("image_size", 224)}
TEXT: Keys = TOWER | {
    "width": ("hidden_size", 512),
    "heads": ("num_attention_heads", 8),
    "hidden": ("intermediate_size", 2048),
    "vocabulary": ("vocab_size", 49408),
    "context_length": ("max_position_embeddings", 77),
    "end_token": ("eos_token_id", 49407),
}
TOP: Keys = {
    "embedding_width": ("projection_dim", 512),
    "decoder_width": ("reduce_dim", 64),
    "decoder_heads": ("decoder_num_attention_heads", 4),
    "decoder_hidden": ("decoder_intermediate_size", 2048),
}

# The only supported values of keys that may be missing.
ONLY = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_channels": 3}
PREPROCESSING = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
PREPROCESSOR = "preprocessor_config.json"


def config_from_huggingface(theirs: dict[str, Any], preprocessor: dict[str, Any] | None = None) -> CLIPSegConfig:
    """Our configuration from a config.json and, where there is one, a preprocessor_config.json.

    Args:
      theirs: content of config.json.
      preprocessor: content of preprocessor_config.json. Without it the image size is CLIPSeg's 352, or that of the
        stored positions if the patch doesn't divide 352, and mean and standard deviation are ImageNet's.

    Raises:
      ConversionError: it is not a CLIPSeg, or one with unsupported settings.
    """
    if theirs.get("model_type") != "clipseg":
        raise ConversionError(f"model_type must be clipseg, got {theirs.get('model_type')!r}", "wrong-model")
    text, vision = _section(theirs, "text_config"), _section(theirs, "vision_config")
    for tower in (text, vision):
        _only(tower, ONLY, "config.json")
    taps = theirs.get("extract_layers", [3, 6, 9])
    if not isinstance(taps, list) or not taps:
        raise ConversionError(f"config.json: extract_layers must list block numbers, got {taps!r}", "model-config")
    config = CLIPSegConfig(
        text=TextConfig(**_sizes(text, TEXT)),
        vision=VisionConfig(**_sizes(vision, VISION)),
        taps=tuple(taps),
        conditional_layer=_whole(theirs, "conditional_layer", 0, least=0),
        complex_upsampling=bool(theirs.get("use_complex_transposed_convolution", False)),
        **_sizes(theirs, TOP),
    )
    config = _preprocessing(config, preprocessor)
    _check(config)
    return config


def _section(theirs: dict[str, Any], name: str) -> dict[str, Any]:
    """A tower's part of config.json; where an old file has two, transformers takes `..._dict`."""
    for key in (f"{name}_dict", name):
        if theirs.get(key) is not None:
            if not isinstance(theirs[key], dict):
                raise ConversionError(f"config.json: {key} must be an object, got {theirs[key]!r}", "model-config")
            return theirs[key]
    return {}


def _sizes(section: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """The fields of ours that a part of config.json holds."""
    return {field: _whole(section, key, default) for field, (key, default) in keys.items()}


def _only(section: dict[str, Any], supported: dict[str, Any], file: str) -> None:
    for key, only in supported.items():
        if section.get(key, only) != only:
            raise ConversionError(f"{file}: {key} must be {only!r}, got {section[key]!r}", "model-config")


def _whole(section: dict[str, Any], key: str, default: int, least: int = 1) -> int:
    value = section.get(key, default)
    if type(value) is not int or value < least:
        raise ConversionError(f"{key} must be an integer of at least {least}, got {value!r}", "model-config")
    return value


def _preprocessing(config: CLIPSegConfig, preprocessor: dict[str, Any] | None) -> CLIPSegConfig:
    """The configuration with the preprocessor's image size, mean and standard deviation."""
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
    """The side of the square images that `size` describes: a number, height and width, or the shortest edge."""
    match size:
        case int(side) | {"shortest_edge": int(side)}:
            return side
        case {"height": int(height), "width": int(width)} if height == width:
            return height
    raise ConversionError(f"{PREPROCESSOR}: size must be the side of a square, got {size!r}", "model-config")


def _check(config: CLIPSegConfig) -> None:
    """Raises a ConversionError if the sizes don't go together."""
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
    return {
        "architectures": ["CLIPSegForImageSegmentation"],
        "model_type": "clipseg",
        "extract_layers": list(config.taps),
        "conditional_layer": config.conditional_layer,
        "use_complex_transposed_convolution": config.complex_upsampling,
        "text_config": {"model_type": "clipseg_text_model"} | _keys(config.text, TEXT),
        "vision_config": {"model_type": "clipseg_vision_model"} | _keys(config.vision, VISION),
    } | _keys(config, TOP)


def _keys(config: object, keys: Keys) -> dict[str, int]:
    """The inverse of `_sizes`."""
    return {key: getattr(config, field) for field, (key, _) in keys.items()}
