"""Learners that change the blocks of one tower or of both."""

from dataclasses import dataclass
from typing import Literal, cast

from tunevlseg_jax.learners.base import DeepLearner
from tunevlseg_jax.learners.contract import Change
from tunevlseg_jax.prompts import ModelSpec

Tower = Literal["text", "vision"]


@dataclass(frozen=True, kw_only=True)
class BlockLearner(DeepLearner):
    """A learner that changes the first `depth` blocks of the towers, as far as a tower has so many.

    Attributes:
      towers: the changed towers; CRIS has only a text tower with transformer blocks.
    """

    towers: Literal["both", "text", "vision"] = "both"

    @property
    def changed_towers(self) -> tuple[Tower, ...]:
        """The changed towers, text first."""
        return ("text", "vision") if self.towers == "both" else (self.towers,)

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset(cast(tuple[Change, ...], self.changed_towers))

    def largest_depth(self, spec: ModelSpec) -> int:
        return max(_blocks(tower, spec) for tower in self.changed_towers)

    def tower_rows(self, tower: Tower, spec: ModelSpec) -> int:
        """Number of blocks of a tower with parameters: no more than reach the mask."""
        return min(self.rows, _blocks(tower, spec))

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        if "vision" in self.changed_towers and spec.vision_width is None:
            kind = type(self).__name__
            raise ValueError(
                f"learner.towers must be text for this model, got {self.towers}: "
                f"its vision tower has no transformer blocks for {kind} to change"
            )
        if self.rows > self.largest_depth(spec):
            raise ValueError(
                f"learner.{self.rows_field} must be at most {self.largest_depth(spec)}, "
                f"the blocks of the changed towers, got {self.rows}"
            )


def block_number(row: int, start: Literal["first", "last"]) -> int:
    """The block that row `row` changes, as `BlockChanges` counts it."""
    return row if start == "first" else -1 - row


def width(tower: Tower, spec: ModelSpec) -> int:
    """Width of a tower's tokens."""
    return spec.text_width if tower == "text" else spec.vision_width or 0


def product_sizes(tower: Tower, spec: ModelSpec) -> dict[str, tuple[int, int]]:
    """The inputs and outputs of each product of a tower's blocks."""
    outer, hidden = width(tower, spec), spec.text_hidden if tower == "text" else spec.vision_hidden
    square = (outer, outer)
    attention = {"query": square, "key": square, "value": square, "out": square}
    return attention | {"up": (outer, hidden), "down": (hidden, outer)}


def _blocks(tower: Tower, spec: ModelSpec) -> int:
    """Number of a tower's blocks that reach the mask."""
    return spec.text_blocks if tower == "text" else spec.effective_vision_blocks
