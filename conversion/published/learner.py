"""Derives the learner of a published checkpoint from the names and shapes of its tensors."""

import re

import numpy as np

from conversion.published.options import Kind, UnstoredSettings
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
"""A matrix that only Shared Attention has."""


def read_learner(theirs: Tensors, spec: ModelSpec, unstored: UnstoredSettings) -> ContextLearner:
    """The learner of some tensors; `init_phrase` is None, since the initial phrase is unknown.

    Args:
      theirs: by published name, such as "context_learner.context_vectors".
      spec: of the model.
      unstored: settings that the tensors don't show.

    Raises:
      ConversionError: the tensors belong to an unknown learner, or to another model.
    """
    context = theirs.get(f"{LEARNER}.context_vectors")
    if context is None or context.ndim != 3 or 0 in context.shape:
        raise ConversionError(f"{LEARNER}.context_vectors must be (depth, num_context, width)", "wrong-learner")
    depth, num_context, width = context.shape
    common = {"depth": depth, "num_context": num_context}
    match _kind(theirs, spec, width, unstored.kind):
        case "CoOp":
            return CoOp(**common, init_phrase=None)
        case "VPT":
            return VPT(**common)
        case "CoCoOp":
            projector = _projector(theirs, PROJECTIONS, depth)
            return CoCoOp(**common, init_phrase=None, projector=projector, normalize_image=unstored.normalize_image)
        case "MaPLe":
            return MaPLe(**common, init_phrase=None, projector=_projector(theirs, PROJECTIONS, depth))
        case "SharedSeparate":
            text, vision = (_projector(theirs, name, depth) for name in (TEXT_PROJECTIONS, VISION_PROJECTIONS))
            return SharedSeparate(**common, width=width, projector=text if vision.shared else vision)
        case "SharedAttention":
            return SharedAttention(
                **common,
                heads=unstored.heads,
                hidden=np.atleast_1d(theirs[FEED_FORWARD]).shape[0],
                norm_first=unstored.norm_first,
                attends_across_tokens=unstored.attends_across_tokens,
            )


def without_copies(theirs: Tensors, learner: Learner) -> dict[str, np.ndarray]:
    """Tensors without the copies of a projector that all depths share: a state dict holds one for each depth."""
    copies = re.compile(rf"{LEARNER}\.\w*projection_layers\.[1-9]")
    return {name: x for name, x in theirs.items() if not (_shares(learner) and copies.match(name))}


def with_copies(theirs: Tensors, learner: Learner) -> dict[str, np.ndarray]:
    """The inverse of `without_copies`."""
    tensors = dict(theirs)
    if isinstance(learner, ContextLearner) and _shares(learner):
        for name, tensor in theirs.items():
            for depth in range(1, learner.depth):
                tensors[re.sub(r"(projection_layers)\.0\.", rf"\1.{depth}.", name)] = tensor
    return tensors


def _shares(learner: Learner) -> bool:
    return isinstance(learner, CoCoOp | MaPLe | SharedSeparate) and learner.projector.shared


def _kind(theirs: Tensors, spec: ModelSpec, width: int, asked: Kind | None) -> Kind:
    """The class of the learner, from the names of its tensors, and from widths where two learners share the names."""
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
    """The projector under a name, with the hidden widths, kind and norm of the first depth's.

    It is shared if the tensors of all depths are equal, since separate projectors would differ after training.
    """
    first, *others = (_parts(theirs, name, number) for number in range(depth))
    same = all(
        other.keys() == first.keys() and all(np.array_equal(x, other[part]) for part, x in first.items())
        for other in others
    )
    shared = depth > 1 and (same or not any(others))
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
    """The shape of each linear layer's kernel, by index in the `nn.Sequential`; -1 for a bare layer."""
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
