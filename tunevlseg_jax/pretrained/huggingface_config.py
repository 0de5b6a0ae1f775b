"""What the config.json of every Hugging Face model has in common: sections of sizes, and the preprocessing."""

import dataclasses
import math
from typing import Any, TypeVar

from tunevlseg_jax.models.catalogue import AnyModelConfig
from tunevlseg_jax.pretrained.rules import ConversionError

Keys = dict[str, tuple[str, int]]
"""From our field to Hugging Face's key, and the value that transformers uses if config.json lacks the key."""
PREPROCESSING = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
PREPROCESSOR = "preprocessor_config.json"
M = TypeVar("M", bound=AnyModelConfig)


def section(theirs: dict[str, Any], name: str) -> dict[str, Any]:
    """A tower's part of config.json; where an old file has two, transformers takes `..._dict`."""
    for key in (f"{name}_dict", name):
        if theirs.get(key) is not None:
            if not isinstance(theirs[key], dict):
                raise ConversionError(f"config.json: {key} must be an object, got {theirs[key]!r}", "model-config")
            return theirs[key]
    return {}


def sizes(section: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """The fields of ours that a part of config.json holds."""
    return {field: whole(section, key, default) for field, (key, default) in keys.items()}


def only(section: dict[str, Any], supported: dict[str, Any], file: str) -> None:
    """Raises a ConversionError unless a part of a file has the supported values, or lacks the keys."""
    for key, value in supported.items():
        if section.get(key, value) != value:
            raise ConversionError(f"{file}: {key} must be {value!r}, got {section[key]!r}", "model-config")


def whole(section: dict[str, Any], key: str, default: int, least: int = 1) -> int:
    """An integer of a part of config.json, or the default if the key is missing."""
    value = section.get(key, default)
    if type(value) is not int or value < least:
        raise ConversionError(f"{key} must be an integer of at least {least}, got {value!r}", "model-config")
    return value


def with_preprocessing(config: M, preprocessor: dict[str, Any] | None) -> M:
    """The configuration with the preprocessor's image size, mean and standard deviation."""
    if preprocessor is None:
        divides = config.image_size % config.side_multiple == 0
        return config if divides else dataclasses.replace(config, image_size=config.vision.image_size)
    only(preprocessor, PREPROCESSING, PREPROCESSOR)
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


def their_preprocessing(config: AnyModelConfig, names: dict[str, str], resample: int) -> dict[str, Any]:
    """The preprocessor_config.json that transformers reads.

    Args:
      config: of the model.
      names: of transformers' classes, by key.
      resample: number of the interpolation, 2 for bilinear and 3 for bicubic.
    """
    return (
        PREPROCESSING
        | names
        | {
            "do_resize": True,
            "size": {"height": config.image_size, "width": config.image_size},
            "resample": resample,
            "image_mean": list(config.mean),
            "image_std": list(config.std),
        }
    )


def their_sizes(config: object, keys: Keys) -> dict[str, int]:
    """The inverse of `sizes`."""
    return {key: getattr(config, field) for field, (key, _) in keys.items()}
