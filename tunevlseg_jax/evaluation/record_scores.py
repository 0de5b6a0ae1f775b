"""Scores of single records, computed on the host at any size, and their summary."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunevlseg_jax.evaluation import surface

POLICIES = {
    "dice": "mean over records; 1 where both masks are empty, 0 where one is",
    "iou": "one ratio over all pixels of all records",
    "sample_iou": "mean over records; 1 where both masks are empty, 0 where one is",
    "hd95_both_nonempty": "pixels; mean over the records whose masks are both not empty, undefined for the others",
    "surface_dice_2px": "mean over records; 1 where both masks are empty, 0 where one is",
}
"""How each score is averaged, and how it counts empty masks."""


@dataclass(frozen=True)
class Sample:
    """The scores of a record; for the outlines see `surface`.

    Attributes:
      id: of the record.
      label: its class.
      prompt: its phrase.
      dice: 1 where both masks are empty, 0 where one is.
      iou: likewise.
      hd95_both_nonempty: pixels; None unless both masks have pixels.
      surface_dice_2px: 1 where both masks are empty, 0 where one is.
      intersection: pixels.
      union: pixels.
      target: pixels of the true mask.
      predicted: pixels of the predicted mask.
    """

    id: str
    label: str
    prompt: str
    dice: float
    iou: float
    hd95_both_nonempty: float | None
    surface_dice_2px: float
    intersection: int
    union: int
    target: int
    predicted: int


def score(id: str, label: str, prompt: str, predicted: np.ndarray, target: np.ndarray) -> Sample:
    """Scores a predicted mask, (height, width) bool, against the true one."""
    intersection, union = int((predicted & target).sum()), int((predicted | target).sum())
    sizes = int(target.sum()), int(predicted.sum())
    if all(sizes):
        outlines = surface.distances(predicted, target)
        hd95, surface_dice = surface.hd95(*outlines), surface.surface_dice(*outlines)
    else:
        hd95, surface_dice = None, float(not any(sizes))
    return Sample(
        id=id,
        label=label,
        prompt=prompt,
        dice=2 * intersection / sum(sizes) if union else 1.0,
        iou=intersection / union if union else 1.0,
        hd95_both_nonempty=hd95,
        surface_dice_2px=surface_dice,
        intersection=intersection,
        union=union,
        target=sizes[0],
        predicted=sizes[1],
    )


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """The scores that POLICIES explains, over at least one record, and the number of empty masks."""
    union = sum(sample.union for sample in samples)
    distances = [sample.hd95_both_nonempty for sample in samples if sample.hd95_both_nonempty is not None]
    return {
        "dice": float(np.mean([sample.dice for sample in samples])),
        "iou": sum(sample.intersection for sample in samples) / union if union else 1.0,
        "sample_iou": float(np.mean([sample.iou for sample in samples])),
        "hd95_both_nonempty": float(np.mean(distances)) if distances else None,
        "surface_dice_2px": float(np.mean([sample.surface_dice_2px for sample in samples])),
        "records": len(samples),
        "empty_targets": sum(sample.target == 0 for sample in samples),
        "empty_predictions": sum(sample.predicted == 0 for sample in samples),
        "hd95_undefined": len(samples) - len(distances),
    }


class Classes:
    """Scores of all classes together: each pixel belongs to one class, or to the background.

    A pixel goes to the class with the highest logit where that is over 0, and to the background elsewhere. Void
    pixels count nowhere.
    """

    def __init__(self, count: int):
        self.intersection, self.union = (np.zeros(count + 1, np.int64) for _ in range(2))
        self.overlapping = False

    def add(self, logits: np.ndarray, masks: np.ndarray, void: np.ndarray) -> None:
        """One image.

        Args:
          logits: (class, height, width), less the logit of the threshold.
          masks: (class, height, width) bool, the true masks.
          void: (height, width) bool, pixels that count nowhere.
        """
        background = len(logits)
        predicted = np.where(logits.max(axis=0) > 0, logits.argmax(axis=0), background)
        true = np.where(masks.any(axis=0), masks.argmax(axis=0), background)
        self.overlapping |= bool((masks.sum(axis=0) > 1).any())
        matched = np.bincount(true[(predicted == true) & ~void], minlength=background + 1)
        counts = [np.bincount(classes[~void], minlength=background + 1) for classes in (predicted, true)]
        self.intersection += matched
        self.union += sum(counts) - matched

    @property
    def iou(self) -> np.ndarray:
        """(class + 1,) over the whole set, the background last; NaN where neither mask has the class."""
        return np.where(self.union > 0, self.intersection / np.maximum(self.union, 1), np.nan)


def absent_rates(samples: Sequence[Sample]) -> dict[str, float | int | None]:
    """The number of records that ask for an absent class, and the share of them in which any pixel is predicted."""
    absent = [sample for sample in samples if sample.target == 0]
    marked = sum(sample.predicted > 0 for sample in absent)
    return {"absent_records": len(absent), "false_positive_rate": marked / len(absent) if absent else None}
