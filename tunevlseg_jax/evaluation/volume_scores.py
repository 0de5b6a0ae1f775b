"""Scores of whole volumes in three dimensions, from the masks of their slices."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.volume_slice import VolumeSlice
from tunevlseg_jax.evaluation import lesions, record_scores, surface
from tunevlseg_jax.evaluation.settings import TOLERANCE
from tunevlseg_jax.runtime.files import write_csv

POLICIES = {
    "volume_dice": "mean over volumes and classes of the Dice of all scored voxels of a volume; 1 where both masks are "
    "empty, 0 where one is",
    "volume_hd95_mm": "mean over volumes and classes of HD95 between surfaces in three dimensions; undefined where a "
    "mask is empty or the spacing is unknown",
    "volume_assd_mm": "average symmetric surface distance, likewise",
}
"""How the scores of volumes are averaged. Slices that aren't scored count as empty in both masks."""
LATER_POLICIES = {
    "volume_hd95_mm_or_diagonal": "volume_hd95_mm; the diagonal of the scored slices where one mask is empty, 0 where "
    "both are; mean over volumes and classes whose spacing is known",
    "volume_nsd_mm": "the share of both surfaces' voxels within nsd_tolerance millimetres of the other; mean over "
    "volumes and classes whose spacing is known; 1 where both masks are empty, 0 where one is",
    "volume_volumetric_similarity": "mean over volumes and classes; 1 where both masks are empty, 0 where one is",
    "volume_lesion_recall_pooled": "the share of all true lesions of all volumes that match a predicted one, in three "
    "dimensions; undefined where there are none",
    "volume_lesion_precision_pooled": "likewise of all predicted lesions that match a true one",
    "volume_lesion_f1_pooled": "likewise of both",
}
"""Likewise, of scores that evaluations of earlier versions lack."""


@dataclass(frozen=True)
class VolumeSample:
    """The scores of one class in one volume.

    Attributes:
      volume: its name.
      label: the class.
      slices: number of slices that are scored.
      slices_in_volume: number of slices that it has.
      dice: 1 where both masks are empty, 0 where one is.
      hd95_mm: in three dimensions; None unless both masks have voxels and the spacing is known.
      assd_mm: likewise.
      intersection: voxels.
      target: voxels of the true mask.
      predicted: voxels of the predicted mask.
      slice_spacing_mm: millimetres between the centres of neighbouring slices that could be scored; None if unknown.
      row_spacing_mm: likewise of rows.
      column_spacing_mm: likewise of columns.
      hd95_mm_or_diagonal: the diagonal of the scored slices where one mask is empty, 0 where both are.
      nsd_mm: surface Dice within a tolerance in millimetres; 1 where both masks are empty, 0 where one is.
      volumetric_similarity: see `record_scores.volumetric_similarity`.
      lesions_small: in three dimensions; this and the following as in `record_scores.Sample`.
    """

    volume: str
    label: str
    slices: int
    slices_in_volume: int
    dice: float
    hd95_mm: float | None
    assd_mm: float | None
    intersection: int
    target: int
    predicted: int
    slice_spacing_mm: float | None
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    hd95_mm_or_diagonal: float | None = None
    nsd_mm: float | None = None
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


class VolumeScores(NamedTuple):
    """The scores of the volumes of a split.

    Attributes:
      samples: of each volume and class.
      left_out: number of volumes of which other slices or records are in the set, but not in the split.
    """

    samples: list[VolumeSample]
    left_out: int


@dataclass
class _Stack:
    """The masks of a class in the slices of a volume so far, as bits."""

    size: tuple[int, int]
    spacing: tuple[float, float] | None
    masks: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def add(self, number: int, predicted: np.ndarray, target: np.ndarray) -> None:
        masks = np.packbits(predicted), np.packbits(target)
        if number in self.masks:  # two records of a class
            masks = masks[0] | self.masks[number][0], masks[1] | self.masks[number][1]
        self.masks[number] = masks

    def volumes(self, step: int) -> np.ndarray:
        """(2, slice, height, width) bool, the predicted mask and the true one; slices in between are empty."""
        first = min(self.masks)
        volumes = np.zeros((2, (max(self.masks) - first) // step + 1, *self.size), bool)
        for number, masks in self.masks.items():
            for volume, bits in zip(volumes, masks, strict=True):
                plane = np.unpackbits(bits, count=self.size[0] * self.size[1])
                volume[(number - first) // step] = plane.reshape(self.size)
        return volumes


class VolumeScorer:
    """Collects the masks of slices, and scores a volume when it has all of them."""

    def __init__(self, records: Records, tolerance: float = TOLERANCE):
        """
        Args:
          records: of the split.
          tolerance: of NSD, in millimetres.
        """
        self._tolerance = tolerance
        self._slices = records.slices or (None,) * len(records.names)
        there = Counter(place.volume for place in self._slices if place is not None)
        torn = {place.volume for place in self._slices if place is not None and there[place.volume] != place.prepared}
        torn |= {place.volume for row in _without_records(records) if (place := self._slices[row]) is not None}
        self._waiting = {volume: count for volume, count in there.items() if volume not in torn}
        self._stacks: dict[str, dict[str, _Stack]] = {}
        self.scores = VolumeScores([], len(torn)) if there else None
        """None if no image is a slice of a volume."""

    def add(
        self, image: int, label: str, predicted: np.ndarray, target: np.ndarray, spacing: tuple[float, float] | None
    ) -> None:
        """One mask.

        Args:
          image: row of the image.
          label: the class.
          predicted: (height, width) bool, the predicted mask.
          target: likewise the true mask.
          spacing: millimetres between the centres of neighbouring rows, and of columns; None if unknown.
        """
        place = self._slices[image]
        if place is not None and place.volume in self._waiting:
            stacks = self._stacks.setdefault(place.volume, {})
            stack = stacks.setdefault(label, _Stack((predicted.shape[0], predicted.shape[1]), spacing))
            stack.add(place.number, predicted, target)

    def close(self, image: int) -> list[VolumeSample]:
        """Says that all masks of an image were added; scores its volume, and returns that, if it was the last one."""
        place = self._slices[image]
        if place is None or self.scores is None or place.volume not in self._waiting:
            return []
        self._waiting[place.volume] -= 1
        if self._waiting[place.volume]:
            return []
        stacks = self._stacks.pop(place.volume, {})
        samples = [_score(place, label, stack, self._tolerance) for label, stack in sorted(stacks.items())]
        self.scores.samples.extend(samples)
        return samples


def _without_records(records: Records) -> list[int]:
    """The images that show a class without a record that asks for it, as the clean protocol and few shots leave."""
    if records.shown is None:
        return []
    asked = np.zeros_like(records.shown)
    asked[records.image, records.label] = True
    return np.flatnonzero((records.shown & ~asked).any(axis=1)).tolist()


def _score(place: VolumeSlice, label: str, stack: _Stack, tolerance: float) -> VolumeSample:
    predicted, target = stack.volumes(place.step)
    intersection = int(np.count_nonzero(predicted & target))
    sizes = int(np.count_nonzero(target)), int(np.count_nonzero(predicted))
    between = None if place.spacing is None else place.spacing * place.step
    row, column = stack.spacing or (None, None)
    in_mm: dict[str, float | None] = {"hd95_mm": None, "assd_mm": None}
    if between is not None and stack.spacing is not None:
        in_mm = _surface_scores(predicted, target, (between, *stack.spacing), tolerance)
    return VolumeSample(
        volume=place.volume,
        label=label,
        slices=len(stack.masks),
        slices_in_volume=place.total,
        dice=2 * intersection / sum(sizes) if any(sizes) else 1.0,
        intersection=intersection,
        target=sizes[0],
        predicted=sizes[1],
        slice_spacing_mm=between,
        row_spacing_mm=row,
        column_spacing_mm=column,
        volumetric_similarity=record_scores.volumetric_similarity(*sizes),
        **in_mm,
        **record_scores.lesion_fields(lesions.count(predicted, target)),
    )


def _surface_scores(
    predicted: np.ndarray, target: np.ndarray, spacing: tuple[float, float, float], tolerance: float
) -> dict[str, float | None]:
    empty = not predicted.any(), not target.any()
    hd95, assd, nsd = None, None, float(all(empty))
    if not any(empty):
        surfaces = surface.volume_distances(predicted, target, spacing)
        hd95, assd = surface.hd95(*surfaces), surface.assd(*surfaces)
        nsd = surface.surface_dice(*surfaces, tolerance)
    penalised = record_scores.or_diagonal(hd95, predicted.shape, spacing, both_empty=all(empty))
    return {"hd95_mm": hd95, "assd_mm": assd, "hd95_mm_or_diagonal": penalised, "nsd_mm": nsd}


def summary(samples: Sequence[VolumeSample]) -> dict[str, Any]:
    """The scores that POLICIES and LATER_POLICIES explain, and the number of volumes; None where no volume has a score.

    Lesions are there as well, see `record_scores.lesion_summary`.
    """
    means = ("dice", "hd95_mm", "assd_mm", "hd95_mm_or_diagonal", "nsd_mm", "volumetric_similarity")
    return {
        **{f"volume_{name}": record_scores.mean_of(name, samples) for name in means},
        **{f"volume_{name}": value for name, value in record_scores.lesion_summary(samples).items()},
        "volumes": len({sample.volume for sample in samples}),
    }


def write(path: Path, samples: Sequence[VolumeSample]) -> None:
    """Writes a CSV file with a row for each volume and class, the fields of `VolumeSample`."""
    write_csv(path, [dataclasses.asdict(sample) for sample in samples])


def note(scores: VolumeScores) -> str:
    """Which slices the scores are over, and what was left out."""
    scored, total = (sum(getattr(one, name) for one in scores.samples) for name in ("slices", "slices_in_volume"))
    parts = []
    if scores.samples and scored == total:
        parts.append("every slice of the volumes is scored")
    elif scores.samples:
        parts.append(
            f"only the slices that the set holds and that ask for the class are scored, {scored / total:.0%} of the "
            "volumes' slices, so what is marked elsewhere doesn't count; all are with prepare --slices all and "
            "--ask-absent"
        )
    if scores.left_out:
        parts.append(f"no score for {scores.left_out} of the volumes, of which the split lacks slices or records")
    return "; ".join(parts)
