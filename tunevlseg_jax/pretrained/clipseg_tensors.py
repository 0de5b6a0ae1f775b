"""The rules between the tensors of Hugging Face's CLIPSeg and ours."""

from collections.abc import Iterator

from tunevlseg_jax.models.catalogue import CLIPSegConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clip_tensors import TextNames, block, linear, norm, text_rules
from tunevlseg_jax.pretrained.rules import Rule

NAMES = TextNames(
    token_embedding="clip.text_model.embeddings.token_embedding.weight",
    position_embedding="clip.text_model.embeddings.position_embedding.weight",
    block="clip.text_model.encoder.layers",
    attention="self_attn",
    joint=False,
    up="mlp.fc1",
    down="mlp.fc2",
    norm1="layer_norm1",
    norm2="layer_norm2",
    final_norm="clip.text_model.final_layer_norm",
    projection="clip.text_projection.weight",
)
"""The names that Hugging Face gives to CLIP's text tower."""


def clipseg_rules(config: CLIPSegConfig) -> list[Rule]:
    """A rule for each of our tensors."""
    return [
        Rule("logit_scale", ("clip.logit_scale",), rules.COPY),
        *text_rules(config.text.blocks, NAMES, rules.LINEAR),
        *_vision(config),
        *_decoder(config),
    ]


def _vision(config: CLIPSegConfig) -> Iterator[Rule]:
    ours, theirs = "vision_tower", "clip.vision_model"
    yield Rule(f"{ours}/class_embedding", (f"{theirs}.embeddings.class_embedding",), rules.COPY)
    yield Rule(f"{ours}/position_embedding", (f"{theirs}.embeddings.position_embedding.weight",), rules.COPY)
    yield Rule(
        f"{ours}/patch_embedding/kernel",
        (f"{theirs}.embeddings.patch_embedding.weight",),
        rules.patches(config.vision.patch),
    )
    yield from norm(f"{ours}/pre_norm", f"{theirs}.pre_layrnorm")  # their spelling
    for number in range(config.vision.blocks):
        yield from block(f"{ours}/blocks/{number}", f"{theirs}.encoder.layers.{number}", NAMES)
    yield from norm(f"{ours}/post_norm", f"{theirs}.post_layernorm")
    yield Rule(f"{ours}/projection/kernel", ("clip.visual_projection.weight",), rules.LINEAR)


def _decoder(config: CLIPSegConfig) -> Iterator[Rule]:
    yield from linear("decoder/film_scale", "decoder.film_mul")
    yield from linear("decoder/film_shift", "decoder.film_add")
    for number in range(len(config.taps)):
        yield from linear(f"decoder/reduces/{number}", f"decoder.reduces.{number}")
        yield from block(f"decoder/blocks/{number}", f"decoder.layers.{number}", NAMES)
    ours, theirs = "decoder/upsampling", "decoder.transposed_convolution"
    if config.complex_upsampling:
        yield from linear(f"{ours}/convolution", f"{theirs}.0", rules.CONVOLUTION)
        yield from linear(f"{ours}/unfold1", f"{theirs}.2", rules.UNFOLD)
        yield from linear(f"{ours}/unfold2", f"{theirs}.4", rules.UNFOLD)
    else:
        yield from linear(f"{ours}/pixels", theirs, rules.UNFOLD)
