"""Learners with a term in the loss that keeps them near the frozen model: KgCoOp and PromptSRC."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from optuna.distributions import FloatDistribution

from tunevlseg_jax.learners.contract import Learner, Output
from tunevlseg_jax.learners.independent import IVLP
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.learners.textual import CoOp
from tunevlseg_jax.prompts import ModelSpec, Outputs
from tunevlseg_jax.runtime.lazy import jax, jnp

if TYPE_CHECKING:
    from jax import Array

PHOTO = "a photo of a {}."
PHRASE = "{}"
"""Where a template has the phrase."""
EPSILON = 1e-12
"""Added to squared lengths, so that a vector of zeros has a gradient."""


@dataclass(frozen=True, kw_only=True)
class KgCoOp(CoOp):
    """Knowledge-guided CoOp: the sentence vector stays near that of a hand-written prompt (Yao et al. 2023).

    Attributes:
      sentence_weight: of the distance between the two sentence vectors in the loss; the paper's lambda.
      templates: hand-written prompts, each with {} for the phrase; the mean of their sentence vectors counts.
    """

    space: ClassVar[Space] = {**CoOp.space, "sentence_weight": FloatDistribution(1.0, 10.0)}
    traced_fields: ClassVar[tuple[str, ...]] = ("sentence_weight",)
    compared: ClassVar[frozenset[Output]] = frozenset({"sentence"})

    sentence_weight: float = 8.0
    templates: tuple[str, ...] = (PHOTO,)

    @property
    def hand_written(self) -> tuple[str, ...]:
        return self.templates

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        check_weights({"sentence_weight": self.sentence_weight})
        check_templates(self.templates)

    def regulariser(self, learnt: Outputs, frozen: Outputs, values: Mapping[str, Array], present: Array) -> Array:
        cosine = (unit(learnt.sentence) * unit(frozen.sentence)).sum(axis=-1)
        return values["sentence_weight"] * (1 - cosine).mean()


@dataclass(frozen=True, kw_only=True)
class PromptSRC(IVLP):
    """Self-regulating prompts: IVLP near the frozen model's vectors and masks, averaged over epochs (Khattak et al.
    2023).

    Attributes:
      sentence_weight: of the distance between the sentence vectors, with prompts and frozen, in the loss.
      image_weight: of that between the pooled image vectors.
      mask_weight: of the divergence of the masks.
      templates: hand-written prompts, each with {} for the phrase; the frozen sentence vector is the mean of theirs.
      average_epoch: the epoch with the largest weight in the average of the prompts; None for no average.
      average_spread: standard deviation of the weights of the average, in epochs.
    """

    space: ClassVar[Space] = {
        **IVLP.space,
        "sentence_weight": FloatDistribution(5.0, 50.0, log=True),
        "image_weight": FloatDistribution(2.0, 20.0, log=True),
    }
    traced_fields: ClassVar[tuple[str, ...]] = (
        *("sentence_weight", "image_weight", "mask_weight"),
        *("average_epoch", "average_spread"),
    )
    compared: ClassVar[frozenset[Output]] = frozenset({"sentence", "image", "logits"})
    averages_epochs: ClassVar[bool] = True

    sentence_weight: float = 25.0
    image_weight: float = 10.0
    mask_weight: float = 1.0
    templates: tuple[str, ...] = (PHOTO, "a photograph of a {}.", "an image of a {}.", "a picture of the {}.", "{}.")
    average_epoch: float | None = 15.0
    average_spread: float = 1.0

    @property
    def hand_written(self) -> tuple[str, ...]:
        return self.templates

    def static_part(self) -> Learner:
        return dataclasses.replace(super().static_part(), average_epoch=1.0, average_spread=1.0)  # which `check` takes

    def check(self, spec: ModelSpec) -> None:
        super().check(spec)
        check_weights({name: getattr(self, name) for name in ("sentence_weight", "image_weight", "mask_weight")})
        check_templates(self.templates)
        if not 0 < self.average_spread < inf:
            raise ValueError(f"learner.average_spread must be above 0 and finite, got {self.average_spread}")
        if self.average_epoch is not None and not 1 <= self.average_epoch < inf:
            raise ValueError(f"learner.average_epoch must be None or at least 1, got {self.average_epoch}")

    def regulariser(self, learnt: Outputs, frozen: Outputs, values: Mapping[str, Array], present: Array) -> Array:
        image, masks = absolute(learnt.image, frozen.image), divergence(learnt.logits, frozen.logits)
        return (
            values["sentence_weight"] * absolute(learnt.sentence, frozen.sentence).mean()
            + values["image_weight"] * (image * present).sum() / present.sum()
            + values["mask_weight"] * (masks * present).sum() / present.sum()
        )

    def epoch_share(self, epoch: np.ndarray, values: Mapping[str, np.ndarray]) -> np.ndarray:
        return gaussian_share(epoch, values["average_epoch"], values["average_spread"])


def unit(vectors: Array) -> Array:
    """(..., width) vectors of length 1."""
    return vectors * jax.lax.rsqrt(jnp.square(vectors).sum(axis=-1, keepdims=True) + EPSILON)


def absolute(learnt: Array, frozen: Array) -> Array:
    """From (rows, width) vectors to (rows,): the mean absolute difference of their directions' components."""
    return jnp.abs(unit(learnt) - unit(frozen)).mean(axis=-1)


def divergence(learnt: Array, frozen: Array) -> Array:
    """From (batch, height, width) logits to (batch,): the Kullback-Leibler divergence of a pixel's two outcomes, from
    the frozen model's mask to the learnt one, mean over pixels."""
    inside = jax.nn.sigmoid(frozen) * (jax.nn.log_sigmoid(frozen) - jax.nn.log_sigmoid(learnt))
    outside = jax.nn.sigmoid(-frozen) * (jax.nn.log_sigmoid(-frozen) - jax.nn.log_sigmoid(-learnt))
    return (inside + outside).mean(axis=(1, 2))


def gaussian_share(epoch: np.ndarray, middle: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(trials,) w_t / (w_1 + ... + w_t) of epoch t, where w_i is the normal density at i.

    In ratios of densities, since a density itself may be 0 in floating-point numbers. An infinite `middle` gives 1.
    """
    earlier = np.arange(1, epoch.max(initial=1))[None]
    now, middle, spread = (np.asarray(values, np.float64)[:, None] for values in (epoch, middle, spread))
    exponents = (now - earlier) * (now + earlier - 2 * middle) / (2 * spread**2)
    before = np.where(earlier < now, np.exp(np.minimum(np.where(earlier < now, exponents, 0), 700)), 0)
    return 1 / (1 + before.sum(axis=1))


def check_weights(weights: Mapping[str, float]) -> None:
    """Raises a ValueError that names the first weight of a term which isn't a number from 0."""
    for name, weight in weights.items():
        if not 0 <= weight < inf:
            raise ValueError(f"learner.{name} must be at least 0 and finite, got {weight}")


def check_templates(templates: tuple[str, ...]) -> None:
    """Raises a ValueError unless there are templates, each with one place for the phrase."""
    if not templates or any(template.count(PHRASE) != 1 for template in templates):
        raise ValueError(f"learner.templates must be one or more, each with one {PHRASE}, got {templates}")
