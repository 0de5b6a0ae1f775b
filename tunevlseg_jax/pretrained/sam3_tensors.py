"""The rules between the tensors of Hugging Face's SAM 3 and ours."""

import dataclasses
import math
from collections.abc import Iterator

from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.models.sam3_instances import SAM3InstancesConfig
from tunevlseg_jax.models.sam3_unused import SAM3UnusedConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clip_tensors import block, linear, norm, split_attention, text_rules
from tunevlseg_jax.pretrained.clipseg_tensors import NAMES as CLIPSEG_NAMES
from tunevlseg_jax.pretrained.rules import CONVOLUTION, COPY, LINEAR, Rule

PYRAMID = "vision_encoder.neck.fpn_layers"
NAMES = dataclasses.replace(
    CLIPSEG_NAMES,
    token_embedding="text_encoder.text_model.embeddings.token_embedding.weight",
    position_embedding="text_encoder.text_model.embeddings.position_embedding.weight",
    block="text_encoder.text_model.encoder.layers",
    final_norm="text_encoder.text_model.final_layer_norm",
    projection="text_encoder.text_projection.weight",
)
"""The names of the text tower."""
VISION_NAMES = dataclasses.replace(NAMES, attention="attention", norm1="layer_norm1", norm2="layer_norm2")

ATTENTIONS = {"self": "self_attn", "word": "text_cross_attn", "cell": "vision_cross_attn"}
"""Of a layer of queries, in their order: our names and theirs."""


def sam3_rules(config: SAM3Config) -> list[Rule]:
    """A rule for each of our tensors."""
    unused = () if config.unused is None else _unused(config, config.unused)
    instances = () if config.instances is None else _instances(config.instances)
    text = text_rules(config.text.blocks, NAMES, LINEAR)
    return [*text, *_vision(config), *_decoder(config), *unused, *instances]


def _vision(config: SAM3Config) -> Iterator[Rule]:
    ours, theirs = "vision_tower", "vision_encoder.backbone"
    embeddings = f"{theirs}.embeddings"
    yield Rule(f"{ours}/position_embedding", (f"{embeddings}.position_embeddings",), rules.FIRST)
    patches = rules.patches(config.vision.patch)
    yield Rule(f"{ours}/patch_embedding/kernel", (f"{embeddings}.patch_embeddings.projection.weight",), patches)
    yield from norm(f"{ours}/pre_norm", f"{theirs}.layer_norm")
    for number in range(config.vision.blocks):
        yield from block(f"{ours}/blocks/{number}", f"{theirs}.layers.{number}", VISION_NAMES, out="o_proj")
    for number, scale in enumerate(config.vision.scales):
        yield from _level(f"{ours}/pyramid/{number}", f"{PYRAMID}.{number}", scale)


def _level(ours: str, theirs: str, scale: float) -> Iterator[Rule]:
    """Of a grid of the pyramid; an activation stands between two transposed convolutions."""
    for number in range(int(math.log2(scale))):
        yield from linear(f"{ours}/unfolds/{number}", f"{theirs}.scale_layers.{2 * number}", rules.UNFOLD)
    yield from linear(f"{ours}/project", f"{theirs}.proj1", CONVOLUTION)
    yield from linear(f"{ours}/smooth", f"{theirs}.proj2", CONVOLUTION)


def _decoder(config: SAM3Config) -> Iterator[Rule]:
    yield from linear("decoder/words", "text_projection")
    for number in range(config.encoder_layers):
        ours, theirs = f"decoder/layers/{number}", f"detr_encoder.layers.{number}"
        yield from split_attention(f"{ours}/self_attention", f"{theirs}.self_attn", out="o_proj")
        yield from split_attention(f"{ours}/cross_attention", f"{theirs}.cross_attn", out="o_proj")
        yield from _mlp(ours, theirs)
        for norm_number in (1, 2, 3):
            yield from norm(f"{ours}/norm{norm_number}", f"{theirs}.layer_norm{norm_number}")
    yield from norm("decoder/prompt_norm", "mask_decoder.prompt_cross_attn_norm")
    yield from split_attention("decoder/prompt_attention", "mask_decoder.prompt_cross_attn", out="o_proj")
    for number in range(len(config.vision.scales) - 1):
        yield from _pixels(f"decoder/pixels/{number}", number)
    yield from linear("decoder/semantic", "mask_decoder.semantic_projection", CONVOLUTION)


def _pixels(ours: str, number: int) -> Iterator[Rule]:
    yield from linear(f"{ours}/conv", f"mask_decoder.pixel_decoder.conv_layers.{number}", CONVOLUTION)
    yield from norm(f"{ours}/norm", f"mask_decoder.pixel_decoder.norms.{number}")


def _unused(config: SAM3Config, unused: SAM3UnusedConfig) -> Iterator[Rule]:
    grids = len(config.vision.scales)
    yield from _level("unused/level", f"{PYRAMID}.{grids}", unused.scale)
    for number in range(unused.pixel_stages):
        yield from _pixels(f"unused/pixels/{number}", grids - 1 + number)
    yield from _boxes(unused)


def _boxes(unused: SAM3UnusedConfig) -> Iterator[Rule]:
    ours, theirs = "unused/boxes", "geometry_encoder"
    yield Rule(f"{ours}/label_embedding", (f"{theirs}.label_embed.weight",), COPY)
    yield Rule(f"{ours}/class_embedding", (f"{theirs}.cls_embed.weight",), COPY)
    yield from linear(f"{ours}/direct", f"{theirs}.boxes_direct_project")
    yield from linear(f"{ours}/pooled", f"{theirs}.boxes_pool_project", CONVOLUTION)
    yield from linear(f"{ours}/position", f"{theirs}.boxes_pos_enc_project")
    yield from linear(f"{ours}/final", f"{theirs}.final_proj")
    for name in ("vision", "prompt", "output"):
        yield from norm(f"{ours}/{name}_norm", f"{theirs}.{name}_layer_norm")
    for number in range(unused.box_layers):
        layer, their_layer = f"{ours}/layers/{number}", f"{theirs}.layers.{number}"
        for place, name in enumerate(("self_attn", "cross_attn")):
            yield from split_attention(f"{layer}/attentions/{place}", f"{their_layer}.{name}", out="o_proj")
        yield from _mlp(layer, their_layer)
        for place in range(3):
            yield from norm(f"{layer}/norms/{place}", f"{their_layer}.layer_norm{place + 1}")


def _instances(config: SAM3InstancesConfig) -> Iterator[Rule]:
    theirs = "detr_decoder"
    for number in range(config.layers):
        ours, layer = f"instances/layers/{number}", f"{theirs}.layers.{number}"
        for place, (name, their_name) in enumerate(ATTENTIONS.items(), 1):
            yield from split_attention(f"{ours}/{name}_attention", f"{layer}.{their_name}", out="o_proj")
            yield from norm(f"{ours}/norm{place}", f"{layer}.{their_name}_layer_norm")
        yield from _mlp(ours, layer)
        yield from norm(f"{ours}/norm{len(ATTENTIONS) + 1}", f"{layer}.mlp_layer_norm")
    embeddings = {"query": "query_embed", "box": "reference_points", "presence": "presence_token"}
    for name, their_name in embeddings.items():
        yield Rule(f"instances/{name}_embedding", (f"{theirs}.{their_name}.weight",), COPY)
    yield from norm("instances/query_norm", f"{theirs}.output_layer_norm")
    yield from norm("instances/presence_norm", f"{theirs}.presence_layer_norm")
    heads = {
        "box": ("box_head", 3),
        "presence": ("presence_head", 3),
        "position": ("ref_point_head", 2),
        "bias_across": ("box_rpb_embed_x", 2),
        "bias_down": ("box_rpb_embed_y", 2),
    }
    for name, (their_name, count) in heads.items():
        yield from _layers(f"instances/{name}", f"{theirs}.{their_name}", count)
    ours, theirs = "instances/scoring", "dot_product_scoring"
    yield from _layers(f"{ours}/mlp", f"{theirs}.text_mlp", 2)
    yield from norm(f"{ours}/norm", f"{theirs}.text_mlp_out_norm")
    yield from linear(f"{ours}/word", f"{theirs}.text_proj")
    yield from linear(f"{ours}/query", f"{theirs}.query_proj")
    for number in range(3):
        yield from linear(f"instances/mask/{number}", f"mask_decoder.mask_embedder.layers.{number}")
    yield from linear("instances/pixels", "mask_decoder.instance_projection", CONVOLUTION)


def _mlp(ours: str, theirs: str) -> Iterator[Rule]:
    yield from linear(f"{ours}/mlp/up", f"{theirs}.mlp.fc1")
    yield from linear(f"{ours}/mlp/down", f"{theirs}.mlp.fc2")


def _layers(ours: str, theirs: str, count: int) -> Iterator[Rule]:
    """Of a stack of linear layers, which they count from 1."""
    for number in range(count):
        yield from linear(f"{ours}/{number}", f"{theirs}.layer{number + 1}")
