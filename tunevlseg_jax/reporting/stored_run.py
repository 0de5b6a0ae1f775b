"""Reads the files of a run's folder, and raises an error unless they are complete and consistent."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from tunevlseg_jax import config
from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import ZeroShot
from tunevlseg_jax.reporting.evaluations import is_sha256
from tunevlseg_jax.runs.card import CARD_FILE, CONFIG_FILE, LEARNT_FILE, METRICS_FILE, NON_IDENTITY_FIELDS, RESULTS_FILE
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.search import summary
from tunevlseg_jax.training import optim

FILES = (
    CONFIG_FILE,
    METRICS_FILE,
    RESULTS_FILE,
    LEARNT_FILE,
    CARD_FILE,
)
"""What a run folder holds; one of them alone makes a folder look like one."""


def zero_shot(settings: Config) -> bool:
    """Whether this is the model as it is, with nothing to learn."""
    learner = isinstance(settings.learner, ZeroShot)
    return learner and settings.train.tune == "prompts" and settings.upsampling == "none"


def settings(folder: Path) -> Config:
    """What the run was asked for.

    Raises:
      UserError: the file is missing, broken, or no run's.
    """
    data = read_object(_file(folder, CONFIG_FILE))
    if data.get(schema.CLASS) != Config.__name__:
        raise UserError(f"its {CONFIG_FILE} must be a run's, but isn't", "not-a-run")
    asked = schema.from_json(Config, data, CONFIG_FILE)
    config.check(asked)
    return asked


def card(folder: Path, asked: Config) -> dict[str, Any]:
    """The run's card, with everything that a comparison needs.

    Raises:
      UserError: it is missing, as while a run trains; it is broken; it lacks something; or it isn't of the run's
        configuration or results.
    """
    if not (folder / CARD_FILE).exists():
        raise UserError(f"an unfinished run: there is no {CARD_FILE}", "run-unfinished")
    details = read_object(folder / CARD_FILE)
    data, protocol, scores = (details.get(name) for name in ("data", "protocol", "scores"))
    if not (isinstance(data, dict) and isinstance(protocol, dict) and isinstance(scores, dict)):
        raise UserError(f"its {CARD_FILE} must be a run's, but lacks 'data', 'protocol' or 'scores'", "bad-card")
    if schema.difference(details.get("config"), schema.to_json(asked), but=NON_IDENTITY_FIELDS):
        raise UserError(f"{CARD_FILE} and {CONFIG_FILE} are of different configurations", "bad-card")
    if not is_sha256(details.get("model_sha256")):
        raise UserError(f"{CARD_FILE} lacks the hash of the base model", "bad-card")
    size = protocol.get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise UserError(f"{CARD_FILE} lacks the image size", "bad-card")
    tuned = scores.get("tuned")
    if not isinstance(tuned, dict) or "val" not in tuned:
        raise UserError(f"{CARD_FILE} lacks validation scores", "bad-card")
    needed = {*tuned, *(() if zero_shot(asked) else ("train",))}
    if data.get("name") != asked.data.name or not all(is_sha256(data.get(split)) for split in needed):
        raise UserError(f"{CARD_FILE} lacks the fingerprint of its records", "bad-card")
    for split, metrics in tuned.items():
        for name in summary.METRICS:
            value: Any = metrics.get(name) if isinstance(metrics, dict) else None
            if not _is_finite(value) or (name != "loss" and not 0 <= value <= 1):
                raise UserError(f"the {split} {name} of {CARD_FILE} is {value}", "bad-card")
    if read_object(_file(folder, RESULTS_FILE)) != scores:
        raise UserError(f"{RESULTS_FILE} and {CARD_FILE} have different scores", "scores-disagree")
    return details


def curve(folder: Path, asked: Config, best: Any) -> list[dict[str, Any]]:
    """The run's epochs.

    Args:
      folder: of the run.
      asked: its configuration.
      best: the number of its best epoch, as the card has it.

    Raises:
      UserError: the file is missing or broken, ends before the run had to end, or was best in another epoch.
    """
    path = folder / METRICS_FILE
    if zero_shot(asked) and not path.exists():
        return []
    _file(folder, path.name)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        epochs = [(line["epoch"], line["val"]["loss"], line["val"]["dice"], line["train"]["loss"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path.name} is broken or cut off", "cut-off") from error
    if zero_shot(asked) and not lines:
        return []
    progress = optim.start(1)
    for number, (epoch, loss, dice, train_loss) in enumerate(epochs, 1):
        if epoch != number or progress.stopped[0]:
            raise UserError(f"line {number} of {path.name} must be of epoch {number}, but isn't", "bad-metrics")
        if not all(map(_is_finite, (loss, dice, train_loss))):
            raise UserError(f"its loss wasn't finite in epoch {number}", "not-finite")
        details = np.array([number]), np.array([loss]), np.array([dice])
        progress, _ = optim.advance(progress, *details, asked.optim, asked.train)
    if not (progress.stopped[0] or len(lines) == asked.train.epochs):
        raise UserError(f"{path.name} is cut off: it ends with epoch {len(lines)}, and the run had to go on", "cut-off")
    if best != progress.best_epoch[0]:
        raise UserError(f"{path.name} has best epoch {progress.best_epoch[0]}, {CARD_FILE} {best}", "scores-disagree")
    return lines


def check_learnt(folder: Path, asked: Config) -> None:
    """Raises a UserError unless the learnt tensors are there and whole."""
    path = _file(folder, LEARNT_FILE)
    try:
        with safe_open(path, framework="numpy") as tensors:
            number = len(list(tensors.keys()))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path.name} is broken or cut off: {error}", "cut-off") from error
    if bool(number) == zero_shot(asked):
        raise UserError(f"{path.name} has {number} tensors, not {'none' if number else 'some'}", "bad-learnt")


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"there is no {name}", "no-such-file")
    return folder / name


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
