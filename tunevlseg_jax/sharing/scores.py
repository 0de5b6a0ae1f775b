"""The test scores of a run, with the interval of each mean Dice where the scores of its records are stored."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.evaluation.evaluate_run import FOLDER
from tunevlseg_jax.reporting import evaluations
from tunevlseg_jax.reporting.evaluations import StoredEvaluation
from tunevlseg_jax.reporting.statistics import intervals
from tunevlseg_jax.reporting.statistics.units import unit_means
from tunevlseg_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Score:
    """The scores of a run on one split.

    Attributes:
      data: name of the data set.
      split: "test", or "val" for a set without a test split.
      own: whether the run was trained on this set.
      dice: mean over records.
      iou: one ratio over all pixels.
      interval: lower and upper limit of the Dice, 95 %, over independent units; None without records' scores.
      units: number of patients, videos or images; None as well.
      records: number of records; None as well.
      zero_shot: Dice of the base model as it is; None where it is unknown.
    """

    data: str
    split: str
    own: bool
    dice: float
    iou: float
    interval: tuple[float, float] | None = None
    units: int | None = None
    records: int | None = None
    zero_shot: float | None = None


def of_run(folder: Path, card: Mapping[str, Any]) -> list[Score]:
    """The scores on the run's own set, then on others, from its evaluations and its card.

    Evaluations of data that has changed since training, or of images that trained the run, are left out.
    """
    found = list(_evaluated(folder, card))
    own = [score for score in found if score.own] or [score for score in (_of_card(card),) if score]
    return own + sorted((score for score in found if not score.own), key=lambda score: score.data)


def _evaluated(folder: Path, card: Mapping[str, Any]) -> Iterator[Score]:
    for path in sorted((folder / FOLDER).glob("*.json")):
        with contextlib.suppress(UserError):  # of another threshold, or cut off; a report names these
            stored = evaluations.read(path)
            if stored.is_plain_test and not stored.data_changed and not stored.trained_on:
                yield _of_evaluation(stored, card)


def _of_evaluation(stored: StoredEvaluation, card: Mapping[str, Any]) -> Score:
    rows = evaluations.read_units(stored.samples).values()
    units = unit_means(np.array([dice for dice, _ in rows]), [unit for _, unit in rows])
    low, high = intervals.bca(units)
    own = card.get("data", {}).get("test") == stored.data_sha256
    scores = stored.scores
    return Score(
        stored.data,
        stored.split,
        own,
        scores["dice"],
        scores["iou"],
        (float(low), float(high)) if np.isfinite(low) else None,
        len(units),
        stored.records,
        _stored(card, "zero-shot", "test", "dice") if own else None,
    )


def _of_card(card: Mapping[str, Any]) -> Score | None:
    """The score that `train` stored, which has no interval."""
    for split in ("test", "val"):
        dice, iou = (_stored(card, "tuned", split, name) for name in ("dice", "iou"))
        if dice is not None and iou is not None:
            zero_shot = _stored(card, "zero-shot", split, "dice")
            return Score(card["config"]["data"]["name"], split, True, dice, iou, zero_shot=zero_shot)
    return None


def _stored(card: Mapping[str, Any], row: str, split: str, name: str) -> float | None:
    """A score of the card; None if the card lacks it."""
    value = (card.get("scores") or {}).get(row, {}).get(split, {}).get(name)
    return float(value) if isinstance(value, int | float) else None
