"""Learners that add low-rank paths to the products of the towers: LoRA."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tunevlseg_jax.learners.base import per_row
from tunevlseg_jax.learners.blocks import BlockLearner, block_number, product_sizes
from tunevlseg_jax.learners.contract import Learner, Params
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import BlockChange, Dropout, LowRank, ModelSpec, Prompts
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array

ProductName = Literal["query", "key", "value", "out", "up", "down"]


@dataclass(frozen=True, kw_only=True)
class LoRA(BlockLearner):
    """Low-Rank Adaptation of both towers (Hu et al. 2022), by default as CLIP-LoRA has it (Zanella and Ben Ayed 2024).

    Attributes:
      depth: number of blocks of a tower that change, 1 or more; a tower with fewer blocks changes in all of them.
      start: whether the blocks are counted from the first, or backwards from the last that reaches the mask.
      products: changed products of a block: of the attention query, key, value and out; of the MLP up and down.
      rank: of the added matrices.
      alpha: numerator of their scale.
      scaling: the scale's denominator: the root of the rank (CLIP-LoRA), or the rank (LoRA and PEFT).
      dropout: share of the inputs of the low-rank paths that training drops.
    """

    space: ClassVar[Space] = {
        "depth": IntDistribution(1, 12),
        "rank": CategoricalDistribution((2, 4, 8, 16)),
        "dropout": FloatDistribution(0.0, 0.5),
    }
    padded_fields: ClassVar[tuple[str, ...]] = ("rank",)

    depth: int = 12
    start: Literal["first", "last"] = "first"
    products: tuple[ProductName, ...] = ("query", "key", "value")
    rank: int = 2
    alpha: float = 1.0
    scaling: Literal["root of rank", "rank"] = "root of rank"
    dropout: float = 0.25

    def static_part(self) -> Learner:
        static = super().static_part()
        return dataclasses.replace(static, dropout=0.0)

    def traced_values(self) -> tuple[int, float]:
        return self.depth, self.dropout

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        if self.rank < 1:
            raise ValueError(f"learner.rank must be at least 1, got {self.rank}")
        if not self.products or len(set(self.products)) != len(self.products):
            raise ValueError(f"learner.products must be one or more products, each once, got {self.products}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"learner.dropout must be at least 0 and below 1, got {self.dropout}")

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        return {
            tower: {
                name: self._pair(jax.random.fold_in(key, number), self.tower_rows(tower, spec), sizes)
                for number, (name, sizes) in enumerate(
                    product_sizes(tower, spec).items(), start=10 * (tower == "vision")
                )
                if name in self.products
            }
            for tower in self.changed_towers
        }

    def _pair(self, key: Array, rows: int, sizes: tuple[int, int]) -> Params:
        inputs, outputs = sizes
        bound = inputs**-0.5  # Kaiming-uniform with a = sqrt(5), PyTorch's default for a linear layer

        def down(row: Array) -> Array:
            return jax.random.uniform(row, (inputs, self.rank), minval=-bound, maxval=bound)

        up = jnp.zeros((rows, self.rank, outputs))
        return {"down": {"kernel": per_row(down, key, rows)}, "up": {"kernel": up}}

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        keys = [None, None] if key is None else jax.random.split(key)
        text, vision = (
            self._blocks(params[tower], depth, dropout, tower_key) if tower in params else None
            for tower, tower_key in zip(("text", "vision"), keys, strict=True)
        )
        return Prompts(text_blocks=text, vision_blocks=vision)

    def _blocks(self, products: Params, depth: Array, rate: Array, key: Array | None) -> dict[int, BlockChange]:
        (rows, *_), *_ = (pair["down"]["kernel"].shape for pair in products.values())
        changes = {}
        for row in range(rows):
            paths = {name: self._path(pair, row, depth) for name, pair in products.items()}
            dropout = None if key is None else Dropout(rate, jax.random.fold_in(key, row))
            changes[block_number(row, self.start)] = BlockChange(low_rank=paths, dropout=dropout)
        return changes

    def _path(self, pair: Mapping[str, Mapping[str, Array]], row: int, depth: Array) -> LowRank:
        """The path of a row; a row beyond the depth is zero."""
        down, up = pair["down"]["kernel"][row], pair["up"]["kernel"][row]
        # Counted, because in a program for several ranks the matrices are padded with zeros. A fresh A has none.
        rank = jnp.maximum(jnp.any(down != 0, axis=0).sum(), 1).astype(jnp.float32)
        scale = self.alpha / (jnp.sqrt(rank) if self.scaling == "root of rank" else rank)
        return LowRank(down, jnp.where(row < depth, scale * up, 0.0))
