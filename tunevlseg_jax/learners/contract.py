"""What a learner is: hyperparameters, and pure functions from parameters to prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jax import Array

from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import ModelSpec, Prompts

Params = dict[str, Any]
"""A learner's parameters: a nested dict of arrays."""


@dataclass(frozen=True, kw_only=True)
class Learner(ABC):
    """A way to learn prompts: hyperparameters as fields, and pure functions from parameters to `Prompts`.

    No learner reads hidden states, so nothing here knows a model; see the paper's section 3.
    """

    per_image: ClassVar[bool] = False
    """Whether `condition` makes a prompt of its own for every image."""
    text_prompts: ClassVar[bool] = False
    vision_prompts: ClassVar[bool] = False
    space: ClassVar[Space] = {}
    """What a search varies of the fields, unless told otherwise."""
    padded_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that are widths of hidden units: with parameters padded by zeros a wider learner computes the same, and
    its zeros stay zeros in training, so that trials of different widths share a program."""

    @abstractmethod
    def init(self, key: Array, towers: ModelSpec) -> Params:
        """Fresh parameters in float32.

        Raises:
          ValueError: these hyperparameters don't fit that model; the message names the field.
        """

    @abstractmethod
    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        """The prompts before any image is seen; `key` is None in evaluation, where nothing is dropped."""

    def prompted_blocks(self, towers: ModelSpec) -> int:
        """How many blocks the towers have that this learner prompts; the smaller number of two."""
        counts = [towers.text_blocks] * self.text_prompts + [towers.vision_blocks] * self.vision_prompts
        return min(counts)

    @property
    def text_tokens(self) -> int:
        """How many of the text tower's positions the prompts take."""
        return 0

    def static_part(self) -> Learner:
        """The learner without what is a value of a compiled program; equal ones share a program."""
        return self

    def traced_values(self) -> tuple[int, float]:
        """The depth and the dropout that this learner asks for, values of a program."""
        return 0, 0.0

    def condition(self, params: Params, prompts: Prompts, pooled: Array) -> Prompts:
        """The prompts once the image vectors, `pooled` (batch, image width), are known."""
        del params, pooled
        return prompts


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Learner):
    """The model as it is: no prompts, nothing to learn."""

    def init(self, key: Array, towers: ModelSpec) -> Params:
        del key, towers
        return {}

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        del params, depth, dropout, key
        return Prompts()
