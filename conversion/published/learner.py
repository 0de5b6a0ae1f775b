"""The learner of a checkpoint of the published code, read off its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from conversion.published.tensors import LEARNER
from tunevlseg_jax.learners import VPT, CoCoOp, CoOp, MaPLe, Projector, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.base import ContextLearner
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.pretrained.rules import ConversionError, Tensors
from tunevlseg_jax.prompts import ModelSpec

PROJECTIONS = "projection_layers"
TEXT_PROJECTIONS = "textual_projection_layers"
VISION_PROJECTIONS = "visual_projection_layers"
FEED_FORWARD = f"{LEARNER}.{PROJECTIONS}.0.linear1.weight"
"""The first matrix that Shared Attention has and the other learners lack."""

Kind = Literal["CoOp", "CoCoOp", "VPT", "MaPLe", "SharedSeparate", "SharedAttention"]


@dataclass(frozen=True)
class Untold:
    """What leaves no trace in a learner's tensors; the defaults are those of the published configurations.

    Attributes:
      kind: class of the learner, where towers of equal widths leave it open; None reads it off the tensors.
      normalize_image: of CoCoOp, whether the image vector is brought to length 1 first.
      heads: of Shared Attention, the number of heads.
      norm_first: of Shared Attention, whether the block normalises before each part, or after each sum.
      attends_across_tokens: of Shared Attention, whether context tokens attend to one another; in the published code
        each sees itself alone.
    """

    kind: Kind | None = None
    normalize_image: bool = False
    heads: int = 16
    norm_first: bool = True
    attends_across_tokens: bool = False


def read_learner(theirs: Tensors, spec: ModelSpec, untold: Untold) -> ContextLearner:
    """The learner that tensors belong to; how its contexts started is unknown, so `init_phrase` is None.

    Args:
      theirs: by published name, such as "context_learner.context_vectors".
      spec: of the model.
      untold: what the tensors don't tell.

    Raises:
      ConversionError: they are no learner's that we know, or of another model.
    """
    context = theirs.get(f"{LEARNER}.context_vectors")
    if context is None or context.ndim != 3 or 0 in context.shape:
        raise ConversionError(f"{LEARNER}.context_vectors must be (depth, num_context, width)", "wrong-learner")
    depth, num_context, width = context.shape
    common = {"depth": depth, "num_context": num_context}
    match _kind(theirs, spec, width, untold.kind):
        case "CoOp":
            return CoOp(**common, init_phrase=None)
        case "VPT":
            return VPT(**common)
        case "CoCoOp":
            projector = _projector(theirs, PROJECTIONS, depth)
            return CoCoOp(**common, init_phrase=None, projector=projector, normalize_image=untold.normalize_image)
        case "MaPLe":
            return MaPLe(**common, init_phrase=None, projector=_projector(theirs, PROJECTIONS, depth))
        case "SharedSeparate":
            text, vision = (_projector(theirs, name, depth) for name in (TEXT_PROJECTIONS, VISION_PROJECTIONS))
            return SharedSeparate(**common, width=width, projector=text if vision.shared else vision)
        case "SharedAttention":
            return SharedAttention(
                **common,
                heads=untold.heads,
                hidden=np.atleast_1d(theirs[FEED_FORWARD]).shape[0],
                norm_first=untold.norm_first,
                attends_across_tokens=untold.attends_across_tokens,
            )


def without_copies(theirs: Tensors, learner: Learner) -> dict[str, np.ndarray]:
    """Tensors without the repetitions of a projector that all depths share: a state dict names it once for each."""
    copies = re.compile(rf"{LEARNER}\.\w*projection_layers\.[1-9]")
    return {name: x for name, x in theirs.items() if not (_shares(learner) and copies.match(name))}


def with_copies(theirs: Tensors, learner: Learner) -> dict[str, np.ndarray]:
    """The inverse of `without_copies`."""
    repeated = dict(theirs)
    if isinstance(learner, ContextLearner) and _shares(learner):
        for name, tensor in theirs.items():
            for depth in range(1, learner.depth):
                repeated[re.sub(r"(projection_layers)\.0\.", rf"\1.{depth}.", name)] = tensor
    return repeated


def _shares(learner: Learner) -> bool:
    return isinstance(learner, CoCoOp | MaPLe | SharedSeparate) and learner.projector.shared


def _kind(theirs: Tensors, spec: ModelSpec, width: int, asked: Kind | None) -> Kind:
    """The class of learner, from the names of tensors and, where two share them, from widths."""
    parts = {name.split(".")[1] for name in theirs if name.startswith(f"{LEARNER}.")}
    fitting: dict[Kind, bool]
    if TEXT_PROJECTIONS in parts:
        found = "shared vectors and two projectors"
        fitting = {"SharedSeparate": True}
    elif PROJECTIONS not in parts:
        found = f"context vectors of width {width}"
        fitting = {"CoOp": width == spec.text_width, "VPT": width == spec.vision_width}
    elif FEED_FORWARD in theirs:
        found = "shared vectors and transformer blocks"
        fitting = {"SharedAttention": True}
    else:
        shapes = list(_layers(_parts(theirs, PROJECTIONS, 0), PROJECTIONS).values())
        ends = shapes[0][1], shapes[-1][0]
        found = f"context vectors of width {width} and a projector from width {ends[0]} to {ends[1]}"
        fitting = {
            "CoCoOp": width == spec.text_width and ends == (spec.image_width, spec.text_width),
            "MaPLe": width == spec.text_width and ends == (spec.text_width, spec.vision_width),
        }
    kinds: list[Kind] = [kind for kind, fits in fitting.items() if fits and asked in (None, kind)]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise ConversionError(f"{found} may be {' or '.join(kinds)} here; give --learner.kind", "ambiguous-learner")
    which = f"no {asked}" if asked else "no learner"
    vision = "takes no prompts" if spec.vision_width is None else f"is {spec.vision_width} wide"
    raise ConversionError(
        f"{found} are {which} of this model, whose text tower is {spec.text_width} wide, whose vision tower {vision} "
        f"and whose image vector is {spec.image_width} wide",
        "wrong-learner",
    )


def _projector(theirs: Tensors, name: str, depth: int) -> Projector:
    """The projector under a name; its hidden widths, kind and norm from the first depth's.

    Equal tensors at every depth are one projector: trained apart, they would have come to differ.
    """
    first, *others = (_parts(theirs, name, number) for number in range(depth))
    shared = depth > 1 and (not any(others) or all(_equal(first, other) for other in others))
    layers = _layers(first, name)
    if -1 in layers:
        return Projector(kind="linear", hidden=(), norm=False, shared=shared)
    norm = any(part.endswith(".weight") and tensor.ndim == 1 for part, tensor in first.items())
    hidden = tuple(shape[0] for shape in layers.values())[:-1]
    if hidden:
        return Projector("low_rank" if 1 in layers else "mlp", hidden, norm, shared)
    if "0.bias" not in first:
        raise ConversionError(
            f"{LEARNER}.{name} is a single layer without bias, a low-rank projector wider than its output; unsupported",
            "wrong-learner",
        )
    return Projector(kind="linear", hidden=(), norm=norm, shared=shared)


def _layers(projector: Tensors, name: str) -> dict[int, tuple[int, ...]]:
    """The shape of each linear layer's kernel, by place in the `nn.Sequential`; -1 for a layer without one."""
    layers = {}
    for part, tensor in projector.items():
        match = re.fullmatch(r"(?:(\d+)\.)?weight", part)
        if match and tensor.ndim == 2:
            layers[int(match[1] or -1)] = tensor.shape
    if not layers:
        raise ConversionError(f"{LEARNER}.{name}.0 holds no linear layer", "wrong-learner")
    return dict(sorted(layers.items()))


def _parts(theirs: Tensors, name: str, depth: int) -> dict[str, np.ndarray]:
    """The tensors of one depth's projector, such as "0.weight", or "weight"."""
    prefix = f"{LEARNER}.{name}.{depth}."
    return {part.removeprefix(prefix): tensor for part, tensor in theirs.items() if part.startswith(prefix)}


def _equal(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(tensor, second[name]) for name, tensor in first.items())
