"""Several learners at once on one model: Combined, such as VPT with LoRA."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, get_args

from tunevlseg_jax.learners.adapters import VLSMAdapter
from tunevlseg_jax.learners.contract import Change, Learner, Params
from tunevlseg_jax.learners.linear_probe import LinearProbe
from tunevlseg_jax.learners.low_rank import LoRA
from tunevlseg_jax.learners.multimodal import MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.learners.offsets import BitFit, NormTuning
from tunevlseg_jax.learners.textual import CoCoOp, CoOp
from tunevlseg_jax.learners.visual import VPT
from tunevlseg_jax.prompts import BlockChange, BlockChanges, ModelSpec, Prompts, join
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array

Part = (CoOp | CoCoOp | VPT | MaPLe | SharedSeparate | SharedAttention) | (
    LoRA | VLSMAdapter | BitFit | NormTuning | LinearProbe
)
PLACES = {
    "text": "the text tower's prompts",
    "vision": "the vision tower's prompts",
    "taps": "the taps' adapters",
    "text_taps": "the text adapters of the taps",
    "sentence": "the sentence vector's adapter",
    "head": "the linear head",
}
"""The places in a model that a field of `Prompts` is for, in words."""


@dataclass(frozen=True, kw_only=True)
class Combined(Learner):
    """Two or more learners that change different places of one model, trained together.

    Attributes:
      of: the learners, each with its own hyperparameters.
    """

    of: tuple[Part, ...] = (VPT(), LoRA())

    @property
    def name(self) -> str:
        return " with ".join(part.name for part in self.of)

    @property
    def parts(self) -> Mapping[str, Learner]:
        return {f"of.{number}.": part for number, part in enumerate(self.of)}

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset[Change]().union(*(part.changes for part in self.of))

    @property
    def text_tokens(self) -> int:
        return sum(part.text_tokens for part in self.of)

    def at_depth(self, depth: int) -> Learner:
        return self._of(part.at_depth(depth) for part in self.of)

    def static_part(self) -> Learner:
        return self._of(part.static_part() for part in self.of)

    def traced_values(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        depths, rates = zip(*(part.traced_values() for part in self.of), strict=True)
        return depths, rates

    def _of(self, parts: Iterable[Learner]) -> Learner:
        changed: Any = tuple(parts)
        return dataclasses.replace(self, of=changed)

    def init(self, key: Array, spec: ModelSpec) -> Params:
        if len(self.of) < 2:
            raise ValueError(f"learner.of must be two or more learners, got {len(self.of)}")
        params = {}
        for number, part in enumerate(self.of):
            if type(part) not in get_args(Part):  # such as a subclass with a regulariser, which nothing here passes on
                parts = ", ".join(cls.__name__ for cls in get_args(Part))
                raise ValueError(f"learner.of.{number} must be one of {parts}; got {type(part).__name__}")
            try:
                params[f"{number}"] = part.init(jax.random.fold_in(key, number), spec)
            except ValueError as error:
                raise ValueError(re.sub(r"\blearner\b", f"learner.of.{number}", str(error))) from error
        return {"of": params}

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        """`depth` and `dropout` are (parts,)."""
        keys = [None if key is None else jax.random.fold_in(key, number) for number in range(len(self.of))]
        return _joined(
            [
                part.prompts(params["of"][f"{number}"], depth[number], dropout=dropout[number], key=keys[number])
                for number, part in enumerate(self.of)
            ]
        )

    def condition(self, params: Params, prompts: Prompts, pooled: Array) -> Prompts:
        for number, part in enumerate(self.of):
            prompts = part.condition(params["of"][f"{number}"], prompts, pooled)
        return prompts

    def check_changes(self, params: Params) -> None:
        """As for any learner, of each part; and raises a ValueError if two parts change the same place."""
        places = []
        for number, part in enumerate(self.of):
            own = params["of"][f"{number}"]
            part.check_changes(own)
            places.append(_places(jax.eval_shape(_prompts_in_training(part), own)))
        for (one, first), (other, second) in itertools.combinations(enumerate(places), 2):
            for place in sorted(first & second):
                one, other = (f"learner.of.{number} ({self.of[number].name})" for number in (one, other))
                raise ValueError(f"{one} and {other} both change {place}; leave one out")


def _prompts_in_training(part: Learner) -> Any:
    """From a learner's parameters to its prompts, with dropout."""

    def prompts(params: Params) -> Prompts:
        return part.prompts(params, jnp.int32(1), dropout=jnp.float32(0), key=jax.random.key(0))

    return prompts


def _places(prompts: Prompts) -> set[str]:
    """The places that a learner changes, in words; those of blocks whatever the block."""
    places = {words for field, words in PLACES.items() if getattr(prompts, field) is not None}
    for tower, blocks in (("text", prompts.text_blocks), ("vision", prompts.vision_blocks)):
        for change in (blocks or {}).values():
            # Low-rank paths of a block share their dropout, so one learner gives them all.
            places |= {f"low-rank paths in the {tower} tower"} if change.low_rank else set()
            places |= {
                f"the {tower} blocks' adapters" for field in ("after_attention", "after_mlp") if change._asdict()[field]
            }
            for field in ("bias", "scale"):
                places |= {f"the {field} of {layer} in the {tower} tower's blocks" for layer in change._asdict()[field]}
    offsets = prompts.offsets or {}
    return places | {f"the {path} of the {stage} stage" for stage, of in offsets.items() for path in of}


def _joined(all_prompts: Sequence[Prompts]) -> Prompts:
    """The prompts and changes of learners that change different places."""
    joined = Prompts()
    for prompts in all_prompts:
        given = {name: value for name, value in prompts._asdict().items() if value is not None and name != "depth"}
        if prompts.text is not None:
            given["depth"] = prompts.depth
        if prompts.vision is not None:
            given["vision_depth"] = prompts.depth if prompts.vision_depth is None else prompts.vision_depth
        joined = joined._replace(**given)
    return joined._replace(
        text_blocks=_join_blocks([prompts.text_blocks for prompts in all_prompts]),
        vision_blocks=_join_blocks([prompts.vision_blocks for prompts in all_prompts]),
        offsets=_join_offsets([prompts.offsets or {} for prompts in all_prompts]),
    )


def _join_blocks(towers: Sequence[BlockChanges | None]) -> BlockChanges | None:
    numbers = dict.fromkeys(number for changes in towers for number in changes or {})
    blocks = {
        number: reduce(join, [(changes or {}).get(number, BlockChange()) for changes in towers]) for number in numbers
    }
    return blocks or None


def _join_offsets(parts: Sequence[Mapping[Any, Mapping[str, Array]]]) -> Any:
    stages = dict.fromkeys(stage for offsets in parts for stage in offsets)
    joined = {
        stage: {path: array for offsets in parts for path, array in offsets.get(stage, {}).items()} for stage in stages
    }
    return joined or None
