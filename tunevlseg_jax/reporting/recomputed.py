"""Computes scores again from the files of single records by sums alone, and so without the code that wrote them."""

import csv
import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunevlseg_jax.evaluation.calibration import CALIBRATED
from tunevlseg_jax.evaluation.corruptions import KINDS
from tunevlseg_jax.evaluation.lesions import SIZES
from tunevlseg_jax.reporting.evaluations import StoredEvaluation
from tunevlseg_jax.reporting.reliability_bins import Bins
from tunevlseg_jax.runtime.errors import UserError

MEANS = {
    "dice": "dice",
    "sample_iou": "iou",
    "hd95_both_nonempty": "hd95_both_nonempty",
    "hd95_px_or_diagonal": "hd95_px_or_diagonal",
    "assd_px": "assd_px",
    "hd95_mm": "hd95_mm",
    "hd95_mm_or_diagonal": "hd95_mm_or_diagonal",
    "assd_mm": "assd_mm",
    "surface_dice_2px": "surface_dice_2px",
    "nsd": "nsd",
    "volumetric_similarity": "volumetric_similarity",
}
"""Scores that are means of a column over the records that have a number there, and that column."""

_Row = Mapping[str, str]


def evaluation(stored: StoredEvaluation) -> StoredEvaluation:
    """The evaluation with every score that its files determine: means, pooled ratios, and the calibration error by its
    bins. The other scores of calibration are sums over pixels, of which no file has parts; they stay as stored."""
    rows = _rows(stored.samples)
    intersection, union = (_sum(rows, name) for name in ("intersection", "union"))
    found: dict[str, float | None] = {name: _mean(_values(rows, column)) for name, column in MEANS.items()}
    found |= {"iou": intersection / union if union else 1.0, **_lesions(rows)}
    found |= _calibration_errors(stored.reliability)
    return dataclasses.replace(stored, scores={name: found.get(name, value) for name, value in stored.scores.items()})


def corrupted(path: Path) -> dict[str, float]:
    """Mean Dice on clean and on corrupted images and on each kind of them, from the CSV of `evaluate --corrupt`.

    Raises:
      UserError: the file is missing or broken.
    """
    rows = _rows(path)
    kinds = {
        kind: _all(
            [_mean(_values(rows, f"{kind}_{number}")) for number in range(1, len(strengths) + 1)], f"{path}: {kind}"
        )
        for kind, strengths in KINDS.items()
    }
    clean = _all([_mean(_values(rows, "clean"))], f"{path}: clean")
    return {"clean": clean, "corrupted": math.fsum(kinds.values()) / len(kinds), **kinds}


def phrases(path: Path) -> dict[str, float]:
    """Dice over paraphrases, its mean, worst and spread, from the CSV of `evaluate --phrases`.

    Raises:
      UserError: the file is missing or broken.
    """
    classes: dict[str, list[_Row]] = defaultdict(list)
    for row in _rows(path):
        classes[row.get("label", "")].append(row)
    scores: dict[str, list[float]] = {"mean": [], "worst": [], "spread": []}
    for name, rows in classes.items():
        means = [_mean(_values(rows, column)) for column in rows[0] if column.startswith("phrase_")]
        each = [mean for mean in means if mean is not None]
        mean = _all([*each] or [None], f"{path}: {name}")
        for score, value in (("mean", mean), ("worst", min(each)), ("spread", max(each) - min(each))):
            scores[score] += [value] * len(rows)
    return {score: math.fsum(values) / len(values) for score, values in scores.items()}


def _rows(path: Path) -> Sequence[_Row]:
    """The rows of a CSV.

    Raises:
      UserError: there is no such file, or it has no row.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[_Row] = [*csv.DictReader(file)]
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.name}", "no-such-file") from error
    if not rows:
        raise UserError(f"{path.name} has no row", "bad-evaluation")
    return rows


def _values(rows: Sequence[_Row], column: str) -> list[float]:
    """The numbers of a column; an empty field has none, and a file of an earlier version may lack the column."""
    return [float(text) for row in rows if (text := row.get(column))]


def _sum(rows: Sequence[_Row], column: str) -> int:
    return sum(int(text) for row in rows if (text := row.get(column)))


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _all(means: Sequence[float | None], place: str) -> float:
    """The mean of means; an error where one is missing."""
    values = [mean for mean in means if mean is not None]
    if len(values) < len(means):
        raise UserError(f"{place} has no numbers", "bad-evaluation")
    return math.fsum(values) / len(values)


def _lesions(rows: Sequence[_Row]) -> dict[str, float | None]:
    """Recall, precision and F1 over the lesions of all records."""
    true, found, false = (
        sum(_sum(rows, f"lesions{kind}_{size}") for size in SIZES) for kind in ("", "_found", "_false")
    )
    parts = {
        "recall": (found, true),
        "precision": (found, found + false),
        "f1": (2 * found, true + found + false),
    }
    return {f"lesion_{name}_pooled": part / of if of else None for name, (part, of) in parts.items()}


def _calibration_errors(reliability: Sequence[Bins]) -> dict[str, float | None]:
    """The calibration errors by their names, from the bins of an evaluation."""
    errors = {}
    for bins in reliability:
        filled = [each for each in zip(bins.pixels, bins.probability, bins.true, strict=True) if each[0]]
        apart = math.fsum(pixels * abs(probability - true) for pixels, probability, true in filled)
        total = sum(pixels for pixels, *_ in filled)
        errors["ece" + CALIBRATED * (bins.temperature != 1)] = float(apart / total) if total else None
    return errors
