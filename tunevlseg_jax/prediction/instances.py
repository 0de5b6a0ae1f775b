"""The instances that a model finds, at the size of the image."""

from typing import NamedTuple

import numpy as np

from tunevlseg_jax.models.features import Candidates
from tunevlseg_jax.prediction import forward


class Instances(NamedTuple):
    """The instances that a prompt names in an image, best first.

    Attributes:
      masks: (instance, height, width) bool, at the image's size.
      boxes: (instance, 4) float32, left, top, right and bottom in pixels.
      scores: (instance,) float32 in 0..1, the model's scores, weighted by the presence.
      presence: in 0..1, the probability that there is any.
    """

    masks: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    presence: float


def above_score(
    candidates: Candidates, presence: float, size: tuple[int, int], least_score: float, threshold: float
) -> Instances:
    """The candidates of one prompt with a higher score, at the (height, width) of the image."""
    logits, boxes, _, scores = map(np.asarray, candidates)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > least_score]
    least = forward.logit(threshold)
    masks = np.zeros((len(order), *size), bool)
    for place, index in enumerate(order):
        masks[place] = forward.enlarge(logits[index], size) > least
    height, width = size
    boxes = boxes[order] * np.asarray([width, height, width, height], np.float32)
    return Instances(masks, boxes, scores[order], presence)
