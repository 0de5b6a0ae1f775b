"""The rule for every tensor of a published CRIS and ours."""

from __future__ import annotations

from collections.abc import Iterator

from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.rules import Rule

NECK = {
    "enter5": "f1_v_proj",
    "enter4": "f2_v_proj",
    "join4": "f2_cat",
    "enter3": "f3_v_proj",
    "join3": "f3_cat",
    "leave5": "f4_proj5",
    "leave4": "f4_proj4",
    "leave3": "f4_proj3",
    "aggregate": "aggr",
    "locate": "coordconv.0.conv1",
    "last": "coordconv.1",
}
"""Convolutions with a BatchNorm each, by our name."""
LAYER_NORMS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
    "self_norm": "self_attn_norm",
    "cross_norm": "cross_attn_norm",
    "hidden_norm": "ffn.3",
}
"""Of a decoder layer."""


def cris_rules(config: CRISConfig) -> list[Rule]:
    """A rule for each of our tensors."""
    return [
        Rule("logit_scale", ("backbone.logit_scale",), rules.COPY),
        *_text(config),
        *_encoder(config),
        *_neck(),
        *_decoder(config),
        *_projector(),
    ]


def _text(config: CRISConfig) -> Iterator[Rule]:
    ours, theirs = "text_tower", "backbone"
    yield Rule(f"{ours}/token_embedding", (f"{theirs}.token_embedding.weight",), rules.COPY)
    yield Rule(f"{ours}/position_embedding", (f"{theirs}.positional_embedding",), rules.COPY)
    for number in range(config.text.blocks):
        block, source = f"{ours}/blocks/{number}", f"{theirs}.transformer.resblocks.{number}"
        yield from _attention(f"{block}/attention", f"{source}.attn")
        yield from _linear(f"{block}/mlp/up", f"{source}.mlp.c_fc")
        yield from _linear(f"{block}/mlp/down", f"{source}.mlp.c_proj")
        yield from _norm(f"{block}/norm1", f"{source}.ln_1")
        yield from _norm(f"{block}/norm2", f"{source}.ln_2")
    yield from _norm(f"{ours}/final_norm", f"{theirs}.ln_final")
    yield Rule(f"{ours}/projection/kernel", (f"{theirs}.text_projection",), rules.COPY)  # (in, out) in theirs too


def _encoder(config: CRISConfig) -> Iterator[Rule]:
    ours, theirs = "vision_tower", "backbone.visual"
    for number in range(3):
        yield from _conv_norm(f"{ours}/stem/{number}", f"{theirs}.conv{number + 1}", f"{theirs}.bn{number + 1}")
    for stage, blocks in enumerate(config.vision.layers):
        for number in range(blocks):
            block, source = f"{ours}/stages/{stage}/{number}", f"{theirs}.layer{stage + 1}.{number}"
            for part in range(1, 4):
                yield from _conv_norm(f"{block}/conv{part}", f"{source}.conv{part}", f"{source}.bn{part}")
            if number == 0:  # the first of a stage always changes the number of channels
                yield from _conv_norm(f"{block}/shortcut", f"{source}.downsample.0", f"{source}.downsample.1")
    ours, theirs = f"{ours}/pool", f"{theirs}.attnpool"
    yield Rule(f"{ours}/position_embedding", (f"{theirs}.positional_embedding",), rules.COPY)
    for parameter, kind, transpose in (("kernel", "weight", True), ("bias", "bias", False)):
        yield Rule(
            f"{ours}/attention/qkv/{parameter}",
            tuple(f"{theirs}.{letter}_proj.{kind}" for letter in "qkv"),
            rules.concatenated(3, transpose=transpose),
        )
    yield from _linear(f"{ours}/attention/out", f"{theirs}.c_proj")
    yield from _sequence(f"{ours}/connect", f"{theirs}.connect")


def _neck() -> Iterator[Rule]:
    ours, theirs = "decoder/neck", "neck"
    yield Rule(f"{ours}/sentence/kernel", (f"{theirs}.txt_proj.0.weight",), rules.LINEAR)
    yield from _batch_norm(f"{ours}/sentence_norm", f"{theirs}.txt_proj.1")
    yield from _batch_norm(f"{ours}/joint_norm", f"{theirs}.norm_layer.0")
    for name, source in NECK.items():
        yield from _sequence(f"{ours}/{name}", f"{theirs}.{source}")


def _decoder(config: CRISConfig) -> Iterator[Rule]:
    for number in range(config.decoder_layers):
        ours, theirs = f"decoder/layers/{number}", f"decoder.layers.{number}"
        yield from _attention(f"{ours}/self_attention", f"{theirs}.self_attn")
        yield from _attention(f"{ours}/cross_attention", f"{theirs}.multihead_attn")
        yield from _linear(f"{ours}/up", f"{theirs}.ffn.0")
        yield from _linear(f"{ours}/down", f"{theirs}.ffn.4")
        for name, source in LAYER_NORMS.items():
            yield from _norm(f"{ours}/{name}", f"{theirs}.{source}")
    yield from _norm("decoder/norm", "decoder.norm")


def _projector() -> Iterator[Rule]:
    ours, theirs = "decoder/projector", "proj"
    yield from _sequence(f"{ours}/conv1", f"{theirs}.vis.1")
    yield from _sequence(f"{ours}/conv2", f"{theirs}.vis.3")
    yield from _weights(f"{ours}/conv3", f"{theirs}.vis.4", rules.CONVOLUTION)
    yield from _linear(f"{ours}/sentence", f"{theirs}.txt")


def _attention(ours: str, theirs: str) -> Iterator[Rule]:
    yield Rule(f"{ours}/qkv/kernel", (f"{theirs}.in_proj_weight",), rules.LINEAR)
    yield Rule(f"{ours}/qkv/bias", (f"{theirs}.in_proj_bias",), rules.COPY)
    yield from _linear(f"{ours}/out", f"{theirs}.out_proj")


def _sequence(ours: str, theirs: str) -> Iterator[Rule]:
    """A convolution and a BatchNorm in an `nn.Sequential`."""
    return _conv_norm(ours, f"{theirs}.0", f"{theirs}.1")


def _conv_norm(ours: str, convolution: str, norm: str) -> Iterator[Rule]:
    yield Rule(f"{ours}/conv/kernel", (f"{convolution}.weight",), rules.CONVOLUTION)
    yield from _batch_norm(f"{ours}/norm", norm)


def _batch_norm(ours: str, theirs: str) -> Iterator[Rule]:
    yield from _norm(ours, theirs)
    yield Rule(f"{ours}/mean", (f"{theirs}.running_mean",), rules.COPY)
    yield Rule(f"{ours}/variance", (f"{theirs}.running_var",), rules.COPY)


def _linear(ours: str, theirs: str) -> Iterator[Rule]:
    return _weights(ours, theirs, rules.LINEAR)


def _weights(ours: str, theirs: str, move: rules.Move) -> Iterator[Rule]:
    yield Rule(f"{ours}/kernel", (f"{theirs}.weight",), move)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), rules.COPY)


def _norm(ours: str, theirs: str) -> Iterator[Rule]:
    yield Rule(f"{ours}/scale", (f"{theirs}.weight",), rules.COPY)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), rules.COPY)
