"""Masks as one COCO JSON file, which annotation tools and `prepare folder` read."""

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tunevlseg_jax.prediction.exports import Prediction
from tunevlseg_jax.runtime import exchange
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json
from tunevlseg_jax.runtime.optional import import_pycocotools

FILE = "predictions.coco.json"
PARTS = ("images", "categories", "annotations")


class _Entry(NamedTuple):
    """A mask: its image's name and (height, width), its prompt, and its fields in the file; None if it is empty."""

    file_name: str
    size: tuple[int, ...]
    prompt: str
    shape: dict[str, Any] | None


class CocoFile:
    """Collects the masks of an output folder; a category is a prompt, and an annotation the mask of a prompt.

    What the file holds already stays, but for the masks of the same image and prompt. Images without a mask of any
    prompt are in the file, and have no annotation.
    """

    def __init__(self, output: Path):
        """`output` is the folder of the masks.

        Raises:
          UserError: pycocotools isn't installed, or the folder's file isn't one of these.
        """
        self._coco = import_pycocotools("--format coco")
        self._pending: list[_Entry] = []
        content = read_object(output / FILE) if (output / FILE).exists() else {part: [] for part in PARTS}
        try:
            self._images = {image["file_name"]: image for image in content["images"]}
            self._categories = {category["name"]: category for category in content["categories"]}
            self._annotations = {(one["image_id"], one["category_id"]): one for one in content["annotations"]}
            self._ids = {part: max((int(one["id"]) for one in content[part]), default=0) for part in PARTS}
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{output / FILE} is no COCO file; choose another --output", "other-folder") from error

    def add(self, prediction: Prediction) -> None:
        """Takes a mask."""
        shape = encoded(self._coco, prediction.mask) if prediction.mask.any() else None
        self._pending.append(_Entry(_file_name(prediction), prediction.mask.shape, prediction.prompt, shape))

    def close(self, output: Path) -> None:
        """Writes the file, with the masks of all processes."""
        for entry in itertools.chain.from_iterable(exchange.gather(self._pending)):
            self._insert(entry)
        self._pending = []
        exchange.from_primary(lambda: self._write(output))

    def _insert(self, entry: "_Entry") -> None:
        height, width = entry.size
        image = self._entry("images", self._images, "file_name", entry.file_name) | {"width": width, "height": height}
        self._images[image["file_name"]] = image
        category = self._entry("categories", self._categories, "name", entry.prompt)
        key = image["id"], category["id"]
        earlier = self._annotations.pop(key, None)
        if entry.shape is not None:
            self._annotations[key] = {
                "id": self._next("annotations") if earlier is None else earlier["id"],
                "image_id": image["id"],
                "category_id": category["id"],
                "iscrowd": 0,
                **entry.shape,
            }

    def _write(self, output: Path) -> None:
        content = {
            "info": {"description": "masks of tunevlseg_jax.predict; a category is a prompt"},
            "images": list(self._images.values()),
            "categories": list(self._categories.values()),
            "annotations": sorted(self._annotations.values(), key=lambda annotation: annotation["id"]),
        }
        if self._images:
            write_json(output / FILE, content)

    def _entry(self, part: str, entries: dict[str, dict[str, Any]], field: str, value: str) -> dict[str, Any]:
        if value not in entries:
            entries[value] = {"id": self._next(part), field: value}
        return entries[value]

    def _next(self, part: str) -> int:
        self._ids[part] += 1
        return self._ids[part]


def encoded(coco: Any, mask: np.ndarray) -> dict[str, Any]:
    """Segmentation (run lengths), area and box (left, top, width, height) of a (height, width) bool mask."""
    runs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "segmentation": {"size": list(mask.shape), "counts": runs["counts"].decode()},
        "area": int(mask.sum()),
        "bbox": coco.toBbox(runs).tolist(),
    }


def _file_name(prediction: Prediction) -> str:
    """The image's path; of a frame, the path of the file and the number, as in clip_000007.png."""
    path, number = prediction.opened.path, prediction.frame.number
    return (path if number is None else path.with_name(f"{path.stem}_{number:06}.png")).as_posix()
