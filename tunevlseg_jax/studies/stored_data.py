"""Checks that a study's data sets are still those that its finished cells were trained on."""

import dataclasses
from pathlib import Path
from typing import Any

from tunevlseg_jax.data import registry
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.runs.card import CARD_FILE
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.studies.grid import Study
from tunevlseg_jax.studies.progress import StudyProgress


def check(study: Study, progress: StudyProgress) -> None:
    """Raises a UserError if cells are left to train on a data set that has changed since others were.

    Each data set is compared once for each image size and fold, with the card of a finished run.
    """
    cells = study.cells()
    unfinished = {cell.data for cell in cells if not progress.has(cell)}
    compared: set[Any] = set()
    for cell in cells:
        for run in progress.runs(cell) if cell.data in unfinished else ():
            data, size, fold = _trained_on(run)
            settings = dataclasses.replace(cell.config.data, fold=fold)
            if (key := (settings, size)) not in compared:
                compared.add(key)
                _compare(settings, run, data, size)


def _trained_on(run: Path) -> tuple[dict[str, str], tuple[int, int], int | None]:
    """The fingerprints of a run's splits, the size of its images, and its fold."""
    card = read_object(run / CARD_FILE)
    try:
        height, width = card["protocol"]["image_size"]
        shas = {name: sha for name, sha in card["data"].items() if name != "name"}
        return shas, (height, width), card["config"]["data"].get("fold")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"{run / CARD_FILE} lacks its data or image size; delete {run} to train it again"
        raise UserError(message, "bad-card") from error


def _compare(settings: Data, run: Path, data: dict[str, str], size: tuple[int, int]) -> None:
    for split, sha in data.items():
        if split not in registry.splits(settings) or registry.load(settings, split, size).fingerprint() != sha:
            raise UserError(
                f"the {split} records of {settings.name} have changed since {run} was trained on them, and the cells "
                "of a study are compared with each other; choose another --folder, or prepare the set as it was",
                "data-changed",
            )
