"""The rules between the tensors of a published CRIS and ours."""

from collections.abc import Iterator

from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clip_tensors import TextNames, joint_attention, linear, norm, split_attention, text_rules
from tunevlseg_jax.pretrained.rules import Rule

NAMES = TextNames(
    token_embedding="backbone.token_embedding.weight",
    position_embedding="backbone.positional_embedding",
    block="backbone.transformer.resblocks",
    attention="attn",
    joint=True,
    up="mlp.c_fc",
    down="mlp.c_proj",
    norm1="ln_1",
    norm2="ln_2",
    final_norm="backbone.ln_final",
    projection="backbone.text_projection",
)
"""The names that OpenAI gives to CLIP's text tower."""
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
"""The neck's convolutions with a BatchNorm: our name to theirs."""
LAYER_NORMS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "norm3": "norm3",
    "self_norm": "self_attn_norm",
    "cross_norm": "cross_attn_norm",
    "hidden_norm": "ffn.3",
}
"""The LayerNorms of a decoder layer: our name to theirs."""


def cris_rules(config: CRISConfig) -> list[Rule]:
    """A rule for each of our tensors."""
    return [
        Rule("logit_scale", ("backbone.logit_scale",), rules.COPY),
        *text_rules(config.text.blocks, NAMES, rules.COPY),  # (in, out) in theirs too
        *_encoder(config),
        *_neck(),
        *_decoder(config),
        *_projector(),
    ]


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
    yield from split_attention(f"{ours}/attention", theirs, out="c_proj")
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
        yield from joint_attention(f"{ours}/self_attention", f"{theirs}.self_attn")
        yield from joint_attention(f"{ours}/cross_attention", f"{theirs}.multihead_attn")
        yield from linear(f"{ours}/up", f"{theirs}.ffn.0")
        yield from linear(f"{ours}/down", f"{theirs}.ffn.4")
        for name, source in LAYER_NORMS.items():
            yield from norm(f"{ours}/{name}", f"{theirs}.{source}")
    yield from norm("decoder/norm", "decoder.norm")


def _projector() -> Iterator[Rule]:
    ours, theirs = "decoder/projector", "proj"
    yield from _sequence(f"{ours}/conv1", f"{theirs}.vis.1")
    yield from _sequence(f"{ours}/conv2", f"{theirs}.vis.3")
    yield from linear(f"{ours}/conv3", f"{theirs}.vis.4", rules.CONVOLUTION)
    yield from linear(f"{ours}/sentence", f"{theirs}.txt")


def _sequence(ours: str, theirs: str) -> Iterator[Rule]:
    """A convolution and a BatchNorm in an `nn.Sequential`."""
    return _conv_norm(ours, f"{theirs}.0", f"{theirs}.1")


def _conv_norm(ours: str, convolution: str, norm: str) -> Iterator[Rule]:
    yield Rule(f"{ours}/conv/kernel", (f"{convolution}.weight",), rules.CONVOLUTION)
    yield from _batch_norm(f"{ours}/norm", norm)


def _batch_norm(ours: str, theirs: str) -> Iterator[Rule]:
    yield from norm(ours, theirs)
    yield Rule(f"{ours}/mean", (f"{theirs}.running_mean",), rules.COPY)
    yield Rule(f"{ours}/variance", (f"{theirs}.running_var",), rules.COPY)
