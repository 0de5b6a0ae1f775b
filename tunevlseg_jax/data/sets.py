"""Data sets by name."""

from __future__ import annotations

from tunevlseg_jax.config import Data
from tunevlseg_jax.data import scenes
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.errors import UserError, nearest

NAMES = tuple(f"scenes/{domain}" for domain in scenes.DOMAINS)


def load(data: Data, split: str) -> Records:
    """A split of a data set, at its own size.

    Raises:
      UserError: there is no such data set or split, or it holds no records.
    """
    if data.name not in NAMES:
        raise UserError(f"there is no data set {data.name!r}{nearest(data.name, NAMES)}")
    sizes = {"train": data.scenes.train, "val": data.scenes.val, "test": data.scenes.test}
    if split not in sizes:
        raise UserError(f"there is no split {split!r}{nearest(split, sizes)}")
    if sizes[split] < 1:
        raise UserError(f"data.scenes.{split} is {sizes[split]}: the data set would be empty")
    return scenes.load(
        data.name.removeprefix("scenes/"),
        split,
        sizes[split],
        seed=data.scenes.seed,
        absent_fraction=data.scenes.absent_fraction,
        varied=data.scenes.varied and split == "train",
        prompts_per_image=data.scenes.prompts_per_image if split == "train" else 1,
    )
