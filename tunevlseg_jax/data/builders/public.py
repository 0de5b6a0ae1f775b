"""A public set, and its examples in the paper's splits or in seeded ones."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tunevlseg_jax.data.builders import annotation_files
from tunevlseg_jax.data.builders.annotation_files import Annotation
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, read
from tunevlseg_jax.data.builders.seeded_splits import assign_splits
from tunevlseg_jax.data.examples import SPLITS, Example
from tunevlseg_jax.runtime.errors import UserError


class Sizes(NamedTuple):
    """Records in each split of the paper's Table 1."""

    train: int
    val: int
    test: int


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """A public set.

    Attributes:
      name: name of the set.
      doc: describes the set, its source and its licence: the docstring of its module.
      homepage: its web page.
      licence: its licence in short.
      sizes: records in the paper's Table 1.
      items: the images of a source, those that the paper uses.
      annotated: the set's folder in medvlsm's `data/`, "" if there is none.
      renamed: the annotations of a split with the names of the set's items, given the source and the split.
      test_is_val: whether test is val, as in the paper where the test masks aren't public.
    """

    name: str
    doc: str | None
    homepage: str
    licence: str
    sizes: Sizes
    items: Callable[[SourceFiles], Iterable[Item]]
    annotated: str = ""
    renamed: Callable[[SourceFiles, str, Iterable[Annotation]], Iterable[Annotation]] = lambda _, __, rows: rows
    test_is_val: bool = False

    @property
    def about(self) -> str:
        """Describes the set, its source and its licence."""
        return inspect.cleandoc(self.doc or "")

    def splits(self, source: SourceFiles, annotated: Path | None, seed: int) -> Mapping[str, Iterator[Example]]:
        """The paper's splits, record for record, or seeded ones of the same proportions.

        The paper's need `annotated`, the folder of medvlsm's annotations; without it `seed` draws the splits.

        Raises:
          UserError: annotations are given for a set that has its own splits, or the source has no images of the set, or
            has one twice.
        """
        if annotated is None:
            return assign_splits(tuple(self._by_key(source).values()), self.sizes._asdict(), seed)
        if not self.annotated:
            raise UserError(f"{self.name} has splits, no annotations; leave --annotations out", "options-conflict")
        items = self._by_key(source)
        folder = annotated / self.annotated / "anns"
        return {split: self._annotated(source, items, split, folder / f"{split}.json") for split in SPLITS}

    def _by_key(self, source: SourceFiles) -> dict[str, Item]:
        items: dict[str, Item] = {}
        for item in self.items(source):
            if item.key in items:
                raise UserError(f"{source} has two images {item.key!r}; give one copy", "duplicate-image")
            items[item.key] = item
        if not items:
            raise UserError(f"{source} has no {self.name}. {self.about.partition(chr(10) * 2)[2]}", "no-images")
        return items

    def _annotated(self, source: SourceFiles, items: Mapping[str, Item], split: str, path: Path) -> Iterator[Example]:
        """The images that the annotations of a split name, each once, with the records that they name."""
        by_key = annotation_files.by_image(self.renamed(source, split, annotation_files.read(path)))
        if missing := [key for key in by_key if key not in items]:
            raise UserError(
                f"{source} lacks {len(missing)} of {len(by_key)} images in {path}: {missing[0]!r}", "image-missing"
            )
        for example in read(split, [items[key] for key in by_key]):
            yield _with_annotations(example, by_key[example.id], path, source)


def _with_annotations(example: Example, rows: Sequence[Annotation], path: Path, source: SourceFiles) -> Example:
    """The example with the records and prompts that its annotations name."""
    records = {record.id: record for record in example.records}
    annotated = []
    for unique, row in annotation_files.unique_ids(rows):
        name = annotation_files.stem(row.mask)
        if name not in records:
            raise UserError(f"{path} names the mask {row.mask!r}, but {source} has none", "mask-missing")
        annotated.append(dataclasses.replace(records[name], id=unique, prompts=row.prompts))
    return dataclasses.replace(example, records=tuple(annotated))
