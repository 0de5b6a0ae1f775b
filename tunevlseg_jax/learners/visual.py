"""Learners that prompt the vision tower: VPT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunevlseg_jax.learners.base import ContextLearner
from tunevlseg_jax.learners.contract import Change, Params
from tunevlseg_jax.prompts import ModelSpec, Prompts

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True, kw_only=True)
class VPT(ContextLearner):
    """Visual Prompt Tuning: new learnt tokens behind the patches in each of the first blocks (Jia et al. 2022)."""

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"vision"})

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        assert spec.vision_width is not None
        return {"context": self.gaussian_context(key, spec.vision_width)}

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        return Prompts(vision=params["context"][:, None], depth=depth)
