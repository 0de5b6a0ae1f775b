"""Learners that shift vectors of the frozen model: BitFit its biases, NormTuning the scales and shifts of its norms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from optuna.distributions import IntDistribution

from tunevlseg_jax.learners.blocks import BlockLearner, Tower, product_sizes, width
from tunevlseg_jax.learners.contract import Change, Params
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import BlockChange, ModelSpec, Prompts, Stage
from tunevlseg_jax.runtime.lazy import jnp, traverse_util

if TYPE_CHECKING:
    from jax import Array

Layer = Literal["query", "value", "out", "up", "down", "norm1", "norm2"]
NORMS = ("norm1", "norm2")


@dataclass(frozen=True, kw_only=True)
class OffsetLearner(BlockLearner):
    """A learner of differences of vectors of the frozen model, which start from zero.

    Vectors outside of the towers' blocks change whatever the depth.

    Attributes:
      depth: number of blocks of a tower that change, 1 or more; a tower with fewer blocks changes in all of them.
      decoder: whether the decoder's vectors change too.
    """

    space: ClassVar[Space] = {"depth": IntDistribution(1, 12)}

    depth: int = 12
    decoder: bool = False

    @abstractmethod
    def in_blocks(self, tower: Tower, spec: ModelSpec) -> dict[str, int]:
        """The widths of the changed vectors of a block, by path such as "norm1/bias"."""

    @abstractmethod
    def takes(self, path: str, vectors: Mapping[str, int]) -> bool:
        """Whether one of the `vectors` outside of blocks changes."""

    @property
    def changes(self) -> frozenset[Change]:
        decoder: frozenset[Change] = frozenset({"decoder"})
        return super().changes | decoder if self.decoder else super().changes

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the model that change."""
        return (*self.changed_towers, "decoder") if self.decoder else self.changed_towers

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        vectors = {
            f"{tower}/{path}": jnp.zeros((self.tower_rows(tower, spec), size))
            for tower in self.changed_towers
            for path, size in self.in_blocks(tower, spec).items()
        }
        for stage in self.stages:
            outside = spec.vectors(stage)
            taken = {path: size for path, size in outside.items() if self.takes(path, outside)}
            vectors |= {f"outside/{stage}/{path}": jnp.zeros((1, size)) for path, size in taken.items()}
        return traverse_util.unflatten_dict(vectors, sep="/")

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        del dropout, key
        text, vision = (_blocks(params[tower], depth) if tower in params else None for tower in ("text", "vision"))
        offsets: dict[Stage, dict[str, Array]] = {
            stage: {path: array[0] for path, array in _flat(layers).items()}
            for stage, layers in params.get("outside", {}).items()
        }
        return Prompts(text_blocks=text, vision_blocks=vision, offsets=offsets or None)


@dataclass(frozen=True, kw_only=True)
class BitFit(OffsetLearner):
    """BitFit: only biases of the frozen model are learnt (Ben Zaken et al. 2022, section 3).

    Attributes:
      biases: layers of a block whose biases change. The keys' aren't among them: softmax cancels a bias of the keys.
    """

    biases: tuple[Layer, ...] = ("query", "value", "out", "up", "down", "norm1", "norm2")

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        if not self.biases or len(set(self.biases)) != len(self.biases):
            raise ValueError(f"learner.biases must be one or more layers, each once, got {self.biases}")

    def in_blocks(self, tower: Tower, spec: ModelSpec) -> dict[str, int]:
        sizes = {name: outputs for name, (_, outputs) in product_sizes(tower, spec).items()}
        sizes |= dict.fromkeys(NORMS, width(tower, spec))
        return {f"{name}/bias": sizes[name] for name in self.biases}

    def takes(self, path: str, vectors: Mapping[str, int]) -> bool:
        return path.endswith("/bias")


@dataclass(frozen=True, kw_only=True)
class NormTuning(OffsetLearner):
    """Norm tuning: only scales and shifts of the frozen model's norms are learnt (Basu et al. 2024)."""

    def in_blocks(self, tower: Tower, spec: ModelSpec) -> dict[str, int]:
        return {f"{name}/{part}": width(tower, spec) for name in NORMS for part in ("scale", "bias")}

    def takes(self, path: str, vectors: Mapping[str, int]) -> bool:
        return f"{path.rpartition('/')[0]}/scale" in vectors


def _flat(layers: Params) -> dict[str, Array]:
    """The vectors of layers by path."""
    return cast("dict[str, Array]", traverse_util.flatten_dict(layers, sep="/"))


def _blocks(layers: Params, depth: Array) -> dict[int, BlockChange]:
    """The change of each row; a row beyond the depth is zero."""
    vectors = {tuple(path.split("/")): array for path, array in _flat(layers).items()}

    def part(row: int, name: str) -> dict[str, Array]:
        return {layer: jnp.where(row < depth, x[row], 0.0) for (layer, kind), x in vectors.items() if kind == name}

    rows = len(next(iter(vectors.values())))
    return {row: BlockChange(bias=part(row, "bias"), scale=part(row, "scale")) for row in range(rows)}
