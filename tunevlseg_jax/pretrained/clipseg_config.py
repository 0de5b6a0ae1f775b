"""Converts between the configuration of Hugging Face's CLIPSeg and ours."""

from typing import Any

from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
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
    text, vision = section(theirs, "text_config"), section(theirs, "vision_config")
    for tower in (text, vision):
        only(tower, ONLY, "config.json")
    taps = theirs.get("extract_layers", [3, 6, 9])
    if not isinstance(taps, list) or not taps:
        raise ConversionError(f"config.json: extract_layers must list block numbers, got {taps!r}", "model-config")
    config = CLIPSegConfig(
        text=TextConfig(**sizes(text, TEXT)),
        vision=VisionConfig(**sizes(vision, VISION)),
        taps=tuple(taps),
        conditional_layer=whole(theirs, "conditional_layer", 0, least=0),
        complex_upsampling=bool(theirs.get("use_complex_transposed_convolution", False)),
        **sizes(theirs, TOP),
    )
    config = with_preprocessing(config, preprocessor)
    _check(config)
    return config


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
    names = {"image_processor_type": "ViTImageProcessor", "processor_class": "CLIPSegProcessor"}
    return their_preprocessing(config, names, resample=3)  # bicubic, as our data are resized


def config_to_huggingface(config: CLIPSegConfig) -> dict[str, Any]:
    """The config.json that transformers reads; the inverse of `config_from_huggingface`."""
    return {
        "architectures": ["CLIPSegForImageSegmentation"],
        "model_type": "clipseg",
        "extract_layers": list(config.taps),
        "conditional_layer": config.conditional_layer,
        "use_complex_transposed_convolution": config.complex_upsampling,
        "text_config": {"model_type": "clipseg_text_model"} | their_sizes(config.text, TEXT),
        "vision_config": {"model_type": "clipseg_vision_model"} | their_sizes(config.vision, VISION),
    } | their_sizes(config, TOP)
