"""Learners of a new last layer: LinearProbe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunevlseg_jax.learners.base import uniform
from tunevlseg_jax.learners.contract import Change, Learner, Params
from tunevlseg_jax.prompts import LinearHead, ModelSpec, Prompts
from tunevlseg_jax.runtime.lazy import jnp

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Learner):
    """Linear probing: a new linear layer on the frozen decoder's last grid gives the logits.

    It starts from the distribution of PyTorch's linear layers, with bias zero.
    """

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"decoder"})

    def init(self, key: Array, spec: ModelSpec) -> Params:
        return {"kernel": uniform(key, spec.feature_width, 1), "bias": jnp.zeros(1)}

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        del depth, dropout, key
        return Prompts(head=LinearHead(params["kernel"], params["bias"]))
