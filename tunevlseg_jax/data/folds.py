"""Folds for cross-validation: parts of the images of train and val, each the validation split of one run."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object

FOLDS_FILE = "folds.json"
"""In a prepared set: {"folds": 5, "train": [0, 3, ...], "val": [...]}, the fold of each stored example."""
POOL = ("train", "val")
"""The splits whose images are in folds; the test split stays apart."""


class Member(NamedTuple):
    """An image: its name, its patient or video sequence ("" where unknown), and the classes of its records."""

    id: str
    group: str
    labels: tuple[str, ...]


def assign(members: Sequence[Member], number: int, seed: int) -> list[int]:
    """The fold of each image: groups stay together, and every class has about the same share in each fold.

    The result depends on the images and not on their order.

    Raises:
      UserError: there are fewer groups than folds.
    """
    groups = {member.group or f"image {member.id}" for member in members}
    if len(groups) < number:
        raise UserError(f"--folds must be at most the number of groups, {len(groups)}, got {number}", "out-of-range")
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    order = sorted(range(len(members)), key=lambda row: (members[row].group, members[row].id))
    rows = [(row, label) for row in order for label in (members[row].labels or ("",))]
    names = [members[row].group or f"image {members[row].id}" for row, _ in rows]
    labels = [label for _, label in rows]
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    chosen = np.zeros(len(members), int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer records than folds
        rare = max(labels.count(label) for label in {*labels}) < number  # which scikit-learn refuses
        for fold, (_, held) in enumerate(splitter.split(rows, ["" for _ in labels] if rare else labels, names)):
            chosen[[rows[row][0] for row in held]] = fold
    return chosen.tolist()


def select(folder: Path, split: str, fold: int) -> list[tuple[str, int]]:
    """The stored split and index of each example of train or val in a fold.

    Raises:
      UserError: the set has no folds, or not so many.
    """
    path = folder / FOLDS_FILE
    if not path.is_file():
        raise UserError(f"{folder.parent.name} has no folds; prepare folder --folds 5 writes some", "no-folds")
    stored = read_object(path)
    if not 0 <= fold < stored["folds"]:
        raise UserError(
            f"data.fold must be from 0 to {stored['folds'] - 1} in {folder.parent.name}, got {fold}", "out-of-range"
        )
    return [
        (name, index)
        for name in POOL
        for index, member in enumerate(stored.get(name, []))
        if (member == fold) == (split == "val")
    ]
