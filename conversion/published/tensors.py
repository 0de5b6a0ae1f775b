"""The rules between the trained tensors of the published PyTorch code and ours."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax import numpy as jnp

from tunevlseg_jax.learners import CoCoOp, MaPLe, Projector, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.base import ContextLearner
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clip_tensors import joint_attention, linear, norm
from tunevlseg_jax.pretrained.rules import Move, Rule, Tensors

LEARNER = "context_learner"
"""Prefix of a learner's tensors in the published nets; in a whole checkpoint another prefix precedes it."""
UPSAMPLER = "additive_decoder_layer"
RATIO = "residual_ratio"

UPSAMPLER_KERNEL = Move(
    lambda tensors: tensors[0].squeeze(0).transpose(1, 2, 0),
    lambda tensor: [tensor.transpose(2, 0, 1)[None]],
)
"""(1, channels, height, width) to (height, width, channels)."""
MIX = Move(
    lambda tensors: tensors[0].squeeze((2, 3)).transpose(),
    lambda tensor: [tensor.transpose()[..., None, None]],
)
"""A 1x1 convolution's (out, in, 1, 1) to (in, out)."""
SCALAR = Move(lambda tensors: tensors[0].reshape(()), lambda tensor: [tensor.reshape(1)])
UNUSED_RATIO = Move(lambda _: np.asarray(0.5, np.float32), lambda _: [])
"""The ratio of an upsampler that adds, which is missing in the published code and unused in ours."""


def shifted(rows: int) -> Move:
    """Context vectors plus the biases of CoCoOp's `rows` linear projectors. Ours have no bias, since a shift that is
    the same for every image is part of the context; the inverse gives biases of zero."""
    return Move(
        lambda tensors: tensors[0] + np.stack(tensors[1:])[:, None],
        lambda tensor: [tensor, *np.zeros((rows, tensor.shape[-1]), tensor.dtype)],
    )


Shapes = Mapping[str, tuple[int, ...]]


def from_published(theirs: Tensors, network: Network) -> dict[str, np.ndarray]:
    """Our trained tensors from published ones, strictly.

    Args:
      theirs: tensors by published name, such as "context_learner.context_vectors", for `learner.depth` depths.
      network: with a learner whose `max_depth` is None or its depth.

    Returns:
      Tensors by path, such as "learner/context".

    Raises:
      ConversionError: names that are missing, left over, or of another shape.
    """
    return rules.to_ours(published_rules(network), theirs, trained_shapes(network))


def to_published(ours: Tensors, network: Network) -> dict[str, np.ndarray]:
    """Published tensors from ours, the inverse of `from_published`; prompts beyond `learner.depth` stay behind.

    Args:
      ours: tensors of learner and upsampler by path.
      network: whose they are.

    Raises:
      ConversionError: a tensor has no published name, or one is missing.
    """
    learner = network.learner
    if isinstance(learner, ContextLearner):
        ours = {path: array[: learner.depth] if path.startswith("learner/") else array for path, array in ours.items()}
        network = dataclasses.replace(network, learner=dataclasses.replace(learner, max_depth=None))
    return rules.to_theirs(published_rules(network), ours)


def trained_shapes(network: Network) -> Shapes:
    """The shape of each of our trained tensors."""

    def embed_phrase(phrase: str) -> jax.Array:
        del phrase  # only the shape matters
        assert isinstance(network.learner, ContextLearner)
        return jnp.zeros((network.learner.num_context, network.config.text.width))

    spec = network.config.spec(embed_phrase)
    params = jax.eval_shape(lambda key: network.init(key, {}, spec), jax.random.key(0))
    return {path: leaf.shape for path, leaf in params.items()}


def published_rules(network: Network) -> list[Rule]:
    """A rule for each of our trained tensors."""
    return [*_learner(network, trained_shapes(network)), *_upsampler(network)]


def _learner(network: Network, shapes: Shapes) -> Iterator[Rule]:
    learner, context = network.learner, (f"{LEARNER}.context_vectors",)
    if isinstance(learner, SharedAttention):
        text = network.config.text.width
        yield Rule("learner/text_context", context, rules.columns(0, text))
        yield Rule("learner/vision_context", context, rules.columns(text, None))
        yield from _transformer_block(learner.rows)
    elif isinstance(learner, CoCoOp) and learner.projector.kind == "linear" and not learner.projector.norm:
        rows = shapes["learner/projector/layer0/kernel"][0]
        biases = tuple(f"{LEARNER}.projection_layers.{depth}.bias" for depth in range(rows))
        yield Rule("learner/context", context + biases, shifted(rows))
    elif isinstance(learner, ContextLearner):
        yield Rule("learner/context", context, rules.COPY)
    if isinstance(learner, CoCoOp | MaPLe):
        yield from _projector("projector", "projection_layers", learner.projector, shapes)
    elif isinstance(learner, SharedSeparate):
        yield from _projector("text_projector", "textual_projection_layers", learner.projector, shapes)
        yield from _projector("vision_projector", "visual_projection_layers", learner.projector, shapes)


def _projector(ours: str, theirs: str, projector: Projector, shapes: Shapes) -> Iterator[Rule]:
    """A projector is an `nn.Sequential` with its activations counted, or a bare linear layer."""
    hidden = 0 if projector.kind == "linear" else len(projector.hidden)
    stride = 2 if projector.kind == "mlp" else 1
    bare = projector.kind == "linear" and not projector.norm
    places = {f"layer{number}": "" if bare else f".{number * stride}" for number in range(hidden + 1)}
    if projector.norm:
        places["norm"] = f".{hidden * stride + 1}"
    for part, place in places.items():
        for parameter, kind in (("kernel", "weight"), ("scale", "weight"), ("bias", "bias")):
            path = f"learner/{ours}/{part}/{parameter}"
            if path in shapes:  # not every layer has a bias
                yield _by_depth(path, theirs, f"{place}.{kind}", shapes[path][0])


def _transformer_block(rows: int) -> Iterator[Rule]:
    """A block is an `nn.TransformerEncoderLayer`."""
    for rule in (
        *joint_attention("learner", "self_attn"),
        *linear("learner/up", "linear1"),
        *linear("learner/down", "linear2"),
        *norm("learner/norm1", "norm1"),
        *norm("learner/norm2", "norm2"),
    ):
        yield _by_depth(rule.ours, "projection_layers", f".{rule.theirs[0]}", rows)


def _by_depth(ours: str, theirs: str, name: str, rows: int) -> Rule:
    """The rule of a tensor that the published nets hold once for each depth."""
    move = rules.LINEAR if ours.endswith("/kernel") else rules.COPY
    return Rule(ours, tuple(f"{LEARNER}.{theirs}.{depth}{name}" for depth in range(rows)), rules.stacked(move))


def _upsampler(network: Network) -> Iterator[Rule]:
    if network.upsampling == "none":
        return
    convolution = f"{UPSAMPLER}.1"
    if network.config.upsampler_width is not None:  # CRIS has a 1x1 convolution before the resize
        yield Rule("upsampler/mix/kernel", (f"{UPSAMPLER}.0.weight",), MIX)
        convolution = f"{UPSAMPLER}.2"
    yield Rule("upsampler/kernel", (f"{convolution}.weight",), UPSAMPLER_KERNEL)
    yield Rule("upsampler/bias", (f"{convolution}.bias",), SCALAR)
    blend = network.upsampling == "blend"
    yield Rule("upsampler/ratio", (RATIO,), rules.COPY) if blend else Rule("upsampler/ratio", (), UNUSED_RATIO)
