"""Computes the scores of an evaluation again from the files of its records, by sums alone, so that this doesn't share a
mistake with the code that wrote them."""

import csv
import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.evaluation.corruptions import KINDS
from tunevlseg_jax.evaluation.lesions import SIZES
from tunevlseg_jax.reporting.evaluations import StoredEvaluation
from tunevlseg_jax.runtime.errors import UserError

MEANS = (
    "dice",
    "sample_iou",
    "hd95_both_nonempty",
    "hd95_px_or_diagonal",
    "assd_px",
    "hd95_mm",
    "hd95_mm_or_diagonal",
    "assd_mm",
    "surface_dice_2px",
    "nsd",
    "volumetric_similarity",
)
"""Scores that are means over the records that have them."""
COLUMNS = {"sample_iou": "iou"}
"""Names of their columns, where these are others."""

_Row = Mapping[str, str]


def evaluation(stored: StoredEvaluation) -> StoredEvaluation:
    """The evaluation with every score that its records determine. The others are sums over pixels, which no file has,
    and stay as stored; `calibration_error` is the one that a file's bins determine."""
    rows = _rows(stored.samples)
    found: dict[str, float | None] = {name: _mean(_values(rows, COLUMNS.get(name, name))) for name in MEANS}
    intersection, union = (sum(int(row[name]) for row in rows) for name in ("intersection", "union"))
    found |= {"iou": intersection / union if union else 1.0, **_lesions(rows)}
    return dataclasses.replace(stored, scores={**stored.scores, **{k: v for k, v in found.items() if k in stored.scores}})


def corrupted(path: Path) -> dict[str, float]:
    """Mean Dice on clean and corrupted images and on each kind of corruption, from the CSV of `evaluate --corrupt`."""
    rows = _rows(path)
    kinds = {
        kind: math.fsum(_defined(rows, f"{kind}_{number}", path) for number in range(1, len(values) + 1)) / len(values)
        for kind, values in KINDS.items()
    }
    return {"clean": _defined(rows, "clean", path), "corrupted": math.fsum(kinds.values()) / len(kinds)} | kinds


def phrases(path: Path) -> dict[str, float]:
    """Dice over paraphrases: mean, worst and spread, from the CSV of `evaluate --phrases`."""
    classes: dict[str, list[_Row]] = defaultdict(list)
    for row in _rows(path):
        classes[row["label"]].append(row)
    sums = {"mean": 0.0, "worst": 0.0, "spread": 0.0}
    for rows in classes.values():
        columns = [_values(rows, name) for name in rows[0] if name.startswith("phrase_")]
        each = [math.fsum(values) / len(values) for values in columns if values]
        scores = {"mean": math.fsum(each) / len(each), "worst": min(each), "spread": max(each) - min(each)}
        sums = {name: total + len(rows) * scores[name] for name, total in sums.items()}
    return {name: total / sum(map(len, classes.values())) for name, total in sums.items()}
