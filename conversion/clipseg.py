"""Hugging Face's CLIPSeg and ours: the configuration, and the rules for every tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any


from conversion import rules
from conversion.rules import ConversionError, Rule
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig

# What transformers takes for a key that a config.json leaves out.
TEXT_DEFAULTS = {
    "hidden_size": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
VISION_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "patch_size": 32,
    "image_size": 224,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
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


def config_from_huggingface(theirs: dict[str, Any], preprocessor: dict[str, Any] | None = None) -> CLIPSegConfig:
    """Our configuration from a config.json and, where there is one, a preprocessor_config.json.

    Raises:
      ConversionError: it isn't a CLIPSeg, or one that this model can't be.
    """
    if theirs.get("model_type") != "clipseg":
        raise ConversionError(f"config.json says model_type {theirs.get('model_type')!r}, not 'clipseg'")
    text = TEXT_DEFAULTS | theirs.get("text_config", {})
    vision = VISION_DEFAULTS | theirs.get("vision_config", {})
    top = DEFAULTS | theirs
    for tower in (text, vision):
        for key, only in (("hidden_act", "quick_gelu"), ("layer_norm_eps", 1e-5)):
            if tower[key] != only:
                raise ConversionError(f"config.json asks for {key} {tower[key]!r}; CLIPSeg is made with {only!r}")
    config = CLIPSegConfig(
        text=TextConfig(
            width=text["hidden_size"],
            blocks=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            hidden=text["intermediate_size"],
            vocabulary=text["vocab_size"],
            context_length=text["max_position_embeddings"],
            end_token=text["eos_token_id"],
        ),
        vision=VisionConfig(
            width=vision["hidden_size"],
            blocks=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            hidden=vision["intermediate_size"],
            patch=vision["patch_size"],
            image_size=vision["image_size"],
        ),
        embedding_width=top["projection_dim"],
        taps=tuple(top["extract_layers"]),
        decoder_width=top["reduce_dim"],
        decoder_heads=top["decoder_num_attention_heads"],
        decoder_hidden=top["decoder_intermediate_size"],
        conditional_layer=top["conditional_layer"],
        complex_upsampling=top["use_complex_transposed_convolution"],
    )
    if preprocessor is None:
        return config
    return dataclasses.replace(
        config,
        image_size=preprocessor["size"]["height"],
        mean=tuple(preprocessor["image_mean"]),
        std=tuple(preprocessor["image_std"]),
    )


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


def clipseg_rules(config: CLIPSegConfig) -> list[Rule]:
    """A rule for each of our tensors."""
    return [
        Rule("logit_scale", ("clip.logit_scale",), rules.COPY),
        *_text(config),
        *_vision(config),
        *_decoder(config),
    ]


def _text(config: CLIPSegConfig) -> Iterator[Rule]:
    ours, theirs = "text_tower", "clip.text_model"
    yield Rule(f"{ours}/token_embedding", (f"{theirs}.embeddings.token_embedding.weight",), rules.COPY)
    yield Rule(f"{ours}/position_embedding", (f"{theirs}.embeddings.position_embedding.weight",), rules.COPY)
    for number in range(config.text.blocks):
        yield from _block(f"{ours}/blocks/{number}", f"{theirs}.encoder.layers.{number}")
    yield from _norm(f"{ours}/final_norm", f"{theirs}.final_layer_norm")
    yield Rule(f"{ours}/projection/kernel", ("clip.text_projection.weight",), rules.LINEAR)


def _vision(config: CLIPSegConfig) -> Iterator[Rule]:
    ours, theirs = "vision_tower", "clip.vision_model"
    yield Rule(f"{ours}/class_embedding", (f"{theirs}.embeddings.class_embedding",), rules.COPY)
    yield Rule(f"{ours}/position_embedding", (f"{theirs}.embeddings.position_embedding.weight",), rules.COPY)
    yield Rule(
        f"{ours}/patch_embedding/kernel",
        (f"{theirs}.embeddings.patch_embedding.weight",),
        rules.patches(config.vision.patch),
    )
    yield from _norm(f"{ours}/pre_norm", f"{theirs}.pre_layrnorm")  # their spelling
    for number in range(config.vision.blocks):
        yield from _block(f"{ours}/blocks/{number}", f"{theirs}.encoder.layers.{number}")
    yield from _norm(f"{ours}/post_norm", f"{theirs}.post_layernorm")
    yield Rule(f"{ours}/projection/kernel", ("clip.visual_projection.weight",), rules.LINEAR)


def _decoder(config: CLIPSegConfig) -> Iterator[Rule]:
    yield from _linear("decoder/film_scale", "decoder.film_mul")
    yield from _linear("decoder/film_shift", "decoder.film_add")
    for number in range(len(config.taps)):
        yield from _linear(f"decoder/reduces/{number}", f"decoder.reduces.{number}")
        yield from _block(f"decoder/blocks/{number}", f"decoder.layers.{number}")
    ours, theirs = "decoder/upsampling", "decoder.transposed_convolution"
    if config.complex_upsampling:
        yield from _weights(f"{ours}/convolution", f"{theirs}.0", rules.CONVOLUTION)
        yield from _weights(f"{ours}/unfold1", f"{theirs}.2", rules.UNFOLD)
        yield from _weights(f"{ours}/unfold2", f"{theirs}.4", rules.UNFOLD)
    else:
        yield from _weights(f"{ours}/pixels", theirs, rules.UNFOLD)


def _block(ours: str, theirs: str) -> Iterator[Rule]:
    projections = [f"{theirs}.self_attn.{letter}_proj" for letter in "qkv"]
    for parameter, kind, transpose in (("kernel", "weight", True), ("bias", "bias", False)):
        yield Rule(
            f"{ours}/attention/qkv/{parameter}",
            tuple(f"{name}.{kind}" for name in projections),
            rules.concatenated(3, transpose=transpose),
        )
    yield from _linear(f"{ours}/attention/out", f"{theirs}.self_attn.out_proj")
    yield from _linear(f"{ours}/mlp/up", f"{theirs}.mlp.fc1")
    yield from _linear(f"{ours}/mlp/down", f"{theirs}.mlp.fc2")
    yield from _norm(f"{ours}/norm1", f"{theirs}.layer_norm1")
    yield from _norm(f"{ours}/norm2", f"{theirs}.layer_norm2")


def _linear(ours: str, theirs: str) -> Iterator[Rule]:
    return _weights(ours, theirs, rules.LINEAR)


def _weights(ours: str, theirs: str, move: rules.Move) -> Iterator[Rule]:
    yield Rule(f"{ours}/kernel", (f"{theirs}.weight",), move)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), rules.COPY)


def _norm(ours: str, theirs: str) -> Iterator[Rule]:
    yield Rule(f"{ours}/scale", (f"{theirs}.weight",), rules.COPY)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), rules.COPY)
