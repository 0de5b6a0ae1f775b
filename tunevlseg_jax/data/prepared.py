"""Prepared sets: finding them, and reading them example by example; `data/builders/writer.py` writes them.

A prepared set is a TFDS data set in array_record, DIR/NAME/VERSION, with those of the splits train, val and test that
have records; `data/example_format.py` has the form of an example.

The file preprocessing.json in the same folder has the window that scaled images of more than 8 bits, and the axis of
volumes. The file mixed_values.json lists the classes whose mask files differ in their values. The file aliases.json
names splits that are copies of another: {"test": "val"} if the paper tests on val. The file clean.json holds the
"clean" protocol: for each split its examples, by stored split and index, and their records:
{"train": [{"split": "train", "index": 0, "id": "...", "records": ["..."]}, ...], ...}.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, SupportsIndex

from tunevlseg_jax.data import example_format, folds
from tunevlseg_jax.data.examples import SPLITS, Example
from tunevlseg_jax.data.settings import Protocol
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.runtime.files import read_object

VERSION = "1.0.0"
CLEAN_FILE = "clean.json"
ALIASES_FILE = "aliases.json"
WAYS_OUT = {
    "train": "Prepare the set again with images for train; a set without train can be scored but not trained on",
    "val": "Training needs val: prepare the set again with --fractions 0.8 0.2 0, which needs two images (or groups), "
    "or with a folder, or rows of a manifest, for val",
    "test": "Prepare the set again with --fractions 0.8 0.1 0.1, which needs three images (or groups), or score val: "
    "prepare --test-is-val makes it the test split",
}
"""What to do if a set lacks a split."""


class SelectedExample(NamedTuple):
    """An example of the clean protocol: its stored split, its index there, and the ids of the records to use."""

    split: str
    stored_index: int
    records: frozenset[str] | None


class Prepared:
    """One split of a prepared set, read example by example; it can be pickled.

    Attributes:
      folder: DIR/NAME/VERSION.
      name: name of the set.
      split: train, val or test.
      protocol: "paper" is the set as prepared, "clean" the splits of clean.json.
      fold: of train and val in a cross-validation; None for the splits as prepared.
    """

    def __init__(self, folder: Path, split: str, protocol: Protocol = "paper", fold: int | None = None):
        """Opens a split; `load` finds the folder of a set.

        Raises:
          UserError: there is no such split, or the set has no such protocol or fold.
        """
        self.fold = fold if split in folds.POOL else None
        self.folder, self.name, self.split, self.protocol = folder, folder.parent.name, split, protocol
        stored = example_format.open_splits(folder)
        stored_split = aliases(folder).get(split, split)
        self._selected = _selected(folder, stored_split) if protocol == "clean" else None
        if self.fold is not None:
            self._selected = [SelectedExample(*place, None) for place in folds.select(folder, split, self.fold)]
        sources = {stored_split} if self._selected is None else {selected.split for selected in self._selected}
        if missing := sorted(sources - stored.keys()):
            hint = nearest(missing[0], stored)
            if missing[0] in SPLITS:
                hint = f"; there are {', '.join(sorted(stored))}. {WAYS_OUT[missing[0]]}"
            raise UserError(f"{folder} has no split {missing[0]!r}{hint}", "unknown-split")
        self._stored_split, self._sources = stored_split, {name: stored[name] for name in sources}
        for selected in self._selected or ():
            if not 0 <= selected.stored_index < len(stored[selected.split]):
                raise UserError(
                    f"{folder / CLEAN_FILE} names image {selected.stored_index} of {len(stored[selected.split])} in "
                    f"{selected.split}; prepare check {self.name} --protocol clean writes it again",
                    "out-of-range",
                )

    def __len__(self) -> int:
        return len(self._sources[self._stored_split]) if self._selected is None else len(self._selected)

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: SupportsIndex) -> Example:
        number = range(len(self))[index]
        if self._selected is None:
            return self._stored(self._stored_split, number)
        selected = self._selected[number]
        example = self._stored(selected.split, selected.stored_index)
        if selected.records is None:
            return example
        records = tuple(record for record in example.records if record.id in selected.records)
        left_out = tuple(record.label for record in example.records if record.id not in selected.records)
        return dataclasses.replace(example, records=records, left_out=left_out)

    def _stored(self, split: str, index: int) -> Example:
        try:
            return example_format.decode(self._sources[split][index])
        except Exception as error:  # of various kinds, from TFDS and ArrayRecord
            reason = f" ({str(error).partition(';')[0]})" if isinstance(error, RuntimeError) else ""
            raise UserError(
                f"can't read image {index} of {split} in {self.folder}: its file is missing or broken{reason}; "
                "prepare the set again, or copy it again",
                "unreadable",
            ) from error


def load(root: Path, name: str, split: str, protocol: Protocol = "paper") -> Prepared:
    """A split of a prepared set.

    Args:
      root: the data folder, DIR.
      name: name of the set.
      split: train, val or test.
      protocol: "paper" for the set as prepared, "clean" for the splits without leaks that `prepare check` wrote.

    Raises:
      UserError: there is no such set, split or protocol.
    """
    return Prepared(find(root, name), split, protocol)


def find(root: Path, name: str) -> Path:
    """The folder of a set, DIR/NAME/VERSION.

    Raises:
      UserError: there is none.
    """
    folder = root / name / VERSION
    if name not in names(root):
        raise UserError(
            f"there is no prepared set {name!r} in {root}{nearest(name, names(root)) if names(root) else ''}; "
            "python -m tunevlseg_jax.prepare writes one",
            "no-such-data-set",
        )
    return folder


def splits(folder: Path) -> tuple[str, ...]:
    """The splits of a set, including aliases.

    Raises:
      UserError: the set can't be read.
    """
    return (*stored_splits(folder), *aliases(folder))


def names(root: Path) -> tuple[str, ...]:
    """The prepared sets in a data folder."""
    return tuple(sorted(path.parent.parent.name for path in root.glob(f"[!.]*/{VERSION}/features.json")))


def aliases(folder: Path) -> dict[str, str]:
    """The aliases of a set's splits: {"test": "val"} if test is val."""
    stored = read_object(folder / ALIASES_FILE)
    if wrong := [name for name in stored.values() if not isinstance(name, str)]:
        raise UserError(
            f"{folder / ALIASES_FILE} must name splits, got {wrong[0]!r}; prepare the set again", "wrong-json"
        )
    return stored


def stored_splits(folder: Path) -> tuple[str, ...]:
    """The stored splits of a set, without aliases.

    Raises:
      UserError: the set can't be read.
    """
    return tuple(sorted(example_format.open_splits(folder), key=SPLITS.index))


def _selected(folder: Path, split: str) -> list[SelectedExample]:
    """A split's examples in the clean protocol."""
    path = folder / CLEAN_FILE
    if not path.is_file():
        raise UserError(f"no {path}; prepare check {folder.parent.name} --protocol clean writes it", "no-clean-file")
    splits = read_object(path)
    if split not in splits:
        raise UserError(f"{path} has no split {split!r}{nearest(split, splits)}", "unknown-split")
    try:
        rows = [SelectedExample(row["split"], row["index"], frozenset(row["records"])) for row in splits[split]]
        if all(isinstance(row.split, str) and type(row.stored_index) is int for row in rows):
            return rows
    except (KeyError, TypeError):
        pass
    raise UserError(
        f"{path} has a row in {split!r} without split, index or records; prepare check {folder.parent.name} --protocol "
        "clean writes it again",
        "missing-field",
    )
