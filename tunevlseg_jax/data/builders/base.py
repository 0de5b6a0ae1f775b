"""The base of all data set builders, which write prepared sets atomically."""

from __future__ import annotations

import abc
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter
from tensorflow_datasets.core.splits import SplitInfo

from tunevlseg_jax.data.prepared import ALIASES_FILE, VERSION, Example, encode, features
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_dir, write_json

B = TypeVar("B", bound="Builder")

tfds.disable_progress_bar()  # the command shows its own


class Written(NamedTuple):
    """Numbers of images and records in a split."""

    images: int
    records: int


class Info(tfds.core.DatasetInfo):
    """TFDS's DatasetInfo without its look-up in the cloud, which would leave empty temporary folders."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: the sets are the user's."""


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set in the prepared format, which `data/prepared.py` describes."""

    VERSION = tfds.core.Version(VERSION)
    about: str
    homepage: ClassVar[str | None] = None
    licence: ClassVar[str | None] = None
    test_is_val: bool = False
    """Whether test is val, as in the paper where the test masks aren't public."""

    def __init__(self, data_dir: Path):
        self.written: dict[str, Written] = {}
        super().__init__(data_dir=data_dir, file_format="array_record")

    @abc.abstractmethod
    def splits(self) -> Mapping[str, Iterable[Example]]:
        """The examples of each split that the set has, of train, val and test."""

    def _info(self) -> tfds.core.DatasetInfo:
        return Info(
            builder=self,
            description=self.about,
            homepage=self.homepage,
            license=self.licence,
            features=features(),
            disable_shuffling=True,  # keep the order of the annotations, so that indices and files never change
        )

    def _log_download_bytes(self) -> None:
        """Suppresses TFDS's message, which names temporary folders."""

    _log_download_done = _log_download_bytes

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[SplitInfo]:
        """Writes each split to one file, example by example and in order.

        TFDS's implementation sorts the examples by keys, which needs TensorFlow for more than a gigabyte.
        """
        generators = self._split_generators(dl_manager)
        return [self._write_split(split, examples) for split, examples in generators.items()]

    def _write_split(self, split: str, examples: Iterable[tuple[int, Any]]) -> SplitInfo:
        known: Any = self.info.features
        serializer = ExampleSerializer(known.get_serialized_info())
        template = self._get_filename_template(split_name=split)
        sizes: list[int] = []

        def serialized() -> Iterator[tuple[int, bytes]]:
            for number, example in examples:
                data = serializer.serialize_example(known.encode_example(example))
                sizes.append(len(data))
                yield number, data

        path = template.sharded_filepath(shard_index=0, num_shards=1)
        ArrayRecordFileAdapter.write_examples(path, serialized())
        return SplitInfo(split, [len(sizes)], sum(sizes), filename_template=template)

    def _split_generators(self, dl_manager: Any) -> Any:
        return {name: self._generate_examples(name, examples) for name, examples in self.splits().items()}

    def _generate_examples(self, split: str, examples: Iterable[Example]) -> Iterator[tuple[int, Any]]:
        images = records = 0
        for example in examples:
            yield images, encode(example)
            images, records = images + 1, records + len(example.records)
        self.written[split] = Written(images, records)


class InMemoryBuilder(Builder, skip_registration=True):
    """A data set of given examples."""

    def __init__(
        self,
        data_dir: Path,
        name: str,
        splits: Mapping[str, Iterable[Example]],
        about: str,
        test_is_val: bool = False,
    ):
        self.name = name  # pyright: ignore[reportAttributeAccessIssue] (set per object: users name their sets)
        self.about, self.test_is_val, self._given = about, test_is_val, splits
        super().__init__(data_dir)

    def splits(self) -> Mapping[str, Iterable[Example]]:
        """The given examples."""
        return self._given


def build(root: Path, name: str, make: Callable[[Path], B]) -> B:
    """Writes a builder's set to DIR/NAME/VERSION, atomically.

    Args:
      root: the data folder, DIR.
      name: name of the set.
      make: creates the builder, given its output folder.

    Returns:
      the builder, with the numbers of images and records that it has written.

    Raises:
      UserError: the name is invalid, DIR/NAME holds something else, the folder isn't writable, or an error of the
        builder.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise UserError(f"a name must be a letter, then letters, digits and _, got {name!r}", "invalid-name")
    _check_replaceable(root / name)
    with atomic_dir(root / name) as temporary:
        builder = make(temporary / "tfds")
        builder.download_and_prepare(download_dir=temporary / "tfds")
        if not any(split.images for split in builder.written.values()):
            raise UserError(f"the set {name} would be empty: no split has an image", "no-images")
        (temporary / "tfds" / name / VERSION).rename(temporary / VERSION)
        shutil.rmtree(temporary / "tfds")
        write_json(temporary / VERSION / ALIASES_FILE, {"test": "val"} if builder.test_is_val else {})
    return builder


def _check_replaceable(folder: Path) -> None:
    """Raises a UserError if a folder that is about to be replaced holds anything but a prepared set."""
    if not folder.exists():
        return
    others = [path.name for path in folder.iterdir() if path.name != VERSION] if folder.is_dir() else [folder.name]
    if others or not (folder / VERSION / "features.json").is_file():
        held = f", such as {others[0]!r}" if others else ""
        raise UserError(f"{folder} holds more than a prepared set{held}; give another --output or name", "other-folder")


def write(root: Path, name: str, splits: Mapping[str, Iterable[Example]], about: str) -> Path:
    """Writes a prepared set atomically; an older one of the same name is replaced.

    Args:
      root: the data folder, DIR.
      name: of the set.
      splits: the examples of train, val and test; generators are taken one example at a time.
      about: description of the set.

    Returns:
      its folder, DIR/NAME/VERSION.

    Raises:
      UserError: as in `build`.
    """
    build(root, name, lambda data_dir: InMemoryBuilder(data_dir, name, splits, about))
    return root / name / VERSION
