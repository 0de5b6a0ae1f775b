"""What a learner is: hyperparameters, and pure functions from parameters to prompts and other changes of a model."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import ModelSpec, Outputs, Prompts
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array

Params = dict[str, Any]
"""A learner's parameters: a nested dict of arrays."""
Change = Literal["text", "vision", "condition", "sentence", "decoder"]
"""A learner changes the text tower; changes the vision tower; makes text prompts for each image, from it; changes the
sentence vector behind the text tower; or changes the decoder."""
Output = Literal["sentence", "image", "logits"]
"""An output that a learner's regulariser compares with the frozen model's, a field of `Outputs`."""


@dataclass(frozen=True, kw_only=True)
class Learner(ABC):
    """A way to adapt a frozen model: hyperparameters as fields, and pure functions from parameters to `Prompts`.

    No learner reads hidden states, so nothing here knows a model; see the paper's section 3.
    """

    space: ClassVar[Space] = {}
    """The distributions of the fields that a search varies by default."""
    padded_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that are widths of hidden units. A wider learner with zero-padded parameters computes the same, and the
    zeros stay zero in training, so that trials of different widths share a program."""
    traced_fields: ClassVar[tuple[str, ...]] = ()
    """Numbers that are inputs of a compiled training step, beside depth and dropout; None is infinity."""
    compared: ClassVar[frozenset[Output]] = frozenset()
    """The outputs of the frozen model that `regulariser` needs; without any there is no regulariser."""
    averages_epochs: ClassVar[bool] = False
    """Whether a run keeps a mean over epochs of the parameters, see `epoch_share`."""

    @property
    def name(self) -> str:
        """The displayed name."""
        return type(self).__name__

    @property
    def parts(self) -> Mapping[str, Learner]:
        """The learners that it consists of, by the start of their fields' names: itself."""
        return {"": self}

    @property
    def changes(self) -> frozenset[Change]:
        """The changed parts of the model.

        Every cache of features relies on this alone, so a learner that names too little would train on stale features;
        `check_changes` refuses it.
        """
        return frozenset()

    @abstractmethod
    def init(self, key: Array, spec: ModelSpec) -> Params:
        """Fresh parameters in float32.

        Raises:
          ValueError: these hyperparameters don't fit that model; the message names the field.
        """

    @abstractmethod
    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        """The prompts and other changes that are the same for all images.

        `key` is None in evaluation, where nothing is dropped.
        """

    def largest_depth(self, spec: ModelSpec) -> int:
        """The largest depth on a model: the blocks in the towers that this learner prompts, the smaller of two."""
        blocks = {"text": spec.text_blocks, "vision": spec.vision_blocks}
        return min(count for tower, count in blocks.items() if tower in self.changes)

    def at_depth(self, depth: int) -> Learner:
        """The learner with another depth, and no room for more; the same if it has no depth."""
        return self

    @property
    def text_tokens(self) -> int:
        """The number of the text tower's positions that the prompts take."""
        return 0

    @property
    def hand_written(self) -> tuple[str, ...]:
        """Templates of the hand-written prompts, each with {} for the phrase: the frozen sentence vector of a phrase in
        `regulariser` is the mean of theirs."""
        return ()

    def static_part(self) -> Learner:
        """The learner without its traced values; learners of equal static part share a program."""
        return dataclasses.replace(self, **dict.fromkeys(self.traced_fields, 0.0))

    def traced_values(self) -> tuple[int | tuple[int, ...], float | tuple[float, ...]]:
        """The learner's depth and dropout: inputs of a compiled program. Or its depths in both towers, or those of its
        parts."""
        return 0, 0.0

    def regulariser(
        self, learnt: Outputs, frozen: Outputs, values: Mapping[str, Array], present: Array
    ) -> Array | float:
        """A term that training adds to the loss.

        Args:
          learnt: outputs of the network with the learner.
          frozen: outputs of the model without it; only those in `compared` may be read.
          values: of `traced_fields`, by name.
          present: (batch,) float32, 1 for a record and 0 for padding.

        Returns:
          A float32 scalar.
        """
        return 0.0

    def epoch_share(self, epoch: np.ndarray, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """(trials,) the share of an epoch's parameters in their mean over the epochs so far; 1 keeps them alone.

        Args:
          epoch: (trials,) number of the epoch that has ended, from 1.
          values: of `traced_fields`, by name, each (trials,).
        """
        return np.ones(len(epoch))

    def condition(self, params: Params, prompts: Prompts, pooled: Array) -> Prompts:
        """The prompts for images with the vectors `pooled`, (batch, image width)."""
        return prompts

    def check_changes(self, params: Params) -> None:
        """Raises a ValueError unless `changes` names exactly the parts that these parameters change in a model."""
        prompts = jax.eval_shape(
            lambda values: self.prompts(values, jnp.int32(1), dropout=jnp.float32(0), key=None), params
        )
        changed = set[str](prompts.offsets or ())
        for name, values in (
            ("text", (prompts.text, prompts.text_blocks, prompts.text_taps)),
            ("vision", (prompts.vision, prompts.vision_blocks, prompts.taps)),
            ("sentence", (prompts.sentence,)),
            ("decoder", (prompts.head,)),
        ):
            changed |= {name} if any(value is not None for value in values) else set()
        if type(self).condition is not Learner.condition:
            changed.add("condition")
        name = type(self).__name__
        if changed != self.changes:
            raise ValueError(f"{name}.changes is {_names(self.changes)}, but {name} changes {_names(changed)}")
        if params and not changed:
            raise ValueError(f"{name} has parameters, but changes nothing in the model: training would have no effect")


def _names(changes: Set[str]) -> str:
    return " and ".join(sorted(changes)) or "nothing"


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Learner):
    """The model as it is: no prompts, nothing to learn."""

    def init(self, key: Array, spec: ModelSpec) -> Params:
        return {}

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        return Prompts()
