"""The two files of a run to share: the learnt tensors, and their card."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax import __version__
from tunevlseg_jax.config import Config, Precision
from tunevlseg_jax.pretrained.model import FLOATS, read_tensors, write_tensors
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json, read_object, write_json

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
LEARNT_FILE = "prompts.safetensors"
CARD_FILE = "card.json"
RESULTS_FILE = "results.json"

NON_IDENTITY_FIELDS = ("workdir", "data.root", "data.cache", "data.placement", "data.workers", "train.shard_frozen")
"""Fields that a run may change when it goes on: they decide where things are, as the number of devices does."""
TIMING_FIELDS = ("seconds", "images_per_second")
"""Fields of `metrics_line` that differ each time a run is trained."""


def save_learnt(folder: Path, learnt: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> None:
    """Writes the learnt tensors, then their card; each file is written whole or not at all."""
    write_tensors(folder / LEARNT_FILE, learnt)
    save_card(folder, card)


def save_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Writes a card, and before it the scores that it holds as `results.json`: a folder with a card is complete."""
    if "scores" in card:
        write_json(folder / RESULTS_FILE, card["scores"])
    write_json(folder / CARD_FILE, card)


def add_to_card(folder: Path, entries: Mapping[str, Any]) -> None:
    """Adds entries to the card of a run, or replaces them.

    Raises:
      UserError: the card is missing or broken, or can't be written.
    """
    write_json(folder / CARD_FILE, read_object(folder / CARD_FILE) | dict(entries))


def stored_command(folder: Path) -> str | None:
    """The command line in the card of a run; None if the run has no card, or its card holds none."""
    with contextlib.suppress(UserError):
        command = read_object(folder / CARD_FILE).get("command")
        return command if isinstance(command, str) else None
    return None


def make_card(
    config: Config, model_sha256: str, image_size: tuple[int, int], data: Mapping[str, Any]
) -> dict[str, Any]:
    """What a reader needs to use learnt tensors and to trust their scores; `data` holds fingerprints by split."""
    return {
        "made_by": f"tunevlseg_jax {__version__}",
        "config": schema.to_json(config),
        "model_sha256": model_sha256,
        "protocol": {
            "image_size": list(image_size),
            "augmentation": _augmentation(config),
            "threshold": 0.5,
            "dice": "mean over samples; empty on empty counts 1",
            "iou": "one ratio over all pixels of the split",
            "selected_by": "validation Dice",
        }
        | _parameters(config),
        "data": dict(data),
    }


def temperature_of_card(card: Mapping[str, Any], name: str) -> float:
    """The temperature that divides logits in probabilities; 1 for a run that wasn't calibrated.

    Raises:
      UserError: the card's isn't a positive number; `name` is the card's.
    """
    stored = card.get("calibration", {"temperature": 1.0})
    temperature = stored.get("temperature") if isinstance(stored, dict) else None
    if not isinstance(temperature, int | float) or not 0 < temperature < math.inf:
        raise UserError(
            f"{name}: the temperature of its calibration must be a positive number, got {temperature!r}; fit it again "
            "with evaluate --calibrate after removing 'calibration'",
            "bad-card",
        )
    return float(temperature)


def precision_of_card(card: Mapping[str, Any]) -> Precision | None:
    """The precision that "auto" keeps on a CPU: that of the card, and float32 for a card of an earlier version.

    None for a run of another device: "auto" then chooses for this CPU.
    """
    computed = card.get("computed")
    if not isinstance(computed, dict):
        return "float32"
    if computed.get("platform") != "cpu":
        return None
    return "bfloat16" if computed.get("precision") == "bfloat16" else "float32"


def _augmentation(config: Config) -> str:
    if not config.train.augment:
        return "none"
    views = config.train.augmented_views
    return "drawn in each step" if views is None else f"{views} fixed views of each image, one an epoch in turn"


def _parameters(config: Config) -> dict[str, str]:
    """What the tensors are, where they aren't the trained parameters of an epoch."""
    if config.train.ema is not None:
        return {"parameters": f"exponential moving average over steps, decay {config.train.ema:g}"}
    if config.learner.averages_epochs:
        return {"parameters": "average over epochs, with the learner's weights"}
    return {}


def _no_run(folder: Path) -> str:
    """Why a folder isn't a finished run, and what to give instead."""
    if (folder / CONFIG_FILE).is_file():
        if "learner" in read_object(folder / CONFIG_FILE):
            return "its training hasn't finished; the same train command goes on with it"
        return "it is the folder of a model; give the folder of a run"
    inside = sorted(card for depth in ("*", "*/*") for card in folder.glob(f"{depth}/{CARD_FILE}"))
    return "it is no run folder" + (f"; give one in it, such as {inside[0].parent}" if inside else "")


def load_learnt(folder: Path) -> tuple[Config, dict[str, np.ndarray], dict[str, Any]]:
    """The configuration, the learnt tensors and the card of a run, from its folder or from these two files alone.

    Raises:
      UserError: a file is missing or broken.
    """
    if not (folder / CARD_FILE).is_file():
        raise UserError(f"there is no {CARD_FILE} in {folder}: {_no_run(folder)}", "run-unfinished")
    data = read_json(folder / CARD_FILE)
    if not isinstance(data, dict) or "config" not in data or "model_sha256" not in data:
        raise UserError(f"{folder / CARD_FILE} is no card: it lacks 'config' or 'model_sha256'", "bad-card")
    config = schema.from_json(Config, data["config"], str(folder / CARD_FILE))
    learnt = read_tensors(folder / LEARNT_FILE)
    for name, array in learnt.items():
        if array.dtype.name not in (*FLOATS, "float64"):
            reason = f"{name} must be of floats, got {array.dtype}"
            raise UserError(f"{folder / LEARNT_FILE}: {reason}; copy it again, or train again", "bad-learnt")
    return config, learnt, data
