"""The base of the ten public sets: items from files, in the paper's splits or in seeded ones."""

from __future__ import annotations

import abc
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from tunevlseg_jax.data.builders import annotation_files
from tunevlseg_jax.data.builders.annotation_files import Annotation
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.base import Builder
from tunevlseg_jax.data.builders.items import Item, Progress, assign_splits
from tunevlseg_jax.data.prepared import SPLITS, Example, Record
from tunevlseg_jax.runtime.errors import UserError


class Sizes(NamedTuple):
    """Records in each split of the paper's Table 1."""

    train: int
    val: int
    test: int


class PublicSet(Builder, skip_registration=True):
    """A public set; its docstring describes the set, its source and its licence.

    Attributes:
      sizes: records in the paper's Table 1.
      annotated: the set's folder in medvlsm's `data/`, "" if there is none.
    """

    sizes: ClassVar[Sizes]
    annotated: ClassVar[str] = ""

    def __init__(self, data_dir: Path, source: SourceFiles, annotated: Path | None, seed: int, progress: Progress):
        """Makes the builder.

        Args:
          data_dir: output folder.
          source: the download.
          annotated: medvlsm's `data/`, for the paper's splits and prompts; None for seeded splits.
          seed: seed of the splits without annotations.
          progress: shows the progress.

        Raises:
          UserError: annotations are given for a set that has its own splits.
        """
        self.about = inspect.cleandoc(type(self).__doc__ or "")
        self._source, self._seed, self._progress = source, seed, progress
        if annotated is not None and not self.annotated:
            raise UserError(f"{self.name} has splits, no annotations; leave --annotations out", "options-conflict")
        self._annotations = None if annotated is None else annotated / self.annotated / "anns"
        super().__init__(data_dir)

    @abc.abstractmethod
    def items(self, source: SourceFiles) -> Iterable[Item]:
        """The images of the source, those that the paper uses."""

    def renamed(self, annotation: Annotation, split: str) -> Annotation:
        """An annotation with the names of this set's items; some sets override this."""
        return annotation

    def splits(self) -> Mapping[str, Iterable[Example]]:
        """The paper's splits, record for record, or seeded ones of the same proportions."""
        items = self._by_key()
        if self._annotations is not None:
            return {split: self._annotated(items, split, self._annotations / f"{split}.json") for split in SPLITS}
        return assign_splits(tuple(items.values()), self.sizes._asdict(), self._seed, self._progress)

    def _by_key(self) -> dict[str, Item]:
        items: dict[str, Item] = {}
        for item in self.items(self._source):
            if item.key in items:
                raise UserError(f"{self._source} has two images {item.key!r}; give one copy", "duplicate-image")
            items[item.key] = item
        if not items:
            raise UserError(f"{self._source} has no {self.name}. {self.about.partition(chr(10) * 2)[2]}", "no-images")
        return items

    def _annotated(self, items: Mapping[str, Item], split: str, path: Path) -> Iterator[Example]:
        """The images that the annotations of a split name, each once, with the records that they name."""
        by_key = annotation_files.by_image(self.renamed(row, split) for row in annotation_files.read(path))
        if missing := [key for key in by_key if key not in items]:
            raise UserError(
                f"{self._source} lacks {len(missing)} of {len(by_key)} images in {path}: {missing[0]!r}",
                "image-missing",
            )
        return self._matched(split, {items[key]: rows for key, rows in by_key.items()}, path)

    def _matched(self, split: str, asked: Mapping[Item, Sequence[Annotation]], path: Path) -> Iterator[Example]:
        for item in self._progress(split, tuple(asked)):
            example = item.load()
            records = {record.id: record for record in example.records}
            annotated: list[Record] = []
            for unique, row in annotation_files.unique_ids(asked[item]):
                name = annotation_files.stem(row.mask)
                if name not in records:
                    raise UserError(f"{path} names the mask {row.mask!r}, but {self._source} has none", "mask-missing")
                annotated.append(dataclasses.replace(records[name], id=unique, prompts=row.prompts))
            yield dataclasses.replace(example, records=tuple(annotated))
