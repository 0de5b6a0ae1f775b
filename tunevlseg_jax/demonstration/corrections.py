"""Corrected masks of one user, kept as images, masks and a list that `prepare folder` reads."""

import csv
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tunevlseg_jax.data.builders import arrays
from tunevlseg_jax.data.builders.arrays import ArrayDataset, check_prompt
from tunevlseg_jax.data.images import read_rgb, resize, write_png
from tunevlseg_jax.demonstration.answers import thumbnail
from tunevlseg_jax.prediction.overlay import overlay
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error, write_csv

LIST_FILE = "list.csv"
MOST = 500
EVERY = 4
"""Of so many images, one is for validation."""


class Correction(NamedTuple):
    """A row of the list.

    Attributes:
      image: its file below the folder.
      mask: likewise.
      prompt: the phrase that the mask answers.
      group: equal for equal images, so that they come into one split.
    """

    image: str
    mask: str
    prompt: str
    group: str


class Corrections:
    """The corrected masks in a folder; the folder is created with the first of them."""

    def __init__(self, folder: Path):
        """Reads those that are there.

        Raises:
          UserError: the list can't be read.
        """
        self.folder = folder
        self._rows: dict[int, Correction] = {}
        self._thumbnails: dict[int, str] = {}
        path = folder / LIST_FILE
        if path.exists():
            with as_user_error(path), path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self._rows[int(Path(row["image"]).stem)] = Correction(**row)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def images(self) -> int:
        """The number of different images."""
        return len({row.group for row in self._rows.values()})

    def add(self, image: np.ndarray, mask: np.ndarray, prompt: str) -> int:
        """Keeps a mask, in place of an earlier one of the same image and phrase.

        Args:
          image: (height, width, 3) uint8.
          mask: (height, width) bool, perhaps at a smaller size of the same shape.
          prompt: the phrase.

        Returns:
          Its number.

        Raises:
          UserError: the phrase is empty, the list is full, or the disk is.
        """
        check_prompt(prompt, "the phrase")
        group = hashlib.sha256(image.tobytes()).hexdigest()[:12]
        earlier = [n for n, row in self._rows.items() if (row.group, row.prompt) == (group, prompt)]
        if not earlier and len(self) >= MOST:
            raise UserError(f"{self.folder} has {MOST} corrections already; remove some", "out-of-range")
        number = earlier[0] if earlier else max(self._rows, default=0) + 1
        row = Correction(f"images/{number:06d}.png", f"masks/{number:06d}.png", prompt, group)
        size = (image.shape[0], image.shape[1])
        whole = mask if mask.shape == size else resize(mask.astype(np.uint8), size, cv2.INTER_NEAREST) > 0
        with as_user_error(self.folder):
            for name in ("images", "masks"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            write_png(self.folder / row.image, image)
            write_png(self.folder / row.mask, whole.astype(np.uint8) * 255)
        self._rows[number] = row
        self._thumbnails.pop(number, None)
        self._write()
        return number

    def remove(self, number: int) -> None:
        """Removes a correction and its files.

        Raises:
          UserError: there is none of this number.
        """
        if number not in self._rows:
            raise UserError(f"there is no correction {number}; reload the page", "no-such-file")
        row = self._rows.pop(number)
        self._write()
        for name in (row.image, row.mask):
            with as_user_error(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

    def shown(self) -> list[dict[str, Any]]:
        """Number, phrase and thumbnail of each, for the page."""
        return [
            {"number": number, "phrase": row.prompt, "thumbnail": self._thumbnail(number, row)}
            for number, row in self._rows.items()
        ]

    def records(self) -> ArrayDataset:
        """All of them as training and validation records; every fourth image is for validation.

        Raises:
          UserError: there are fewer than two images.
        """
        groups = list(dict.fromkeys(row.group for row in self._rows.values()))
        if len(groups) < 2:
            raise UserError(
                f"training needs corrections of two images, one of them for validation, got {len(groups)}",
                "out-of-range",
            )
        rows = list(self._rows.values())
        splits = ["val" if groups.index(row.group) % EVERY == 1 else "train" for row in rows]
        images = [read_rgb(self.folder / row.image) for row in rows]
        return arrays.records(images, [self._mask(row) for row in rows], [row.prompt for row in rows], split=splits)

    def _mask(self, row: Correction) -> np.ndarray:
        return read_rgb(self.folder / row.mask)[..., 0] > 0

    def _thumbnail(self, number: int, row: Correction) -> str:
        if number not in self._thumbnails:
            drawn = overlay(read_rgb(self.folder / row.image), self._mask(row))
            self._thumbnails[number] = thumbnail(drawn)
        return self._thumbnails[number]

    def _write(self) -> None:
        """Writes the list; an empty one has its columns."""
        rows = [row._asdict() for row in self._rows.values()]
        if rows:
            write_csv(self.folder / LIST_FILE, rows)
        else:
            with as_user_error(self.folder / LIST_FILE):
                (self.folder / LIST_FILE).unlink(missing_ok=True)
