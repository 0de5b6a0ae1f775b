"""Learners that add small layers between the frozen ones: VLSM-Adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from optuna.distributions import CategoricalDistribution, IntDistribution

from tunevlseg_jax.learners.base import linear, per_row
from tunevlseg_jax.learners.blocks import BlockLearner, Tower, width
from tunevlseg_jax.learners.contract import Change, Params
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import BlockChange, Bottleneck, ModelSpec, Prompts, TextTap
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array

AFTER = ("after_attention", "after_mlp")
"""The places of the dense adapters in a block, fields of `BlockChange`."""
TAPS: Mapping[Tower, str] = {"vision": "taps", "text": "text_taps"}
"""The places of the shallow adapters of each tower, fields of `Prompts`."""


@dataclass(frozen=True, kw_only=True)
class VLSMAdapter(BlockLearner):
    """VLSM-Adapter: bottlenecks with a residual in frozen towers, and on the sentence vector (Dhakal et al. 2024).

    Attributes:
      depth: number of changed blocks of a tower, 1 or more; with kind "shallow" the number of taps with adapters.
      kind: "dense", after the attention and after the MLP of the first blocks; "shallow", on the first taps, the vision
        states that the decoder reads, and from the text tower's states after the same blocks to the sentence vector.
      sentence: whether the sentence vector has an adapter too, the paper's condition adapter.
      hidden: width of the hidden layer in a tower; the paper has 64 for dense and 512 for shallow.
      sentence_hidden: that of the sentence vector's.
    """

    space: ClassVar[Space] = {"depth": IntDistribution(1, 11), "hidden": CategoricalDistribution((16, 32, 64, 128))}
    padded_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    kind: Literal["dense", "shallow"] = "dense"
    sentence: bool = True
    hidden: int = 64
    sentence_hidden: int = 256

    @property
    def changes(self) -> frozenset[Change]:
        sentence: frozenset[Change] = frozenset({"sentence"})
        return super().changes | sentence if self.sentence else super().changes

    def largest_depth(self, spec: ModelSpec) -> int:
        return super().largest_depth(spec) if self.kind == "dense" else spec.taps

    def check(self, spec: ModelSpec) -> None:
        if self.kind == "shallow" and not spec.taps:
            raise ValueError("learner.kind must be dense for this model, got shallow: its decoder reads no taps")
        if self.kind == "shallow" and self.towers != "vision" and not spec.text_taps:
            raise ValueError(
                f"learner.towers must be vision for learner.kind shallow on this model, got {self.towers}: a text "
                "adapter needs a text block for each tap, and a text tower as wide as the sentence vector"
            )
        super().check(spec)
        if self.sentence and spec.sentence_width is None:
            raise ValueError(
                "learner.sentence must be False for VLSM-Adapter on this model, got True: its decoder doesn't read the "
                "sentence vector"
            )
        for name in ("hidden", "sentence_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"learner.{name} must be at least 1, got {getattr(self, name)}")

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        keys = iter(jax.random.split(key, 6))
        params: Params = {}
        if self.kind == "shallow":
            for tower in reversed(self.changed_towers):
                outer = width(tower, spec)
                params[TAPS[tower]] = bottleneck_params(next(keys), self.rows, outer, self.hidden)
        else:
            for tower in self.changed_towers:
                rows = self.tower_rows(tower, spec)
                params[tower] = {
                    name: bottleneck_params(next(keys), rows, width(tower, spec), self.hidden) for name in AFTER
                }
        if self.sentence:
            assert spec.sentence_width is not None
            params["sentence"] = bottleneck_params(next(keys), 1, spec.sentence_width, self.sentence_hidden)
        return params

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        del dropout, key
        text, vision = (_blocks(params[tower], depth) if tower in params else None for tower in ("text", "vision"))
        taps = dict(enumerate(_bottlenecks(params["taps"], depth))) if "taps" in params else None
        sentence = _bottlenecks(params["sentence"], depth)[0] if "sentence" in params else None
        text_taps = dict(enumerate(_text_taps(params["text_taps"], depth))) if "text_taps" in params else None
        return Prompts(text_blocks=text, vision_blocks=vision, taps=taps, text_taps=text_taps, sentence=sentence)


def bottleneck_params(key: Array, rows: int, width: int, hidden: int) -> Params:
    """Parameters of one bottleneck a row, from PyTorch's default distributions: `down` and `up`, see `linear`."""
    layers = {"down": (width, hidden), "up": (hidden, width)}
    params = {}
    for number, (name, (inputs, outputs)) in enumerate(layers.items()):
        kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, number))
        bound = inputs**-0.5

        def bias(row: Array, outputs: int = outputs, bound: float = bound) -> Array:
            return jax.random.uniform(row, (outputs,), minval=-bound, maxval=bound)

        params[name] = linear(kernel_key, rows, inputs, outputs) | {"bias": per_row(bias, bias_key, rows)}
    return params


def _blocks(places: Params, depth: Array) -> dict[int, BlockChange]:
    attention, mlp = (_bottlenecks(places[name], depth) for name in AFTER)
    return {row: BlockChange(after_attention=attention[row], after_mlp=mlp[row]) for row in range(len(mlp))}


def _text_taps(params: Params, depth: Array) -> list[TextTap]:
    """The way of each row to the sentence vector."""
    weights = (jnp.where(row < depth, 1.0, 0.0) for row in range(len(params["down"]["kernel"])))
    return list(map(TextTap, weights, _bottlenecks(params, depth)))


def _bottlenecks(params: Params, depth: Array) -> list[Bottleneck]:
    """The bottleneck of each row; a row beyond the depth adds nothing."""
    down, up = params["down"], params["up"]
    return [
        Bottleneck(
            down["kernel"][row],
            down["bias"][row],
            jnp.where(row < depth, up["kernel"][row], 0.0),
            jnp.where(row < depth, up["bias"][row], 0.0),
        )
        for row in range(len(down["kernel"]))
    ]
