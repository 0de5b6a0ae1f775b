"""Learners that prompt the text tower: CoOp and CoCoOp."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tunevlseg_jax.learners.base import ContextLearner, Projector, projector_space
from tunevlseg_jax.learners.contract import Change, Params
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.prompts import ModelSpec, Prompts
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array


@dataclass(frozen=True, kw_only=True)
class TextContextLearner(ContextLearner):
    """A learner whose context vectors live among the text tower's tokens.

    Attributes:
      init_phrase: phrase of `num_context` tokens whose embeddings initialise context 0; None for a Gaussian start (the
        paper's Table 4). Deeper contexts always start Gaussian.
    """

    init_phrase: str | None = "a photo of a"

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"text"})

    def text_context(self, key: Array, spec: ModelSpec) -> Array:
        """(rows, num_context, text width).

        Raises:
          ValueError: `init_phrase` isn't `num_context` tokens long.
        """
        context = self.gaussian_context(key, spec.text_width)
        if self.init_phrase is None:
            return context
        embeddings = spec.embed_phrase(self.init_phrase)
        if len(embeddings) != self.num_context:
            raise ValueError(
                f"learner.init_phrase must be None, or learner.num_context, {self.num_context}, tokens, "
                f"got {self.init_phrase!r} with {len(embeddings)}"
            )
        return context.at[0].set(embeddings.astype(context.dtype))

    def prompts(self, params: Params, depth: Array, *, dropout: Array, key: Array | None) -> Prompts:
        return Prompts(text=params["context"][:, None], depth=depth)


@dataclass(frozen=True, kw_only=True)
class CoOp(TextContextLearner):
    """Context Optimisation: learnt context before the prompt (Zhou et al. 2022, IJCV)."""

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        return {"context": self.text_context(key, spec)}


@dataclass(frozen=True, kw_only=True)
class CoCoOp(TextContextLearner):
    """Conditional CoOp: each image shifts the learnt context by a projection of its vector (Zhou et al. 2022, CVPR).

    Attributes:
      projector: from the pooled image vector to a text token; it ends without a bias.
      normalize_image: whether the image vector is brought to length 1 first.
    """

    space: ClassVar[Space] = {**TextContextLearner.space, **projector_space(32, 64, 96, 128)}
    padded_fields: ClassVar[tuple[str, ...]] = ("projector.hidden",)

    projector: Projector = field(default_factory=Projector)
    normalize_image: bool = False

    @property
    def changes(self) -> frozenset[Change]:
        return frozenset({"text", "condition"})

    def init(self, key: Array, spec: ModelSpec) -> Params:
        self.check(spec)
        context_key, projector_key = jax.random.split(key)
        return {
            "context": self.text_context(context_key, spec),
            "projector": self.projector.init(projector_key, self.rows, spec.image_width, spec.text_width, bias=False),
        }

    def condition(self, params: Params, prompts: Prompts, pooled: Array) -> Prompts:
        assert prompts.text is not None
        pooled = pooled.astype(jnp.float32)
        if self.normalize_image:
            pooled = pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
        shift = self.projector(params["projector"], pooled[None])
        return prompts._replace(text=prompts.text + shift[:, :, None])
