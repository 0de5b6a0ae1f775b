"""Writes the folder of a shared run."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from tunevlseg_jax.data.registry import SCENES
from tunevlseg_jax.demonstration import examples
from tunevlseg_jax.run import Run
from tunevlseg_jax.runs.card import CARD_FILE, LEARNT_FILE, load_learnt
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_dir, read_json, write_json
from tunevlseg_jax.sharing import page, pictures, scores
from tunevlseg_jax.sharing.public_card import SHARED_AS, check_private, public_card
from tunevlseg_jax.sharing.scores import Score

PAGE_FILE, SCORES_FILE = "README.md", "scores.json"
EXAMPLES = 4
"""Pictures of a run on the embedded data, if no number is given."""


def write(
    run: Run,
    folder: Path,
    name: str,
    *,
    licence: str | None = None,
    data_licence: str | None = None,
    number: int | None = None,
) -> list[Score]:
    """Writes a run as a folder for others, whole or not at all, and returns the scores on its page.

    Args:
      run: to share.
      folder: to write; an earlier one of the same hub id is replaced.
      name: the hub id, owner/name.
      licence: of the learnt prompts.
      data_licence: of the data set.
      number: of pictures; None for `EXAMPLES` of the embedded data, and for none of other data, whose images may be
        private.

    Raises:
      UserError: the folder holds something else, can't be written, or a file of it would show a path of this machine.
    """
    assert run.folder is not None
    check_folder(folder, name)
    _, learnt, card = load_learnt(run.folder)
    public = public_card(card, run.config, name)
    found = scores.of_run(run.folder, card)
    shown = examples.load(run.data)
    if number is None:
        number = EXAMPLES if run.config.data.name in SCENES else 0
    phrases = list(dict.fromkeys(phrase for example in shown for phrase in example.phrases))
    base = page.base_model(run.config.model.checkpoint, public["config"]["model"]["checkpoint"])
    with atomic_dir(folder) as temporary:
        drawn = pictures.write(temporary, run, shown[:number])
        parameters = sum(array.size for array in learnt.values())
        about = (run.config.learner.name, parameters, base, found, phrases, drawn)
        text = page.page(name, public, *about, licence, data_licence)
        listed = [dataclasses.asdict(score) for score in found]
        check_private(text.splitlines(), PAGE_FILE)
        check_private(listed, SCORES_FILE)
        (temporary / PAGE_FILE).write_text(text, encoding="utf-8")
        write_json(temporary / SCORES_FILE, listed)
        shutil.copyfile(run.folder / LEARNT_FILE, temporary / LEARNT_FILE)
        write_json(temporary / CARD_FILE, public)
    return found


def check_folder(folder: Path, name: str) -> None:
    """Raises a UserError where writing would replace anything but an earlier folder of the same hub id."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file, not a folder", "not-a-folder")
    if folder.exists() and any(folder.iterdir()) and _shared_as(folder) != name:
        raise UserError(f"--output {folder} is neither empty nor {name} from before; choose another", "other-folder")


def _shared_as(folder: Path) -> Any:
    path = folder / CARD_FILE
    card = read_json(path) if path.is_file() else None
    return card.get(SHARED_AS) if isinstance(card, dict) else None
