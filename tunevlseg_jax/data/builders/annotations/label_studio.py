"""Label Studio's JSON and JSON-MIN: brushes, polygons, rectangles and ellipses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tunevlseg_jax.data.builders.annotations import rle_pack, shapes
from tunevlseg_jax.data.builders.annotations.documents import Document, field, objects, whole
from tunevlseg_jax.data.builders.annotations.image_names import ImageNames
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.user_files import Draw, ImageFiles, Mask, Size
from tunevlseg_jax.runtime.errors import UserError

UPLOAD = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""

GEOMETRY = {"rle", "points", "x"}
"""Fields of which a region has one; a choice or a text for the whole image has none."""


def read(documents: list[Document], names: ImageNames) -> tuple[list[ImageFiles], list[str]]:
    """The annotated images, and the tasks that nobody has annotated.

    Raises:
      UserError: a task has several annotations, a region is broken or has no area, or the image isn't in the source.
    """
    files: list[ImageFiles] = []
    left_out: list[str] = []
    for file, tasks in documents:
        seen: set[str] = set()
        for number, task in enumerate(tasks, 1):
            where = f"task {task.get('id', number)} of {file}"
            if where in seen:  # in JSON-MIN an annotation has a row
                raise UserError(f"{where} has several annotations; keep one", "several-annotations")
            seen.add(where)
            regions = _regions(task, where)
            if regions is None:
                left_out.append(where)
                continue
            masks = [mask for at, region in regions for mask in _masks(region, at)]
            name = _image(task, names, file, where)
            files.append(ImageFiles(name, name, tuple(masks), group_of(name)))
    return files, left_out


def _regions(task: Mapping[str, Any], where: str) -> list[tuple[str, dict[str, Any]]] | None:
    """The regions of a task, each with its place; None if it isn't annotated. JSON-MIN has them in one field a tag."""
    if "annotations" not in task and "completions" not in task:
        lists = [value for value in task.values() if isinstance(value, list)]
        found = [region for value in lists for region in value if isinstance(region, dict)]
    else:
        annotations = objects(task.get("annotations", task.get("completions")), f"the annotations of {where}")
        done = [one for one in annotations if not one.get("was_cancelled")]
        chosen = [one for one in done if one.get("ground_truth")] or done
        if len(chosen) > 1:
            raise UserError(
                f"{where} has {len(chosen)} annotations; keep one, or mark one as ground truth", "several-annotations"
            )
        if not chosen:
            return None
        found = _results(objects(chosen[0].get("result"), f"the annotation of {where}"))
    regions = [region for region in found if region.keys() & GEOMETRY and not region.keys() & {"choices", "text"}]
    return [(f"region {number} of {where}", region) for number, region in enumerate(regions, 1)]


def _results(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The regions of an annotation; a region's class may be a result of its own with the same id."""
    shown = [one for one in results if isinstance(one.get("value"), dict)]
    labels = {str(one.get("id")): one["value"] for one in shown if one.get("type") == "labels"}
    return [
        labels.get(str(one.get("id")), {})
        | one["value"]
        | {name: one.get(name) for name in ("original_width", "original_height", "image_rotation")}
        for one in shown
        if one.get("type") != "labels"
    ]


def _masks(region: Mapping[str, Any], where: str) -> Iterator[Mask]:
    size = whole(region, "original_height", where), whole(region, "original_width", where)
    if region.get("image_rotation"):
        raise UserError(f"{where} is on an image that was turned in Label Studio; annotate it unturned", "image-turned")
    draw = _draw(region, size, where)
    labels = next((region[key] for key in sorted(region) if key.endswith("labels") and region[key]), None)
    for label in labels if isinstance(labels, list) else [labels]:
        yield shapes.mask(where, label, draw, size)


def _draw(region: Mapping[str, Any], size: Size, where: str) -> Draw:
    """The pixels of a region; all but brushes have coordinates in percent."""
    percent = np.asarray(size[::-1]) / 100
    if "rle" in region:
        return partial(_brush, where, field(region, "rle", list, where))
    if "points" in region:
        return shapes.polygons(where, [shapes.ring(region["points"], where) * percent])
    kind = next(
        (fields for fields in (("radiusX", "radiusY"), ("width", "height")) if set(fields) <= set(region)), None
    )
    if kind is None or any(key.startswith("keypoint") for key in region):
        raise UserError(f"{where} has no area; remove it, or draw a brush or polygon", "no-area")
    place = shapes.numbers([region.get("x"), region.get("y")], (2,), where) * percent
    extent = shapes.numbers([region[name] for name in kind], (2,), where) * percent
    corners = shapes.ellipse(place, extent) if kind[0] == "radiusX" else shapes.rectangle(*place, *(place + extent))
    degrees = shapes.numbers(region.get("rotation") or 0, (), where).item()
    turned = shapes.rotated(corners, degrees, place)  # a rectangle by its first corner
    return shapes.polygons(where, [shapes.ring(turned, where)])


def _brush(where: str, data: Sequence[int], size: Size) -> np.ndarray:
    try:
        return rle_pack.decode(data, size)
    except ValueError as error:
        raise UserError(f"{where} is broken: {error}", "undecodable") from error


def _image(task: Mapping[str, Any], names: ImageNames, file: str, where: str) -> str:
    """The task's image in the source, by the name with or without the prefix of uploaded files."""
    data = task.get("data", task)
    given = [value for value in data.values() if isinstance(value, str) and value] if isinstance(data, dict) else []
    given = [value.rpartition("?d=")[2] for value in given]
    for name in given:
        folder, _, last = name.rpartition("/")
        for candidate in (name, f"{folder}/{UPLOAD.sub('', last, count=1)}" if UPLOAD.match(last) else name):
            if candidate in names:
                return names.find(candidate, file, where)
    shown = next((name for name in given if re.search(r"\.\w{3,4}$", name)), str(given)[:80])
    raise UserError(f"{where} names the image {shown!r}, which {names.source} lacks", "image-missing")
