"""The rules of CLIP's text tower and of the layers that several published models share."""

from collections.abc import Iterator
from dataclasses import dataclass

from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.rules import Rule


@dataclass(frozen=True)
class TextNames:
    """The names of a published text tower's tensors; those of `attention` to `norm2` follow a block's name.

    `joint` says whether a block holds the projections of queries, keys and values as a single tensor.
    """

    token_embedding: str
    position_embedding: str
    block: str
    attention: str
    joint: bool
    up: str
    down: str
    norm1: str
    norm2: str
    final_norm: str
    projection: str


def text_rules(blocks: int, names: TextNames, projection: rules.Move) -> Iterator[Rule]:
    """Of a text tower with `blocks` blocks; `projection` moves its last matrix."""
    yield Rule("text_tower/token_embedding", (names.token_embedding,), rules.COPY)
    yield Rule("text_tower/position_embedding", (names.position_embedding,), rules.COPY)
    for number in range(blocks):
        yield from block(f"text_tower/blocks/{number}", f"{names.block}.{number}", names)
    yield from norm("text_tower/final_norm", names.final_norm)
    yield Rule("text_tower/projection/kernel", (names.projection,), projection)


def block(ours: str, theirs: str, names: TextNames, out: str = "out_proj") -> Iterator[Rule]:
    """Of a transformer block; `out` names the last linear layer of an attention with split projections."""
    if names.joint:
        yield from joint_attention(f"{ours}/attention", f"{theirs}.{names.attention}")
    else:
        yield from split_attention(f"{ours}/attention", f"{theirs}.{names.attention}", out)
    yield from linear(f"{ours}/mlp/up", f"{theirs}.{names.up}")
    yield from linear(f"{ours}/mlp/down", f"{theirs}.{names.down}")
    yield from norm(f"{ours}/norm1", f"{theirs}.{names.norm1}")
    yield from norm(f"{ours}/norm2", f"{theirs}.{names.norm2}")


def joint_attention(ours: str, theirs: str) -> Iterator[Rule]:
    """Of an `nn.MultiheadAttention`, which holds the three projections in a single tensor."""
    yield Rule(f"{ours}/qkv/kernel", (f"{theirs}.in_proj_weight",), rules.LINEAR)
    yield Rule(f"{ours}/qkv/bias", (f"{theirs}.in_proj_bias",), rules.COPY)
    yield from linear(f"{ours}/out", f"{theirs}.out_proj")


def split_attention(ours: str, theirs: str, out: str = "out_proj") -> Iterator[Rule]:
    """Of an attention whose three projections are separate linear layers."""
    for parameter, kind in (("kernel", "weight"), ("bias", "bias")):
        names = tuple(f"{theirs}.{letter}_proj.{kind}" for letter in "qkv")
        yield Rule(f"{ours}/qkv/{parameter}", names, rules.concatenated(3, transpose=kind == "weight"))
    yield from linear(f"{ours}/out", f"{theirs}.{out}")


def linear(ours: str, theirs: str, move: rules.Move = rules.LINEAR) -> Iterator[Rule]:
    """Of a linear layer, or with another `move` of a convolution."""
    yield Rule(f"{ours}/kernel", (f"{theirs}.weight",), move)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), rules.COPY)


def norm(ours: str, theirs: str) -> Iterator[Rule]:
    """Of a LayerNorm, or the scale and bias of a BatchNorm."""
    yield Rule(f"{ours}/scale", (f"{theirs}.weight",), rules.COPY)
    yield Rule(f"{ours}/bias", (f"{theirs}.bias",), rules.COPY)
