"""Reads the files of a run's folder, and raises an error unless they are complete and consistent."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tunevlseg_jax import config
from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import ZeroShot
from tunevlseg_jax.reporting.evaluations import is_finite, is_sha256
from tunevlseg_jax.runs.card import CARD_FILE, CONFIG_FILE, LEARNT_FILE, METRICS_FILE, NON_IDENTITY_FIELDS, RESULTS_FILE
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.search import summary

FILES = (CONFIG_FILE, METRICS_FILE, RESULTS_FILE, LEARNT_FILE, CARD_FILE)
"""The files of a run folder; a folder with any of them is read as one."""


def zero_shot(settings: Config) -> bool:
    """Whether nothing is trained."""
    return isinstance(settings.learner, ZeroShot) and (settings.train.tune, settings.upsampling) == ("prompts", "none")


def read_config(folder: Path) -> Config:
    """The configuration of a run.

    Raises:
      UserError: the file is missing, broken, or no run's.
    """
    data = read_object(_file(folder, CONFIG_FILE))
    if data.get(schema.CLASS) != Config.__name__:
        raise UserError(f"its {CONFIG_FILE} must be a run's, but isn't", "not-a-run")
    settings = schema.from_json(Config, data, CONFIG_FILE)
    config.check(settings)
    return settings


def card(folder: Path, settings: Config) -> dict[str, Any]:
    """The card of a run.

    Raises:
      UserError: it is missing, as while a run trains; it is broken; or it lacks or contradicts something.
    """
    if not (folder / CARD_FILE).exists():
        raise UserError(f"an unfinished run: there is no {CARD_FILE}", "run-unfinished")
    details = read_object(folder / CARD_FILE)
    data, protocol, scores = (details.get(name) for name in ("data", "protocol", "scores"))
    if not (isinstance(data, dict) and isinstance(protocol, dict) and isinstance(scores, dict)):
        raise UserError(f"its {CARD_FILE} must be a run's, but lacks 'data', 'protocol' or 'scores'", "bad-card")
    if schema.difference(details.get("config"), schema.to_json(settings), NON_IDENTITY_FIELDS, config.ADDED):
        raise UserError(f"{CARD_FILE} and {CONFIG_FILE} are of different configurations", "bad-card")
    if not is_sha256(details.get("model_sha256")):
        raise UserError(f"{CARD_FILE} lacks the hash of the base model", "bad-card")
    size = protocol.get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise UserError(f"{CARD_FILE} lacks the image size", "bad-card")
    tuned = scores.get("tuned")
    if not isinstance(tuned, dict) or "val" not in tuned:
        raise UserError(f"{CARD_FILE} lacks validation scores", "bad-card")
    needed = {*tuned, *(() if zero_shot(settings) else ("train",))}
    if data.get("name") != settings.data.name or not all(is_sha256(data.get(split)) for split in needed):
        raise UserError(f"{CARD_FILE} lacks the fingerprint of its records", "bad-card")
    for split, metrics in tuned.items():
        for name in summary.METRICS:
            value: Any = metrics.get(name) if isinstance(metrics, dict) else None
            if not is_finite(value) or (name != "loss" and not 0 <= value <= 1):
                raise UserError(f"the {split} {name} of {CARD_FILE} is {value}", "bad-card")
    if read_object(_file(folder, RESULTS_FILE)) != scores:
        raise UserError(f"{RESULTS_FILE} and {CARD_FILE} have different scores", "scores-disagree")
    return details


def curve(folder: Path, settings: Config, card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, one an epoch; a zero-shot run has none.

    Raises:
      UserError: the file is missing or broken, or has other epochs than the card says.
    """
    path = folder / METRICS_FILE
    if zero_shot(settings) and not path.exists():
        return []
    _file(folder, path.name)
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        epochs = [(line["epoch"], line["val"]["dice"], line["val"]["loss"], line["train"]["loss"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path.name} is broken or cut off", "cut-off") from error
    for number, (epoch, *values) in enumerate(epochs, 1):
        if epoch != number:
            raise UserError(f"line {number} of {path.name} must be of epoch {number}, but isn't", "bad-metrics")
        if not all(map(is_finite, values)):
            raise UserError(f"its loss wasn't finite in epoch {number}", "not-finite")
    stored = card.get("epochs", len(lines))  # cards of version 0.1.0 don't tell how many epochs there were
    if stored != len(lines) or not (lines or zero_shot(settings)):
        raise UserError(f"{path.name} is cut off: it ends with epoch {len(lines)}, and the run had to go on", "cut-off")
    dice = [dice for _, dice, *_ in epochs]
    best, stored = 1 + dice.index(max(dice)) if dice else 0, card.get("best_epoch")
    if best != stored:
        raise UserError(f"{path.name} is best in epoch {best}, not {stored} as {CARD_FILE} says", "scores-disagree")
    return lines


def check_learnt(folder: Path, settings: Config) -> None:
    """Raises a UserError unless the learnt tensors are there and whole."""
    path = _file(folder, LEARNT_FILE)
    try:
        with safe_open(path, framework="numpy") as tensors:
            number = len(list(tensors.keys()))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path.name} is broken or cut off: {error}", "cut-off") from error
    if bool(number) == zero_shot(settings):
        raise UserError(
            f"{path.name} has {number} tensors; the run learnt {'none' if number else 'some'}", "bad-learnt"
        )


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise UserError(f"there is no {name}", "no-such-file")
    return folder / name
