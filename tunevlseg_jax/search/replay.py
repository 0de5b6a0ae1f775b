"""Trains a trial of a study again, alone in its slot of the study's program: to the bit."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.runs.card import CARD_FILE, LEARNT_FILE, METRICS_FILE, TIMING_FIELDS, load_learnt, precision_of_card
from tunevlseg_jax.runs.run_folder import lock, open_folder
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search import memory_fit
from tunevlseg_jax.search.options import Replay
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.slots import SlotInfo, Slots
from tunevlseg_jax.training.experiment import Experiment


def places(options: Replay) -> tuple[Path, Path]:
    """The folders of the trial and of the new run.

    Raises:
      UserError: there is no such trial here, or it would be overwritten.
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
    """Trains a trial for the same epochs, in the same program and slot, with the other slots free.

    Args:
      folder: of the trial.
      again: the run folder to write.
      notify: receives a few words on the present activity.

    Returns:
      Whether the run is the same to the bit.

    Raises:
      UserError: the card lacks the program, the model or the records have changed, or memory is short.
    """
    config, _, card = load_learnt(folder)
    configuration.check(config)
    slot_info = _slot_info(folder, card)
    epochs = len(_curve(folder))
    program = dataclasses.replace(config, learner=slot_info.learner)
    # The same number of parts along the trial axis, or the greatest common divisor with the devices of now.
    shared = math.gcd(slot_info.devices[0], jax.device_count())
    resources = Resources(program, shared, kept=precision_of_card(card))
    experiment = resources.experiment(program)
    _check_room(experiment, config, folder)
    if experiment.pretrained.sha256 != card["model_sha256"]:
        raise UserError(f"{config.model.checkpoint} is not the model that {folder} was trained on", "model-changed")
    setup = experiment.train_setup(experiment.splits(resources.cache), resources.cache, parallel=True)
    for name, split in (("train", setup.train), ("val", setup.val)):
        if split.records.fingerprint() != card["data"].get(name):
            raise UserError(f"the {name} records of {config.data.name} have changed since {folder}", "data-changed")
    if memory_fit.usable_bytes(setup) < memory_fit.bytes_needed(experiment, setup, slot_info.trials):
        raise UserError(f"{slot_info.trials} trials of {folder} don't fit in memory; give --as-train", "device-memory")
    with lock(run := dataclasses.replace(config, workdir=str(again))):
        open_folder(run)
        slots = Slots(experiment, setup, slot_info.trials)
        slots.put(0, config, slot_info.slot)
        for epoch in range(1, epochs + 1):
            notify(f"epoch {epoch} of {epochs}")
            slots.train_epoch(lambda step, sums: None)
        slots.save(again, slot_info.slot, card["data"])
        ours, theirs = ((path / LEARNT_FILE).read_bytes() for path in (again, folder))
        return ours == theirs and _curve(again) == _curve(folder)


def _slot_info(folder: Path, card: Mapping[str, Any]) -> SlotInfo:
    """The program and the slot of a trial, from its card, which must have the data's fingerprints by split."""
    path = folder / CARD_FILE
    if "program" not in card:
        raise UserError(f"{folder} is of an earlier version without its program; give --as-train", "earlier-version")
    if not isinstance(card.get("data"), dict):
        raise UserError(f"{path}: data must be the fingerprint of each split, got {card.get('data')!r}", "bad-card")
    info = schema.from_json(SlotInfo, card["program"], f"{path}, program")
    if not 0 <= info.slot < info.trials:
        raise UserError(f"{path}, program: slot must be from 0 to {info.trials - 1}, got {info.slot}", "bad-card")
    if min(info.devices) < 1 or info.trials % info.devices[0]:
        raise UserError(f"{path}: devices must split {info.trials} trials, got {list(info.devices)}", "bad-card")
    return info


def _check_room(experiment: Experiment, config: Config, folder: Path) -> None:
    """Raises a UserError unless the program's parameters have room for the trial's."""
    room = {path: array.shape for path, array in experiment.trainable.items()}
    needed = {path: array.shape for path, array in experiment.init_params(config).items()}
    if needed.keys() != room.keys() or any(np.greater(needed[path], room[path]).any() for path in room):
        raise UserError(f"{folder / CARD_FILE}, program: its learner has no room for the trial's", "bad-card")


def _curve(folder: Path) -> list[str]:
    """The metrics of each epoch of a trial, without the fields that time the training."""
    path = folder / METRICS_FILE
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [json.dumps({name: line[name] for name in line if name not in TIMING_FIELDS}) for line in lines]
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"can't read {path}: {error}", "unreadable") from error
