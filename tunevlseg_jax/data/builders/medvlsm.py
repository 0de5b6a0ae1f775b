"""Folders in medvlsm's own layout: images/, masks/ and anns/{train,val,test}.json."""

from collections.abc import Iterator, Sequence
from functools import partial

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders import annotation_files
from tunevlseg_jax.data.builders.annotation_files import Annotation
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import BinaryMask, Content, Item, binary_masks
from tunevlseg_jax.data.examples import LEVEL, SPLITS
from tunevlseg_jax.data.mask_values import BinaryRule
from tunevlseg_jax.data.seen_encodings import SeenEncodings
from tunevlseg_jax.runtime.errors import UserError

PARTS = {"train": "train", "val": "train", "test": "test"}
"""The subfolder that a split's files lie in, of sets that have such (CAMUS)."""


def folder(source: SourceFiles) -> str | None:
    """The path of the folder with anns/train.json, with a "/" at its end, or None.

    Raises:
      UserError: there are several.
    """
    folders = [name.removesuffix("anns/train.json") for name, _ in source.find(r"anns/train\.json")]
    if len(folders) > 1:
        raise UserError(f"{source} holds several data sets: {', '.join(folders)}; give one of them", "one-data-set")
    return folders[0] if folders else None


def items(source: SourceFiles, folder: str, rule: BinaryRule, seen: SeenEncodings) -> Iterator[Item]:
    """The images that the annotations name, each in its split; the values of their masks are noted in `seen`.

    Raises:
      UserError: an annotation is broken, or names a file that the source lacks.
    """
    for split in SPLITS:
        name = f"{folder}anns/{split}.json"
        if name not in source:
            continue
        for key, rows in annotation_files.by_image(annotation_files.parse(source.read(name), name)).items():
            image = _place(source, folder, "images", split, rows[0].image, name)
            masks = tuple(_place(source, folder, "masks", split, row.mask, name) for row in rows)
            load = partial(_load, source, image, masks, rows, rule, seen)
            yield Item(key, load, splits=(split,), records=len(rows))


def _place(source: SourceFiles, folder: str, kind: str, split: str, file: str, where: str) -> str:
    for place in (f"{folder}{kind}/{file}", f"{folder}{kind}/{PARTS[split]}/{file}"):
        if place in source:
            return place
    raise UserError(f"{where} names {file}, but there is no {folder}{kind}/{file} in {source}", "image-missing")


def _load(
    source: SourceFiles,
    image: str,
    masks: Sequence[str],
    rows: Sequence[Annotation],
    rule: BinaryRule,
    seen: SeenEncodings,
) -> Content:
    def binary_masks_of_rows() -> Iterator[BinaryMask]:
        for mask, (id, row) in zip(masks, annotation_files.unique_ids(rows), strict=True):
            label = row.prompts[LEVEL][0] if LEVEL in row.prompts else ""
            pixels = mask_files.object_map(source.read(mask), mask, rule, label=label, seen=seen, many_values=True)
            yield BinaryMask(mask, pixels, id, label, row.prompts)

    return binary_masks(source, image, binary_masks_of_rows())
