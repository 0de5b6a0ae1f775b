"""Trains a trial of a study again, alone in its slot of the study's program: to the bit."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.runs.card import CARD_FILE, LEARNT_FILE, METRICS_FILE, TIMING_FIELDS, load_learnt
from tunevlseg_jax.runs.run_folder import open_folder
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search import memory_fit
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.slots import SlotInfo, Slots
from tunevlseg_jax.training.experiment import Experiment

STUDIES = "runs/studies"


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A trial to train again.

    Attributes:
      study: name of the study.
      trial: number of the trial.
      folder: of all studies.
      workdir: folder of the new run; None for one in the study's folder.
      as_train: whether to train it as `python -m tunevlseg_jax.train` would: in a program of its own, whose sums are
        rounded otherwise, to its last epoch, with checkpoints, TensorBoard's events and the model's scores as it is.
    """

    study: tyro.conf.Positional[str]
    trial: tyro.conf.Positional[int]
    folder: str = STUDIES
    workdir: str | None = None
    as_train: bool = False


def places(options: Replay) -> tuple[Path, Path]:
    """Of the trial, and of the run that is to be.

    Raises:
      UserError: there is no such trial here, or it would be written over.
    """
    study = Path(options.folder) / options.study
    folder = study / "trials" / f"{options.trial:03d}"
    if not folder.is_dir():
        kept = [path.name.lstrip("0") or "0" for path in sorted(study.glob("trials/*"))]
        available = f"there are {', '.join(kept)}" if kept else f"there is no finished trial in {study}"
        raise UserError(f"the study {options.study!r} keeps no trial {options.trial}; {available}", "no-such-trial")
    name = f"{folder.name}-train" if options.as_train else folder.name
    again = Path(options.workdir or study / "replays" / name)
    if again.resolve() == folder.resolve():
        raise UserError(f"{folder} is the trial itself; choose another --workdir", "other-folder")
    return folder, again


def train_again(folder: Path, again: Path, notify: Callable[[str], None]) -> bool:
    """Trains a trial for the epochs that it had, in the program and the slot that it had, with nobody beside it.

    Args:
      folder: of the trial.
      again: run folder to make.
      notify: receives a few words on the present activity.

    Returns:
      Whether it is the same to the bit.

    Raises:
      UserError: the card doesn't say how, the model or the records are others now, or memory is short.
    """
    config, _, card = load_learnt(folder)
    configuration.check(config)
    place = _place(folder, card)
    epochs = len(_curve(folder))
    program = dataclasses.replace(config, learner=place.learner)
    # As many parts along the trial axis as there were, or what the devices that there are now share with that.
    resources = Resources(program, math.gcd(place.devices[0], jax.device_count()))
    experiment = resources.experiment(program)
    _check_room(experiment, config, folder)
    if experiment.pretrained.sha256 != card["model_sha256"]:
        raise UserError(f"{config.model.checkpoint} is not the model that {folder} was trained on", "model-changed")
    setup = resources.setup(program, experiment)
    for name, split in (("train", setup.train), ("val", setup.val)):
        if split.records.fingerprint() != card["data"].get(name):
            raise UserError(f"the {name} records of {config.data.name} have changed since {folder}", "data-changed")
    if memory_fit.usable_bytes(setup) < memory_fit.bytes_needed(experiment, setup, place.trials):
        raise UserError(f"{place.trials} trials of {folder} don't fit in memory; give --as-train", "device-memory")
    open_folder(dataclasses.replace(config, workdir=str(again)))
    slots = Slots(experiment, setup, place.trials)
    slots.put(0, config, place.slot)
    for epoch in range(1, epochs + 1):
        notify(f"epoch {epoch} of {epochs}")
        slots.advance(lambda step, sums: None)
    slots.save(again, place.slot, card["data"])
    ours, theirs = ((path / LEARNT_FILE).read_bytes() for path in (again, folder))
    return ours == theirs and _curve(again) == _curve(folder)


def _place(folder: Path, card: Mapping[str, Any]) -> SlotInfo:
    """The program and the slot that a trial had, by its card, whose data are fingerprints by split."""
    path = folder / CARD_FILE
    if "program" not in card:
        raise UserError(f"{folder} is of an earlier version without its program; give --as-train", "earlier-version")
    if not isinstance(card.get("data"), dict):
        raise UserError(f"{path}: data must be the fingerprint of each split, got {card.get('data')!r}", "bad-card")
    place = schema.from_json(SlotInfo, card["program"], f"{path}, program")
    if not 0 <= place.slot < place.trials:
        raise UserError(f"{path}, program: slot must be from 0 to {place.trials - 1}, got {place.slot}", "bad-card")
    if min(place.devices) < 1 or place.trials % place.devices[0]:
        raise UserError(f"{path}: devices must split {place.trials} trials, got {list(place.devices)}", "bad-card")
    return place


def _check_room(experiment: Experiment, config: Config, folder: Path) -> None:
    """Raises a UserError unless the program's parameters have room for the trial's."""
    room = {path: array.shape for path, array in experiment.trainable.items()}
    needed = {path: array.shape for path, array in experiment.init_params(config).items()}
    if needed.keys() != room.keys() or any(np.greater(needed[path], room[path]).any() for path in room):
        raise UserError(f"{folder / CARD_FILE}, program: its learner has no room for the trial's", "bad-card")


def _curve(folder: Path) -> list[str]:
    """A line for each epoch of a trial, without what is another every time."""
    path = folder / METRICS_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [json.dumps({name: line[name] for name in line if name not in TIMING_FIELDS}) for line in lines]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"can't read {path}: {error}", "unreadable") from error
