"""Learners that prompt both towers independently: IVLP."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from optuna.distributions import IntDistribution

from tunevlseg_jax.learners.contract import Change, Learner, Params
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.learners.textual import TextContextLearner
from tunevlseg_jax.prompts import ModelSpec, Prompts
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True, kw_only=True)
class IVLP(TextContextLearner):
    """Independent Vision-Language Prompting: unrelated context in both towers (Rasheed et al. 2023).

    Attributes:
      depth: number of the text tower's blocks that get a prompt each, 1 or more.
      vision_depth: that of the vision tower; None for `depth`.
    """

    space: ClassVar[Space] = {**TextContextLearner.space, "vision_depth": IntDistribution(1, 11)}

    vision_depth: int | None = None

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"text", "vision"})

    @property
    def rows(self) -> int:
        return max(self.depth, self.vision_depth or 0) if self.max_depth is None else self.max_depth

    def at_depth(self, depth: int) -> Learner:
        return dataclasses.replace(super().at_depth(depth), vision_depth=None)

    def static_part(self) -> Learner:
        return dataclasses.replace(super().static_part(), vision_depth=self.rows)

    def traced_values(self) -> tuple[tuple[int, ...], float]:
        return (self.depth, self.depth if self.vision_depth is None else self.vision_depth), 0.0

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        if self.vision_depth is not None and not 1 <= self.vision_depth <= self.rows:
            raise ValueError(
                f"learner.vision_depth must be from 1 to learner.max_depth, {self.rows}, got {self.vision_depth}"
            )

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        assert spec.vision_width is not None
        text_key, vision_key = jax.random.split(key)
        return {
            "text_context": self.text_context(text_key, spec),
            "vision_context": self.gaussian_context(vision_key, spec.vision_width),
        }

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        """`depth` is (2,) int32, of the text and of the vision tower, or a scalar for both."""
        text_depth, vision_depth = jnp.broadcast_to(jnp.asarray(depth), 2)
        return Prompts(
            params["text_context"][:, None], params["vision_context"][:, None], text_depth, vision_depth=vision_depth
        )
