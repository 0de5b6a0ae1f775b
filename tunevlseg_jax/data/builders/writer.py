"""Writes prepared sets, atomically."""

import dataclasses
import itertools
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunevlseg_jax.data import folds, preprocessing, seen_encodings, windows
from tunevlseg_jax.data.example_format import encode, features
from tunevlseg_jax.data.examples import Example
from tunevlseg_jax.data.images import decode_deep, is_deep
from tunevlseg_jax.data.mask_files import as_png, tag_of
from tunevlseg_jax.data.prepared import ALIASES_FILE, VERSION, Prepared, stored_splits
from tunevlseg_jax.data.preprocessing import AS_THEY_ARE, Preprocessing
from tunevlseg_jax.data.seen_encodings import SeenEncodings
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_dir, write_json


@dataclass(frozen=True)
class Contents:
    """What a set holds.

    Attributes:
      splits: the examples of train, val and test, for the splits that have any; generators are taken one example at
        a time.
      about: description of the set.
      homepage: its web page, if it has one.
      licence: its licence, if it is known.
      test_is_val: whether test is val, as in the paper where the test masks aren't public.
      folds: number of folds for cross-validation; 0 for none.
      seed: of the folds.
      preprocessing: how the source is read. Without a window, images of more than 8 bits get one for the whole set.
      encodings: counts the values of the mask files as the examples are read.
      ranges: the id and the range of each image of more than 8 bits, noted as the examples are written.
    """

    splits: Mapping[str, Iterable[Example]]
    about: str
    homepage: str | None = None
    licence: str | None = None
    test_is_val: bool = False
    folds: int = 0
    seed: int = 0
    preprocessing: Preprocessing = AS_THEY_ARE
    encodings: SeenEncodings = field(default_factory=SeenEncodings)
    ranges: list[tuple[str, windows.Range]] = field(default_factory=list)


class Written(NamedTuple):
    """Numbers of images and records in a split."""

    images: int
    records: int


def write(
    root: Path,
    name: str,
    splits: Mapping[str, Iterable[Example]],
    about: str,
    preprocessing: Preprocessing = AS_THEY_ARE,
) -> Path:
    """Writes a set of these examples, as `build` does, and returns its folder, DIR/NAME/VERSION."""
    build(root, name, lambda _: Contents(splits, about, preprocessing=preprocessing))
    return root / name / VERSION


def build(root: Path, name: str, open_contents: Callable[[Path], Contents]) -> dict[str, Written]:
    """Writes a prepared set to DIR/NAME/VERSION, atomically; an older one of the same name is replaced.

    Args:
      root: the data folder, DIR.
      name: name of the set.
      open_contents: gives the contents; called with the path of a temporary folder for unpacked files.

    Returns:
      the numbers of images and records in each split.

    Raises:
      UserError: the name is invalid, DIR/NAME holds something else, the folder isn't writable, or an error while the
        examples are read.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise UserError(f"a name must be a letter, then letters, digits and _, got {name!r}", "invalid-name")
    _check_replaceable(root / name)
    with atomic_dir(root / name) as temporary:
        unpacked, folder = temporary / "unpacked", temporary / VERSION
        contents = open_contents(unpacked)
        written = _write_scaled(folder, name, contents)
        if not any(split.images for split in written.values()):
            raise UserError(f"the set {name} would be empty: no split has an image", "no-images")
        if contents.folds:
            _write_folds(folder, contents)
        seen_encodings.write(folder, contents.encodings.mixed())
        shutil.rmtree(unpacked, ignore_errors=True)
    return written


def _write_folds(folder: Path, contents: Contents) -> None:
    """Writes the folds of a set whose splits are written."""
    pool = {split: Prepared(folder, split) for split in folds.POOL if split in stored_splits(folder)}
    members = [
        folds.Member(example.id, example.group, tuple(record.label for record in example.records))
        for examples in pool.values()
        for example in examples
    ]
    numbers = iter(folds.assign(members, contents.folds, contents.seed))
    of_split = {split: list(itertools.islice(numbers, len(examples))) for split, examples in pool.items()}
    write_json(folder / folds.FOLDS_FILE, {"folds": contents.folds, **of_split})


def _write_scaled(folder: Path, name: str, contents: Contents) -> dict[str, Written]:
    """Writes each split with images of 8 bits, and how they were scaled.

    The window of deep images without a given one is known only when all have been read. They are written as they are
    first, and once more with their window.
    """
    how = contents.preprocessing
    given = how.window

    def scaled(example: Example, window: windows.Window | None) -> Example:
        if not is_deep(example.image):
            return example
        values = decode_deep(example.image, f"image {example.id!r}")
        if window == given and not isinstance(given, str):
            contents.ranges.append((example.id, windows.value_range(values)))
        if window is None:
            return example
        return dataclasses.replace(example, image=as_png(windows.scaled(values, window), tag_of(example.image)))

    written = _write_splits(folder, name, contents, lambda example: scaled(example, given))
    if contents.ranges and given is None:
        how = dataclasses.replace(how, window=windows.default(windows.joined(one for _, one in contents.ranges)))
        unscaled = folder.rename(folder.with_name("unscaled"))
        stored = {split: Prepared(unscaled, split) for split, count in written.items() if count.images}
        again = dataclasses.replace(contents, splits=stored)
        written = _write_splits(folder, name, again, lambda example: scaled(example, how.window))
        shutil.rmtree(unscaled)
    preprocessing.write(folder, how)
    return written


def _write_splits(
    folder: Path, name: str, contents: Contents, finish: Callable[[Example], Example]
) -> dict[str, Written]:
    """Writes each split to one file, example by example and in order, and TFDS's metadata."""
    import tensorflow_datasets as tfds  # loads late: it takes long, and only writing needs it

    folder.mkdir()
    write_json(folder / ALIASES_FILE, {"test": "val"} if contents.test_is_val else {})
    info = tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(name, tfds.core.Version(VERSION), str(folder), __name__),
        description=contents.about,
        homepage=contents.homepage,
        license=contents.licence,
        features=features(),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=sys.maxsize, file_format="array_record")
    records = Counter[str]()

    def encoded(split: str, examples: Iterable[Example]) -> Iterator[dict[str, Any]]:
        for example in examples:
            records[split] += len(example.records)
            yield encode(finish(example))

    for split, examples in contents.splits.items():
        first = next(examples := iter(examples), None)
        if first is None:  # TFDS can't read a split without examples
            continue
        examples = itertools.chain([first], examples)
        writer.initialize_splits([split])
        # The writer iterates over its examples only once, so a generator is as good as the list that it asks for.
        writer.add_examples({split: encoded(split, examples)})  # pyright: ignore[reportArgumentType]
        writer.close_splits([split])
    return {split: Written(info.splits[split].num_examples, records[split]) for split in info.splits}


def _check_replaceable(folder: Path) -> None:
    """Raises a UserError if a folder that is about to be replaced holds anything but a prepared set."""
    if not folder.exists():
        return
    others = [path.name for path in folder.iterdir() if path.name != VERSION] if folder.is_dir() else [folder.name]
    if others or not (folder / VERSION / "features.json").is_file():
        held = f", such as {others[0]!r}" if others else ""
        raise UserError(f"{folder} holds more than a prepared set{held}; give another --output or name", "other-folder")
