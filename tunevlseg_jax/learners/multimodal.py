"""Learners that prompt both towers from one source: MaPLe, Shared Separate and Shared Attention."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from optuna.distributions import CategoricalDistribution, FloatDistribution

from tunevlseg_jax.learners.base import (
    ContextLearner,
    Projector,
    apply_linear,
    apply_norm,
    linear,
    norm,
    per_row,
    projector_space,
)
from tunevlseg_jax.learners.contract import Change, Learner, Params
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.learners.textual import TextContextLearner
from tunevlseg_jax.prompts import ModelSpec, Prompts
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True, kw_only=True)
class MaPLe(TextContextLearner):
    """Multi-modal Prompt Learning: visual prompts are projections of the textual ones (Khattak et al. 2023).

    Attributes:
      projector: from a text token to a vision token.
    """

    space: ClassVar[Space] = {**TextContextLearner.space, **projector_space(32, 64, 96)}
    padded_fields: ClassVar[tuple[str, ...]] = ("projector.hidden",)

    projector: Projector = field(default_factory=Projector)

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"text", "vision"})

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        assert spec.vision_width is not None
        context_key, projector_key = jax.random.split(key)
        return {
            "context": self.text_context(context_key, spec),
            "projector": self.projector.init(projector_key, self.rows, spec.text_width, spec.vision_width),
        }

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        text = params["context"]
        vision = self.projector(params["projector"], text)
        return Prompts(text[:, None], vision[:, None], depth)


@dataclass(frozen=True, kw_only=True)
class SharedSeparate(ContextLearner):
    """Shared vectors in a separate space, projected to each tower separately (the TuneVLSeg paper, section 3.2).

    Attributes:
      width: of the shared space.
      projector: from the shared space to a tower's tokens. The published code drops its norm.
    """

    space: ClassVar[Space] = {**ContextLearner.space, "width": CategoricalDistribution((32, 64))}
    padded_fields: ClassVar[tuple[str, ...]] = ("width",)

    width: int = 32
    projector: Projector = field(default_factory=lambda: Projector(kind="linear"))

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"text", "vision"})

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        assert spec.vision_width is not None
        if self.width < 1:
            raise ValueError(f"learner.width must be at least 1, got {self.width}")
        context_key, text_key, vision_key = jax.random.split(key, 3)
        return {
            "context": self.gaussian_context(context_key, self.width),
            "text_projector": self.projector.init(text_key, self.rows, self.width, spec.text_width),
            "vision_projector": self.projector.init(vision_key, self.rows, self.width, spec.vision_width),
        }

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        text = self.projector(params["text_projector"], params["context"])
        vision = self.projector(params["vision_projector"], params["context"])
        return Prompts(text[:, None], vision[:, None], depth)


@dataclass(frozen=True, kw_only=True)
class SharedAttention(ContextLearner):
    """Shared vectors as wide as both towers' tokens together, mixed by a transformer block for each depth and then
    split between the towers (the TuneVLSeg paper, section 3.2).

    Attributes:
      heads: of the block's attention; divides the sum of the towers' widths.
      hidden: width of the block's feed-forward layer.
      dropout: share dropped in training, of attention weights and of each part's output.
      norm_first: whether the block normalises before each part, or after each sum.
      attends_across_tokens: whether context tokens attend to one another; in the published code each attends to itself.
    """

    space: ClassVar[Space] = {
        **ContextLearner.space,
        "heads": CategoricalDistribution((16, 20, 32)),
        "dropout": FloatDistribution(0.1, 0.55),
        "hidden": CategoricalDistribution((1280, 1420)),
        "norm_first": CategoricalDistribution((True, False)),
    }
    padded_fields: ClassVar[tuple[str, ...]] = ("hidden",)

    heads: int = 16
    hidden: int = 1280
    dropout: float = 0.25
    norm_first: bool = True
    attends_across_tokens: bool = True

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"text", "vision"})

    def static_part(self) -> Learner:
        return dataclasses.replace(self, depth=self.rows, max_depth=self.rows, dropout=0.0)

    def traced_values(self) -> tuple[int, float]:
        return self.depth, self.dropout

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        assert spec.vision_width is not None
        width = spec.text_width + spec.vision_width
        if not 0 <= self.dropout < 1:
            raise ValueError(f"learner.dropout must be at least 0 and below 1, got {self.dropout}")
        if self.hidden < 1:
            raise ValueError(f"learner.hidden must be at least 1, got {self.hidden}")
        if self.heads < 1 or width % self.heads:
            raise ValueError(f"learner.heads must divide {width}, the sum of the towers' widths, got {self.heads}")
        keys = jax.random.split(key, 5)
        context = self.gaussian_context(keys[0], width)
        return {
            "text_context": context[..., : spec.text_width],
            "vision_context": context[..., spec.text_width :],
            "qkv": linear(keys[1], self.rows, width, 3 * width),
            "out": linear(keys[2], self.rows, width, width),
            "up": linear(keys[3], self.rows, width, self.hidden),
            "down": linear(keys[4], self.rows, self.hidden, width),
            "norm1": norm(self.rows, width),
            "norm2": norm(self.rows, width),
        }

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        drop = _Dropout(dropout, key)
        x = jnp.concatenate([params["text_context"], params["vision_context"]], axis=-1)
        if self.norm_first:
            x = x + self._attend(params, apply_norm(params["norm1"], x), drop)
            x = x + self._feed_forward(params, apply_norm(params["norm2"], x), drop)
        else:
            x = apply_norm(params["norm1"], x + self._attend(params, x, drop))
            x = apply_norm(params["norm2"], x + self._feed_forward(params, x, drop))
        text, vision = jnp.split(x, [params["text_context"].shape[-1]], axis=-1)
        return Prompts(text[:, None], vision[:, None], depth)

    def _attend(self, params: Params, x: Array, drop: _Dropout) -> Array:
        rows, tokens, width = x.shape
        qkv = apply_linear(params["qkv"], x).reshape(rows, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores = jnp.einsum("rqhd,rkhd->rhqk", query, key) * (width // self.heads) ** -0.5
        if not self.attends_across_tokens:
            scores = jnp.where(jnp.eye(tokens, dtype=bool)[None, None], scores, -jnp.inf)
        weights = drop("attention", jax.nn.softmax(scores, axis=-1))
        mixed = jnp.einsum("rhqk,rkhd->rqhd", weights, value).reshape(rows, tokens, width)
        return drop("attended", apply_linear(params["out"], mixed))

    def _feed_forward(self, params: Params, x: Array, drop: _Dropout) -> Array:
        hidden = drop("hidden", jax.nn.relu(apply_linear(params["up"], x)))
        return drop("fed forward", apply_linear(params["down"], hidden))


@dataclass(frozen=True)
class _Dropout:
    """Dropout whose rate is a value; nothing is dropped without a key.

    Each place, row and unit has its own draw, so that units which pad a narrower layer change no other's.
    """

    rate: Array
    key: Array | None

    def __call__(self, place: str, x: Array) -> Array:
        if self.key is None:
            return x
        key = jax.random.fold_in(self.key, zlib.crc32(place.encode()))
        units, samples = x.shape[-1], x.shape[1:-1]

        def draw(row: Array) -> Array:
            return per_row(lambda unit: jax.random.bernoulli(unit, 1 - self.rate, samples), row, units)

        kept = jnp.moveaxis(per_row(draw, key, x.shape[0]), 1, -1)
        return jnp.where(kept, x / (1 - self.rate), 0.0)
