"""Segmentation scores, and their sums over batches."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array

from tunevlseg_jax.runtime import sharding


class Scores(NamedTuple):
    """Scores of each sample, every field (batch,) float32.

    Attributes:
      loss: the training loss.
      dice: 2 |P and T| / (|P| + |T|) at probability 0.5; 1 where both are empty.
      iou: |P and T| / |P or T| likewise.
      intersection: |P and T| in pixels.
      union: |P or T| in pixels.
    """

    loss: Array
    dice: Array
    iou: Array
    intersection: Array
    union: Array


class Sums(NamedTuple):
    """`Scores` summed over `samples` records; fields are scalars or (trials,)."""

    loss: Array
    dice: Array
    iou: Array
    intersection: Array
    union: Array
    samples: Array


def score(loss: Array, logits: Array, targets: Array) -> Scores:
    """Scores a batch.

    Args:
      loss: (batch,).
      logits: (batch, height, width); a pixel is predicted where its probability is over 0.5.
      targets: the same shape, bool or 0 and 1.
    """
    predicted = logits > 0
    true = targets > 0
    pixels = (1, 2)
    intersection = (predicted & true).sum(pixels).astype(jnp.float32)
    union = (predicted | true).sum(pixels).astype(jnp.float32)
    empty = union == 0
    dice = jnp.where(empty, 1.0, 2 * intersection / jnp.where(empty, 1.0, union + intersection))
    iou = jnp.where(empty, 1.0, intersection / jnp.where(empty, 1.0, union))
    return Scores(loss.astype(jnp.float32), dice, iou, intersection, union)


def total(scores: Scores, weight: Array) -> Sums:
    """Sums scores over the samples whose `weight` (batch,) is 1; 0 marks padding."""
    chex.assert_equal_shape([*scores, weight])
    return Sums(*(jnp.where(weight > 0, values, 0.0).sum() for values in scores), samples=weight.sum())


def merge(first: Sums, second: Sums) -> Sums:
    """The sums of both."""
    return jax.tree.map(jnp.add, first, second)


def means(sums: Sums) -> dict[str, list[float]]:
    """The scores to report from (trials,) sums, by name: a value for each trial, in 0..1 except the loss.

    The sums may be split over the devices of several processes, which must all call this.

    Returns:
      loss, dice and sample_iou, means over samples; iou, one ratio over all pixels of the set.
    """
    values = {
        "loss": sums.loss / sums.samples,
        "dice": sums.dice / sums.samples,
        "iou": jnp.where(sums.union > 0, sums.intersection / jnp.maximum(sums.union, 1), 1.0),
        "sample_iou": sums.iou / sums.samples,
    }
    gathered = sharding.gather_to_host(values)  # whose names are sorted
    return {name: gathered[name].tolist() for name in values}
