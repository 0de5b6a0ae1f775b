"""LabelMe's JSON files, one for each image: polygons, rectangles, circles and masks; the image may lie in them."""

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders.annotations import shapes
from tunevlseg_jax.data.builders.annotations.documents import Document, field, whole
from tunevlseg_jax.data.builders.annotations.image_names import ImageNames
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.user_files import Draw, ImageFiles
from tunevlseg_jax.runtime.errors import UserError


def read(documents: list[Document], names: ImageNames) -> Iterator[ImageFiles]:
    """The images of LabelMe files.

    Raises:
      UserError: a shape is broken or has no area, or the image is neither in the source nor in the file.
    """
    for file, content in documents:
        size = None
        if content.get("imageHeight") is not None:  # older versions may lack it
            size = whole(content, "imageHeight", file), whole(content, "imageWidth", file)
        masks = []
        for number, shape in enumerate(field(content, "shapes", list, file), 1):
            where = f"shape {number} of {file}"
            masks.append(shapes.mask(where, field(shape, "label", str, where), _draw(shape, where), size))
        image = _image(file, content, names)
        yield ImageFiles(image, image, tuple(masks), group_of(image))


def _image(file: str, content: Mapping[str, Any], names: ImageNames) -> str:
    """The image in the source, to which an image that lies in the annotation file is added if need be."""
    given = field(content, "imagePath", str, file)
    if given in names or not content.get("imageData"):
        return names.find(given, file, file)
    name = str(PurePosixPath(file).with_name(PurePosixPath(given.replace("\\", "/")).name))
    names.source.add(name, partial(_embedded, names.source, file))
    return name


def _embedded(source: SourceFiles, file: str) -> bytes:
    try:
        return base64.b64decode(json.loads(source.read(file).decode("utf-8-sig"))["imageData"], validate=True)
    except (binascii.Error, TypeError) as error:
        raise UserError(f"{file} has an image that can't be decoded: {error}", "undecodable") from error


def _draw(shape: Mapping[str, Any], where: str) -> Draw:
    points, kind = field(shape, "points", list, where), shape.get("shape_type") or "polygon"
    if kind in ("polygon", "oriented_rectangle"):
        return shapes.polygons(where, [shapes.ring(points, where)])
    if kind not in ("rectangle", "circle", "mask"):
        raise UserError(f"{where} is a {kind}, which has no area; remove it, or draw a polygon", "no-area")
    corners = shapes.numbers(points, (2, 2), where)
    if kind == "rectangle":
        return shapes.polygons(where, [shapes.ring(shapes.rectangle(*corners.ravel()), where)])
    if kind == "circle":
        radius = math.dist(*corners)
        return shapes.polygons(where, [shapes.ellipse(corners[0], (radius, radius))])
    try:
        data = base64.b64decode(field(shape, "mask", str, where), validate=True)
    except binascii.Error as error:
        raise UserError(f"{where} has a mask that can't be decoded: {error}", "undecodable") from error
    return shapes.pasted(where, mask_files.binary(data, where), shapes.place(corners.min(0), where))
