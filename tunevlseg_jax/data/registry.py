"""Data sets by name."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from tunevlseg_jax.data import prepared, resized_cache, scenes, targets
from tunevlseg_jax.data.absent_things import with_negatives
from tunevlseg_jax.data.prepared import Prepared
from tunevlseg_jax.data.preprocessing import AS_THEY_ARE, Preprocessing, read
from tunevlseg_jax.data.records import Records, resized
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.data.targets import Target
from tunevlseg_jax.runtime.errors import UserError, nearest

SCENES = tuple(f"scenes/{domain}" for domain in scenes.DOMAINS)


def load(data: Data, split: str, size: tuple[int, int], *, complete: bool = False) -> Records:
    """A split of a data set at (height, width).

    In training, `data.shots` limits the records per class, and `data.negatives` adds questions for absent things.

    Args:
      data: settings of the data set.
      split: train, val or test.
      size: of images and maps.
      complete: whether `scenes` has a record for every class of each image instead of `scenes.prompts_per_image`.

    Raises:
      UserError: the data set or split doesn't exist, the split has no records, or there are no negatives.
    """
    if data.name in SCENES:
        records = resized(_scenes(data, split, complete), size)
    else:
        records = resized_cache.load(_prepared(data, split), size, data.cache, data.prompt_index)
    if split != "train":
        return records
    records = records.few_shot(data.shots, data.shots_seed) if data.shots else records
    return with_negatives(records, data) if data.negatives else records


def originals(
    data: Data, split: str, *, complete: bool = False, wanted: Iterable[bool] = itertools.repeat(True)
) -> Iterator[Target]:
    """The masks of each image of a split at the image's own size.

    Args:
      data: as in `load`.
      split: as in `load`.
      complete: as in `load`.
      wanted: for each image, whether its masks are; those of the others aren't decoded.

    Raises:
      UserError: as in `load`.
    """
    if data.name in SCENES:
        return itertools.compress(targets.stored(_scenes(data, split, complete)), wanted)
    return targets.original(itertools.compress(_prepared(data, split), wanted))


def vanished(data: Data, records: Records) -> tuple[str, ...]:
    """The ids of the records whose mask is empty at the records' size, though it isn't at the image's own size.

    Raises:
      UserError: as in `load`.
    """
    empty = {records.ids[row] for row in range(len(records)) if not records.mask(row).any()}
    if not empty or data.name in SCENES:
        return ()
    lost = []
    for example in _prepared(data, records.split):
        asked = [record for record in example.records if record.id in empty]
        maps = example.maps() if asked else ()
        lost += [record.id for record in asked if (maps[record.mask] == record.value).any()]
    return tuple(lost)


def count(data: Data, split: str) -> int:
    """The number of records in a split, ignoring `data.shots`; no image is read.

    Raises:
      UserError: as in `load`.
    """
    if data.name in SCENES:
        return getattr(data.scenes, split) * (data.scenes.prompts_per_image if split == "train" else 1)
    return sum(len(example.records) for example in _prepared(data, split))


def preprocessing(data: Data) -> Preprocessing:
    """How the files of a data set were read.

    Raises:
      UserError: the data set doesn't exist.
    """
    return AS_THEY_ARE if data.name in SCENES else read(_folder(data))


def splits(data: Data) -> tuple[str, ...]:
    """The splits that a data set has.

    Raises:
      UserError: the data set doesn't exist.
    """
    return scenes.SPLITS if data.name in SCENES else prepared.splits(_folder(data))


def check_prompt_kind(data: Data) -> None:
    """Raises a UserError if `scenes` are asked for another kind of prompts than their only one.

    Only what is new is checked: earlier versions ignored the number, and their runs and studies still go on.
    """
    if data.name in SCENES and data.prompt_index != 1:
        message = f"{data.name} has one kind of prompts: data.prompt_index must be 1, got {data.prompt_index}"
        raise UserError(message, "prompt-index")


def check_fold(data: Data) -> None:
    """Raises a UserError if the data set doesn't exist, or doesn't have the fold that the settings name."""
    _prepared(data, "train")


def _prepared(data: Data, split: str) -> Prepared:
    return Prepared(_folder(data), split, data.protocol, data.fold)


def _folder(data: Data) -> Path:
    """The folder of a prepared set."""
    names = prepared.names(Path(data.root))
    if data.name not in names:
        there = ", ".join(names) or "nothing; python -m tunevlseg_jax.prepare writes sets"
        near = nearest(data.name, [*SCENES, *names])
        raise UserError(f"no data set {data.name!r}{near} (prepared in {data.root}: {there})", "no-such-data-set")
    return prepared.find(Path(data.root), data.name)


def _scenes(data: Data, split: str, complete: bool) -> Records:
    """A split of the embedded data set, at its own size."""
    if split not in scenes.SPLITS:
        raise UserError(f"there is no split {split!r}{nearest(split, scenes.SPLITS)}", "unknown-split")
    if (number := getattr(data.scenes, split)) < 1:
        raise UserError(f"data.scenes.{split} must be at least 1, got {number}", "out-of-range")
    prompts = data.scenes.prompts_per_image if split == "train" else 1
    return scenes.load(
        data.name.removeprefix("scenes/"),
        split,
        number,
        seed=data.scenes.seed,
        absent_fraction=data.scenes.absent_fraction,
        varied=data.scenes.varied and split == "train",
        prompts_per_image=len(scenes.CLASSES) if complete else prompts,
    )
