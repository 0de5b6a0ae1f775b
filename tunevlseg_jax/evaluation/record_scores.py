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
DISTANCES = {
    "assd_px": "average symmetric surface distance in pixels; mean as of hd95_both_nonempty",
    "hd95_mm": "hd95_both_nonempty in millimetres; mean over those of its records whose spacing is known",
    "assd_mm": "assd_px in millimetres, likewise",
}
"""Likewise, of scores that evaluations of earlier versions lack, and those in millimetres without a known spacing."""


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
      assd_px: average symmetric surface distance in pixels; None unless both masks have pixels.
      hd95_mm: as `hd95_both_nonempty` but in millimetres; None as well if the spacing is unknown.
      assd_mm: likewise.
      row_spacing_mm: millimetres between the centres of neighbouring rows of the scored masks; None if unknown.
      column_spacing_mm: likewise of columns.
      unit: what the score isn't independent of, see `Records.unit`; None in files of earlier versions.
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
    assd_px: float | None = None
    hd95_mm: float | None = None
    assd_mm: float | None = None
    row_spacing_mm: float | None = None
    column_spacing_mm: float | None = None
    unit: str | None = None


def score(
    id: str,
    label: str,
    prompt: str,
    predicted: np.ndarray,
    target: np.ndarray,
    spacing: tuple[float, float] | None = None,
) -> Sample:
    """Scores a predicted mask, (height, width) bool, against the true one.

    Args:
      id: of the record.
      label: its class.
      prompt: its phrase.
      predicted: the predicted mask.
      target: the true mask.
      spacing: millimetres between the centres of neighbouring rows, and of columns; None if unknown.
    """
    intersection, union = int((predicted & target).sum()), int((predicted | target).sum())
    sizes = int(target.sum()), int(predicted.sum())
    hd95, surface_dice, assd, in_mm = None, float(not any(sizes)), None, (None, None)
    if all(sizes):
        outlines = surface.distances(predicted, target)
        hd95, surface_dice = surface.hd95(*outlines), surface.surface_dice(*outlines)
        assd = surface.assd(*outlines)
        if spacing is not None:
            outlines = surface.distances(predicted, target, spacing)
            in_mm = surface.hd95(*outlines), surface.assd(*outlines)
    row_spacing, column_spacing = spacing or (None, None)
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
        assd_px=assd,
        hd95_mm=in_mm[0],
        assd_mm=in_mm[1],
        row_spacing_mm=row_spacing,
        column_spacing_mm=column_spacing,
    )


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """The scores that POLICIES and DISTANCES explain, over at least one record, and the number of empty masks.

    Those in millimetres are there if the spacing of any record is known.
    """
    union = sum(sample.union for sample in samples)
    undefined = sum(sample.hd95_both_nonempty is None for sample in samples)
    known = [sample for sample in samples if sample.row_spacing_mm is not None]
    in_mm: dict[str, Any] = {}
    if known:
        in_mm = {name: mean_of(name, known) for name in ("hd95_mm", "assd_mm")}
        in_mm["spacing_unknown"] = len(samples) - len(known)
    return {
        "dice": float(np.mean([sample.dice for sample in samples])),
        "iou": sum(sample.intersection for sample in samples) / union if union else 1.0,
        "sample_iou": float(np.mean([sample.iou for sample in samples])),
        "hd95_both_nonempty": mean_of("hd95_both_nonempty", samples),
        "surface_dice_2px": float(np.mean([sample.surface_dice_2px for sample in samples])),
        "records": len(samples),
        "empty_targets": sum(sample.target == 0 for sample in samples),
        "empty_predictions": sum(sample.predicted == 0 for sample in samples),
        "hd95_undefined": undefined,
        "assd_px": mean_of("assd_px", samples),
    } | in_mm


def mean_of(name: str, samples: Sequence[Any]) -> float | None:
    """The mean of a score over the records or volumes that have it; None where none has."""
    scores = [score for sample in samples if (score := getattr(sample, name)) is not None]
    return float(np.mean(scores)) if scores else None


class Classes:
    """Scores of all classes together: each pixel belongs to one class, or to the background.

    A pixel goes to the class with the highest logit where that is over 0, and to the background elsewhere. Void
    pixels count nowhere.
    """

    def __init__(self, count: int):
        self.intersection, self.union = (np.zeros(count + 1, np.int64) for _ in range(2))
        self.overlapping = False

    def __add__(self, other: "Classes") -> "Classes":
        """The scores of both, which have seen different images."""
        both = Classes(len(self.union) - 1)
        both.intersection, both.union = self.intersection + other.intersection, self.union + other.union
        both.overlapping = self.overlapping or other.overlapping
        return both

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
