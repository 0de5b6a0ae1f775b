"""The training loss: Dice and binary cross-entropy of sigmoid probabilities."""

import chex
import jax
import jax.numpy as jnp
from jax import Array

DICE_WEIGHT = 1.0
CROSS_ENTROPY_WEIGHT = 0.2
SMOOTHING = 1e-5
EMPTY_SMOOTHING = 0.05
"""Of the Dice term of empty masks where training asks for absent things, as a share of the pixels."""


def dice_ce(logits: Array, targets: Array, *, negatives: bool = False) -> Array:
    """Dice plus 0.2 binary cross-entropy of each sample (the paper's section 4.3).

    Args:
      logits: (batch, height, width).
      targets: the same shape, 0 or 1.
      negatives: whether empty targets are smoothed more. With e = 1e-5 their Dice term is about 1 wherever anything is
        marked, and its gradient about 0, so that it doesn't teach to mark nothing. With e of 5 % of the pixels, the
        gradient is about that of an object of this size.

    Returns:
      (batch,) float32: 1 - (2 sum(pt) + e) / (sum(p) + sum(t) + e) + 0.2 mean BCE, with e = 1e-5.
    """
    chex.assert_rank(logits, 3)
    chex.assert_equal_shape([logits, targets])
    logits = logits.astype(jnp.float32)
    targets = targets.astype(jnp.float32)
    pixels = (1, 2)
    probabilities = jax.nn.sigmoid(logits)
    overlap = (probabilities * targets).sum(pixels)
    total = probabilities.sum(pixels) + targets.sum(pixels)
    # Not optax's losses: its dice_loss smooths differently from version to version, and its sigmoid cross-entropy
    # computes two softplus where one is enough.
    dice = 1 - (2 * overlap + SMOOTHING) / (total + SMOOTHING)
    if negatives:
        marked = probabilities.sum(pixels)
        smoothing = EMPTY_SMOOTHING * targets.shape[1] * targets.shape[2]
        dice = jnp.where(targets.any(pixels), dice, marked / (marked + smoothing))
    entropy = (jax.nn.softplus(logits) - logits * targets).mean(pixels)
    return DICE_WEIGHT * dice + CROSS_ENTROPY_WEIGHT * entropy
