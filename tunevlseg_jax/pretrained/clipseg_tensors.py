"""The rule for every tensor of Hugging Face's CLIPSeg and ours."""

from __future__ import annotations

from collections.abc import Iterator

from tunevlseg_jax.models import AnyModelConfig, CLIPSegConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.rules import Rule


def clipseg_rules(config: CLIPSegConfig) -> list[Rule]:
    """A rule for each of our tensors."""
    return [
        Rule("logit_scale", ("clip.logit_scale",), rules.COPY),
        *text_rules(config),
        *_vision(config),
        *_decoder(config),
    ]


def text_rules(config: AnyModelConfig) -> Iterator[Rule]:
    """Of the text tower, which CRIS shares."""
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
