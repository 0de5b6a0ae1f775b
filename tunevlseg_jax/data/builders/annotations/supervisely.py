"""Supervisely's projects, DATASET/img/a.jpg with DATASET/ann/a.jpg.json: bitmaps, polygons and rectangles."""

import base64
import binascii
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.annotations import shapes
from tunevlseg_jax.data.builders.annotations.documents import Document, field, objects, whole
from tunevlseg_jax.data.builders.annotations.image_names import ImageNames
from tunevlseg_jax.data.builders.folder_splits import split_of
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.user_files import Draw, ImageFiles
from tunevlseg_jax.runtime.errors import UserError


def read(documents: list[Document], names: ImageNames) -> Iterator[ImageFiles]:
    """The images of a project; a tag train, val or test tells the split.

    Raises:
      UserError: an object is broken or has no area, or the image isn't in the source.
    """
    for file, content in documents:
        size = field(content, "size", dict, file)
        stated = whole(size, "height", file), whole(size, "width", file)
        masks = []
        for number, thing in enumerate(field(content, "objects", list, file), 1):
            where = f"object {number} of {file}"
            masks.append(shapes.mask(where, field(thing, "classTitle", str, where), _draw(thing, where), stated))
        folder, _, name = file.rpartition("/")
        image = names.find(name.removesuffix(".json"), f"{folder.rpartition('/')[0]}/img/", file)
        tags = [split_of(str(tag.get("name", ""))) for tag in objects(content.get("tags") or [], f"the tags of {file}")]
        split = next(filter(None, tags), "")
        yield ImageFiles(image, image, tuple(masks), group_of(image), split)


def _draw(thing: Mapping[str, Any], where: str) -> Draw:
    kind = thing.get("geometryType")
    if kind == "bitmap":
        return _bitmap(field(thing, "bitmap", dict, where), where)
    if kind not in ("polygon", "rectangle"):
        raise UserError(f"{where} is of the type {kind!r}, which has no area; remove it, or draw a polygon", "no-area")
    points = field(thing, "points", dict, where)
    exterior = field(points, "exterior", list, where)
    if kind == "rectangle":
        left, top, right, bottom = shapes.numbers(exterior, (2, 2), where).ravel()
        exterior = shapes.rectangle(left, top, right + 1, bottom + 1)  # both corners are pixels of it
    holes = [shapes.ring(hole, where) for hole in field({"interior": []} | points, "interior", list, where)]
    return shapes.polygons(where, [shapes.ring(exterior, where)], holes)


def _bitmap(bitmap: Mapping[str, Any], where: str) -> Draw:
    origin = shapes.place(field(bitmap, "origin", list, where), where)
    try:
        data = zlib.decompress(base64.b64decode(field(bitmap, "data", str, where), validate=True))
    except (binascii.Error, zlib.error) as error:
        raise UserError(f"{where} has a bitmap that can't be decoded: {error}", "undecodable") from error
    return shapes.pasted(where, mask_files.binary(data, where), origin)
