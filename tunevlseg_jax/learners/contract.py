"""What a learner is: hyperparameters, and pure functions from parameters to prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import ModelSpec, Prompts

Params = dict[str, Any]
"""A learner's parameters: a nested dict of arrays."""
Change = Literal["text", "vision", "condition"]
"""A learner gives the text tower prompts; gives the vision tower prompts; or makes prompts for each image, from it."""


@dataclass(frozen=True, kw_only=True)
class Learner(ABC):
    """A way to learn prompts: hyperparameters as fields, and pure functions from parameters to `Prompts`.

    No learner reads hidden states, so nothing here knows a model; see the paper's section 3.
    """

    changes: ClassVar[frozenset[Change]] = frozenset()
    """What the learner changes. Every cache of features asks this alone, so a learner that names too little would train
    on stale features; `check_changes` refuses it."""
    space: ClassVar[Space] = {}
    """What a search varies of the fields, unless told otherwise."""
    padded_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that are widths of hidden units: with parameters padded by zeros a wider learner computes the same, and
    its zeros stay zeros in training, so that trials of different widths share a program."""

    @abstractmethod
    def init(self, key: Array, spec: ModelSpec) -> Params:
        """Fresh parameters in float32.

        Raises:
          ValueError: these hyperparameters don't fit that model; the message names the field.
        """

    @abstractmethod
    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        """The prompts before any image is seen; `key` is None in evaluation, where nothing is dropped."""

    def prompted_blocks(self, spec: ModelSpec) -> int:
        """How many blocks the towers have that this learner prompts; the smaller number of two."""
        blocks = {"text": spec.text_blocks, "vision": spec.vision_blocks}
        return min(count for tower, count in blocks.items() if tower in self.changes)

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

    def check_changes(self, params: Params) -> None:
        """Raises a ValueError unless `changes` names exactly what these parameters change in a model."""
        made = jax.eval_shape(
            lambda values: self.prompts(values, jnp.int32(1), dropout=jnp.float32(0), key=None), params
        )
        found = {name for name, prompts in (("text", made.text), ("vision", made.vision)) if prompts is not None}
        if type(self).condition is not Learner.condition:
            found.add("condition")
        name = type(self).__name__
        if found != self.changes:
            raise ValueError(f"{name}.changes is {_names(self.changes)}, but {name} changes {_names(found)}")
        if params and not found:
            raise ValueError(f"{name} has parameters, but gives the model no prompts: training would change nothing")


def _names(changes: Set[str]) -> str:
    return " and ".join(sorted(changes)) or "nothing"


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Learner):
    """The model as it is: no prompts, nothing to learn."""

    def init(self, key: Array, spec: ModelSpec) -> Params:
        del key, spec
        return {}

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        del params, depth, dropout, key
        return Prompts()
