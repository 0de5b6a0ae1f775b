"""Which files a call writes: a name for each image and prompt, found before anything is predicted."""

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tunevlseg_jax.data.images import read_bytes
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.prediction import names
from tunevlseg_jax.prediction.frames import Take
from tunevlseg_jax.prediction.names import Names, Owner, Question
from tunevlseg_jax.prediction.table import Table
from tunevlseg_jax.prediction.walk import STDIN, Found
from tunevlseg_jax.runtime.errors import UserError

MASK, LABELS = "_mask.png", "_labels.png"
PARTS = (MASK, "_overlay.png", "_overlay.mp4", "_probability.png", "_probability.npy")
"""The ends of the names of a mask's files."""


@dataclass(frozen=True)
class Settings:
    """What is the same for every image.

    Attributes:
      prompts: names of objects, each once.
      threshold: probability above which a pixel belongs to a mask.
      run: folder of the run.
      run_sha256: fingerprint of the run.
      output: folder of the masks.
      frames: of files with several: "first" or "all".
      probabilities: the formats in which to write probabilities: "png", "npy".
      spacing: height and width of a pixel in millimetres, for files that don't say it.
      window: of images of more than 8 bits.
    """

    prompts: tuple[str, ...]
    threshold: float
    run: str
    run_sha256: str
    output: Path
    frames: Take = "first"
    probabilities: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None
    window: Window | None = None

    def question(self, prompt: str) -> Question:
        """What a mask of this call answers."""
        return Question(prompt, f"{self.threshold:.8g}", self.run, self.run_sha256)

    @property
    def label_question(self) -> Question | None:
        """What a label map of this call answers; None for one prompt, which needs no label map."""
        return self.question(" | ".join(self.prompts)) if len(self.prompts) > 1 else None


class Plan(NamedTuple):
    """A file to predict.

    Attributes:
      found: the file.
      data: the bytes of a file that can be read only once; None for others.
      masks: the name of its masks for each prompt, without "_mask.png"; the folder of the masks of several frames.
      labels: likewise of its label map; None for one prompt.
    """

    found: Found
    data: bytes | None
    masks: tuple[str, ...]
    labels: str | None


def plan(found: Sequence[Found], settings: Settings, masks: Table, maps: Table) -> list[Plan]:
    """A name for each mask: that of the same earlier mask, or one that isn't taken.

    Raises:
      UserError: a file of another program has the name of a mask, or standard input can't be read.
    """
    mask_names = Names(_owners(masks.rows.values(), "mask", MASK), lambda name: _check(settings.output, name, PARTS))
    label_names = Names(_label_owners(maps), lambda name: _check(settings.output, name, (LABELS,)))
    questions = [settings.question(prompt) for prompt in settings.prompts]
    several, plans, bases = len(questions) > 1, [], names.bases(found)
    for one in found:
        data = read_passing(one.path) if names.is_passing(str(one.path)) else None
        image = names.image_key(str(one.path), hashlib.sha256(data or b"").hexdigest())
        own = tuple(mask_names.of(image, bases[one.path], question, tagged=several) for question in questions)
        question = settings.label_question
        labels = None if question is None else label_names.of(image, bases[one.path], question, tagged=False)
        plans.append(Plan(one, data, own, labels))
    return plans


def files_of(output: Path, masks: Table, maps: Table) -> set[Path]:
    """The resolved paths of all files that earlier calls may have written."""
    names = {row["mask"].removesuffix(MASK) for row in masks.rows.values()}
    names |= {Path(row["mask"]).parent.as_posix() for row in masks.rows.values() if row["frame"]}  # of overlay videos
    files = {f"{name}{part}" for name in names for part in PARTS} | {row["labels"] for row in maps.rows.values()}
    folder = output.resolve()
    return {folder / file for file in files}


def read_passing(path: Path) -> bytes:
    """The bytes of standard input or of a pipe.

    Raises:
      UserError: there are none.
    """
    is_stdin = str(path) == STDIN
    data = sys.stdin.buffer.read() if is_stdin else read_bytes(path)
    if not data:
        raise UserError(f"{'standard input' if is_stdin else path} is empty; it must hold an image", "no-images")
    return data


def at(name: str, number: int | None) -> str:
    """The name of a frame's masks; that of the file itself if it has one image."""
    return name if number is None else f"{name}/{number:06d}"


def _owners(rows: Iterable[Mapping[str, Any]], column: str, end: str) -> dict[str, Owner]:
    owners = {}
    for row in rows:
        name = row[column].removesuffix(end)
        if row["frame"]:
            name = str(Path(name).parent.as_posix())
        question = Question(row["prompt"], row["threshold"], row["run"], row["run_sha256"])
        owners[name] = Owner(names.image_key(row["image"], row["image_sha256"]), question)
    return owners


def _label_owners(maps: Table) -> dict[str, Owner]:
    """The owners of label maps, whose prompts are those of all their rows."""
    joined: dict[str, dict[str, Any]] = {}
    for row in maps.rows.values():
        earlier = joined.get(row["labels"])
        joined[row["labels"]] = row if earlier is None else row | {"prompt": f"{earlier['prompt']} | {row['prompt']}"}
    return _owners(joined.values(), "labels", LABELS)


def _check(folder: Path, name: str, parts: Iterable[str]) -> None:
    """Raises a UserError where a file that isn't in the table has the name of a mask's file."""
    for part in parts:
        if (folder / f"{name}{part}").exists():
            raise UserError(f"{folder} holds another {name}{part}; choose another --output", "other-folder")
