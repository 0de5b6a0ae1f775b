"""Runs, studies and evaluations written by hand in the formats of the commands, with scores that a test chooses."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation import record_scores
from tunevlseg_jax.evaluation.record_scores import Sample
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.runs.card import make_card
from tunevlseg_jax.runs.run_folder import save_trial
from tunevlseg_jax.runtime import files
from tunevlseg_jax.runtime.files import write_csv, write_json


def config(**changes: Any) -> Config:
    """Two epochs of CoOp on the embedded model."""
    usual = Config(
        learner=CoOp(depth=2, max_depth=3),
        upsampling="blend",
        data=Data(name="scenes/photo"),
        train=Train(epochs=2, batch_size=4),
    )
    return dataclasses.replace(usual, **changes)


def sha256(*words: object) -> str:
    """A fingerprint of something that these words name."""
    return hashlib.sha256(repr(words).encode()).hexdigest()


def fingerprints(data: str, shots: int | None = None) -> dict[str, str]:
    """Of a data set's splits."""
    return {"train": sha256(data, "train", shots)} | {split: sha256(data, split) for split in ("val", "test")}


def scores(dice: float) -> dict[str, float]:
    """A split's."""
    return {"loss": 1 - dice, "dice": dice, "iou": dice / 2, "sample_iou": dice / 2}


def run(
    folder: Path,
    config: Config,
    val: Sequence[float] = (0.25, 0.5),
    test: float | None = None,
    *,
    learnt: dict[str, np.ndarray] | None = None,
    model: str | None = None,
    size: int = 64,
    data: dict[str, str] | None = None,
) -> Path:
    """Writes a run folder and returns it.

    Args:
      folder: of the run.
      config: of the run; its whereabouts are changed.
      val: validation Dice of each epoch; one for a zero-shot run, which has no epochs.
      test: test Dice in the card.
      learnt: tensors; None for a context of zeros.
      model: what the model's hash is of; None for its name.
      size: height and width of the images.
      data: fingerprints by split, instead of those that the data set's name and shots give.
    """
    config = dataclasses.replace(config, workdir=str(folder))
    zero_shot = type(config.learner).__name__ == "ZeroShot" and config.train.tune == "prompts"
    curve = [] if zero_shot else [_line(number, dice) for number, dice in enumerate(val, 1)]
    tuned = {"val": scores(max(val))} | ({} if test is None else {"test": scores(test)})
    data = {"name": config.data.name} | (data or fingerprints(config.data.name, config.data.shots))
    card = make_card(config, sha256(model or config.model.checkpoint), (size, size), data)
    card |= {"epochs": len(curve), "best_epoch": int(np.argmax(val)) + 1 if curve else 0, "scores": {"tuned": tuned}}
    if learnt is None:
        learnt = {} if zero_shot else {"learner/context": np.zeros((3, 4, 64), np.float32)}
    save_trial(folder, config, curve, learnt, card)
    return folder


def _line(number: int, dice: float) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    timing = {"learning_rate": 1e-3, "seconds": 1.0, "images_per_second": 10.0}
    return {"epoch": number, "train": scores(dice), "val": scores(dice)} | timing


def sample(name: str, intersection: int, target: int, predicted: int) -> Sample:
    """A record of which so many pixels are true, predicted, and both."""
    union = target + predicted - intersection
    both = target > 0 and predicted > 0
    return Sample(
        id=name,
        label="one",
        prompt="one",
        dice=2 * intersection / (target + predicted) if union else 1.0,
        iou=intersection / union if union else 1.0,
        hd95_both_nonempty=1.5 if both else None,
        surface_dice_2px=0.25 if both else float(not union),
        intersection=intersection,
        union=union,
        target=target,
        predicted=predicted,
    )


def records(dice: float, number: int = 4) -> list[Sample]:
    """Records of 100 true and 100 predicted pixels, whose mean Dice is nearly this."""
    return [sample(f"{row}", round(100 * dice), 100, 100) for row in range(number)]


def evaluation(
    folder: Path,
    data: str,
    rows: Sequence[Sample],
    *,
    split: str = "test",
    resolution: str = "model",
    sha: str | None = None,
    size: int = 64,
) -> Path:
    """Writes an evaluation of a run as `evaluate` does, and returns its JSON."""
    path = folder / "evaluations" / f"{data.replace('/', '_')}_{split}_{resolution}.json"
    write_csv(path.with_suffix(".csv"), [dataclasses.asdict(row) for row in rows])
    details = {"run": str(folder), "data": data, "protocol": "paper", "split": split, "resolution": resolution}
    details |= {"every_class": False, "data_sha256": sha or fingerprints(data)[split], "size": f"{size}x{size}"}
    details |= {"samples_sha256": files.sha256(path.with_suffix(".csv")), "threshold": 0.5}
    details |= {"empty_masks": record_scores.POLICIES, "records": len(rows), "scores": record_scores.summary(rows)}
    write_json(path, details)
    return path


def study(folder: Path, states: Sequence[str], best: dict[str, Any] | None = None) -> Path:
    """Writes what a sweep leaves beside its trials' folders, and returns the study's; `best` as in its summary."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["trial", "state", "objective"])
        table.writerows([number, state, 0.5] for number, state in enumerate(states))
    write_json(folder / "summary.json", {"study": folder.name, "trials": len(states), "best": best})
    return folder
