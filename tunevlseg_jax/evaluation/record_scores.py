"""Scores of single records, computed on the host at any size, and their summary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunevlseg_jax.evaluation import lesions, surface
from tunevlseg_jax.evaluation.settings import TOLERANCE

POLICIES = {
    "dice": "mean over records; 1 where both masks are empty, 0 where one is",
    "iou": "one ratio over all pixels of all records",
    "sample_iou": "mean over records; 1 where both masks are empty, 0 where one is",
    "hd95_both_nonempty": "pixels; mean over the records whose masks are both not empty, undefined for the others",
    "surface_dice_2px": "mean over records; 1 where both masks are empty, 0 where one is",
}
"""How each score is averaged, and how it counts empty masks."""
LATER_POLICIES = {
    "assd_px": "average symmetric surface distance in pixels; mean as of hd95_both_nonempty",
    "hd95_px_or_diagonal": "HD95 in pixels; mean over records; the image's diagonal where one mask is empty, 0 where "
    "both are",
    "nsd": "the share of both outlines within nsd_tolerance of the other, in millimetres where the spacing is known, "
    "else in pixels; mean over records; 1 where both masks are empty, 0 where one is",
    "volumetric_similarity": "mean over records; 1 where both masks are empty, 0 where one is",
    "lesion_recall_pooled": "the share of all true lesions of all records that match a predicted one; undefined where "
    "there are none",
    "lesion_precision_pooled": "likewise of all predicted lesions that match a true one",
    "lesion_f1_pooled": "likewise of both",
    "hd95_mm": "hd95_both_nonempty in millimetres; mean over those of its records whose spacing is known",
    "assd_mm": "assd_px in millimetres, likewise",
    "hd95_mm_or_diagonal": "hd95_px_or_diagonal in millimetres; mean over the records whose spacing is known",
}
"""Likewise, of scores that evaluations of earlier versions lack, and last those of a known spacing alone."""
IN_MM = ("hd95_mm", "assd_mm", "hd95_mm_or_diagonal")


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
      unit: what the score isn't independent of, see `Records.unit`; None in files of earlier versions, as is all below.
      hd95_px_or_diagonal: pixels; the image's diagonal where one mask is empty, 0 where both are.
      hd95_mm_or_diagonal: likewise in millimetres; None if the spacing is unknown.
      nsd: surface Dice within the tolerance of `score`; 1 where both masks are empty, 0 where one is.
      volumetric_similarity: 1 - |predicted - target| / (predicted + target); 1 where both masks are empty.
      lesions_small: the number of small lesions of the true mask; for these and the classes of size see `lesions`.
      lesions_found_small: those of them that match a predicted one.
      lesions_false_small: small lesions of the predicted mask that match none.
      presence: in 0..1, the model's probability that the class is there at all; None where the model doesn't say.
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
    hd95_px_or_diagonal: float | None = None
    hd95_mm_or_diagonal: float | None = None
    nsd: float | None = None
    volumetric_similarity: float | None = None
    lesions_small: int | None = None
    lesions_medium: int | None = None
    lesions_large: int | None = None
    lesions_found_small: int | None = None
    lesions_found_medium: int | None = None
    lesions_found_large: int | None = None
    lesions_false_small: int | None = None
    lesions_false_medium: int | None = None
    lesions_false_large: int | None = None
    presence: float | None = None


LESION_FIELDS = tuple(f"lesions{kind}_{size}" for kind in ("", "_found", "_false") for size in lesions.SIZES)
"""Of `Sample`, in the order of `lesions.Counts`."""


def score(
    id: str,
    label: str,
    prompt: str,
    predicted: np.ndarray,
    target: np.ndarray,
    spacing: tuple[float, float] | None = None,
    tolerance: float = TOLERANCE,
) -> Sample:
    """Scores a predicted mask, (height, width) bool, against the true one.

    Args:
      id: of the record.
      label: its class.
      prompt: its phrase.
      predicted: the predicted mask.
      target: the true mask.
      spacing: millimetres between the centres of neighbouring rows, and of columns; None if unknown.
      tolerance: of `nsd`, in millimetres where the spacing is known, else in pixels.
    """
    intersection, union = int((predicted & target).sum()), int((predicted | target).sum())
    sizes = int(target.sum()), int(predicted.sum())
    row_spacing, column_spacing = spacing or (None, None)
    return Sample(
        id=id,
        label=label,
        prompt=prompt,
        dice=2 * intersection / sum(sizes) if union else 1.0,
        iou=intersection / union if union else 1.0,
        intersection=intersection,
        union=union,
        target=sizes[0],
        predicted=sizes[1],
        row_spacing_mm=row_spacing,
        column_spacing_mm=column_spacing,
        volumetric_similarity=volumetric_similarity(*sizes),
        **_outline_scores(predicted, target, spacing, tolerance),
        **lesion_fields(lesions.count(predicted, target)),
    )


def lesion_fields(counts: lesions.Counts) -> dict[str, Any]:
    """The counts by the names of the fields of `Sample`."""
    return dict(zip(LESION_FIELDS, np.concatenate(counts).tolist(), strict=True))


def volumetric_similarity(first: int, second: int) -> float:
    """1 - |first - second| / (first + second) of the sizes of two masks; 1 where both are 0."""
    return 1 - abs(first - second) / (first + second) if first or second else 1.0


def or_diagonal(hd95: float | None, size: Sequence[int], spacing: Sequence[float], *, both_empty: bool) -> float:
    """HD95, or where it is undefined the diagonal of an image or volume: 0 if both masks are empty.

    Args:
      hd95: None where a mask is empty.
      size: of the image or volume in pixels.
      spacing: of its pixels, in the unit of `hd95`.
      both_empty: whether both masks are.
    """
    if hd95 is not None:
        return hd95
    return 0.0 if both_empty else math.hypot(*(sides * apart for sides, apart in zip(size, spacing, strict=True)))


def _outline_scores(
    predicted: np.ndarray, target: np.ndarray, spacing: tuple[float, float] | None, tolerance: float
) -> dict[str, Any]:
    """The scores of outlines, whose distances are computed once in pixels and once in millimetres."""
    empty = not predicted.any(), not target.any()
    hd95, assd, surface_dice, in_mm = None, None, float(all(empty)), (None, None)
    nsd = surface_dice
    if not any(empty):
        outlines = surface.distances(predicted, target)
        hd95, assd, surface_dice = surface.hd95(*outlines), surface.assd(*outlines), surface.surface_dice(*outlines)
        if spacing is not None:
            outlines = surface.distances(predicted, target, spacing)
            in_mm = surface.hd95(*outlines), surface.assd(*outlines)
        nsd = surface.surface_dice(*outlines, tolerance)
    size, both_empty = predicted.shape, all(empty)
    return {
        "hd95_both_nonempty": hd95,
        "surface_dice_2px": surface_dice,
        "assd_px": assd,
        "hd95_mm": in_mm[0],
        "assd_mm": in_mm[1],
        "nsd": nsd,
        "hd95_px_or_diagonal": or_diagonal(hd95, size, (1, 1), both_empty=both_empty),
        "hd95_mm_or_diagonal": spacing and or_diagonal(in_mm[0], size, spacing, both_empty=both_empty),
    }


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """The scores that POLICIES and LATER_POLICIES explain, over at least one record, and the number of empty masks.

    Those in millimetres are there if the spacing of any record is known.
    """
    union = sum(sample.union for sample in samples)
    undefined = sum(sample.hd95_both_nonempty is None for sample in samples)
    known = [sample for sample in samples if sample.row_spacing_mm is not None]
    in_mm: dict[str, Any] = {}
    if known:
        in_mm = {name: mean_of(name, known) for name in IN_MM}
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
        **{name: mean_of(name, samples) for name in ("assd_px", "hd95_px_or_diagonal", "nsd", "volumetric_similarity")},
        **lesion_summary(samples),
        **in_mm,
    }


def lesion_sums(samples: Sequence[Any]) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """By class of size the number of lesions, of those found, and of false ones, over records or volumes."""
    true, found, false = (
        {size: sum(getattr(sample, f"lesions{kind}_{size}") or 0 for sample in samples) for size in lesions.SIZES}
        for kind in ("", "_found", "_false")
    )
    return true, found, false


def lesion_summary(samples: Sequence[Any]) -> dict[str, Any]:
    """Recall, precision and F1 over all lesions of all records or volumes, and of each class of size."""
    sums = lesion_sums(samples)
    scores: dict[str, Any] = {"lesions": sum(sums[0].values()), "false_lesions": sum(sums[2].values())}
    pooled = {"": lesions.rates(*(sum(each.values()) for each in sums))}
    pooled |= {f"_{size}": lesions.rates(*(each[size] for each in sums)) for size in lesions.SIZES}
    for size, values in pooled.items():
        scores |= {f"lesion_{rate}{size}_pooled": value for rate, value in zip(lesions.RATES, values, strict=True)}
    return scores


def mean_of(name: str, samples: Sequence[Any]) -> float | None:
    """The mean of a score over the records or volumes that have it; None where none has."""
    scores = [score for sample in samples if (score := getattr(sample, name)) is not None]
    return float(np.mean(scores)) if scores else None
