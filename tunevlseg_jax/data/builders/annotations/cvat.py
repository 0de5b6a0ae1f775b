"""CVAT's XML format "CVAT for images 1.1": polygons, boxes, ellipses and masks."""

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tunevlseg_jax.data.builders.annotations import shapes
from tunevlseg_jax.data.builders.annotations.documents import whole
from tunevlseg_jax.data.builders.annotations.image_names import ImageNames, file_splits
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.folder_splits import split_of
from tunevlseg_jax.data.builders.roboflow import group_of
from tunevlseg_jax.data.builders.user_files import Draw, ImageFiles, Mask, Size
from tunevlseg_jax.runtime.errors import UserError

NO_AREA = ("polyline", "points", "cuboid", "skeleton")
SHAPES = ("polygon", "box", "ellipse", "mask", *NO_AREA)


def documents(source: SourceFiles) -> dict[str, Element]:
    """The XML files of CVAT by name.

    Raises:
      UserError: a file starts like one, but is broken.
    """
    found = {}
    for name, _ in source.find(r"[^/]+\.xml"):
        data = source.read(name)
        if b"<annotations" not in data[:1000]:
            continue
        try:
            found[name] = ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            raise UserError(f"can't read {name}: {error}", "unreadable") from error
    return found


def read(documents: dict[str, Element], names: ImageNames) -> Iterator[ImageFiles]:
    """The images of CVAT's files; an image's subset tells the split, else the file's name.

    Raises:
      UserError: the file is of a video, or a shape is broken or has no area; the message names the image and label.
    """
    splits = file_splits(documents)
    for file, root in documents.items():
        if root.find("track") is not None:
            raise UserError(f'{file} is of a video; export the task as "CVAT for images 1.1"', "wrong-xml")
        for image in root.iter("image"):
            where = f"image {image.get('id')} of {file}"
            given = _text(image, "name", where)
            name = names.find(given, file, where)
            size = _whole(image, "height", where), _whole(image, "width", where)
            split = split_of(image.get("subset", ""), strict=False) or splits.get(file, "")
            yield ImageFiles(name, name, tuple(_masks(image, size, f"{given} in {file}")), group_of(name), split)


def _masks(image: Element, size: Size, where: str) -> Iterator[Mask]:
    drawn = [shape for shape in image if shape.tag in SHAPES]
    for number, shape in enumerate(drawn, 1):
        entry = f"{shape.tag} number {number} of {where}"
        yield shapes.mask(entry, shape.get("label"), _draw(shape, entry), size)


def _draw(shape: Element, where: str) -> Draw:
    if shape.tag in NO_AREA:
        raise UserError(f"{where} has no area; remove it, or draw a polygon", "no-area")
    if shape.tag == "mask":
        origin = shapes.place(_floats(shape, ("left", "top"), where), where)
        size = _whole(shape, "height", where), _whole(shape, "width", where)
        return shapes.pasted(
            where, shapes.runs(where, _text(shape, "rle", where).split(","), size, by_rows=True), origin
        )
    if shape.tag == "polygon":
        points = [pair.split(",") for pair in _text(shape, "points", where).split(";")]
        return shapes.polygons(where, [shapes.ring(points, where)])
    if shape.tag == "box":
        left, top, right, bottom = _floats(shape, ("xtl", "ytl", "xbr", "ybr"), where)
        centre, corners = ((left + right) / 2, (top + bottom) / 2), shapes.rectangle(left, top, right, bottom)
    else:
        *centre, width, height = _floats(shape, ("cx", "cy", "rx", "ry"), where)
        corners = shapes.ellipse(centre, (width, height))
    degrees = _floats(shape, ("rotation",), where)[0] if shape.get("rotation") else 0.0
    return shapes.polygons(where, [shapes.ring(shapes.rotated(corners, degrees, centre), where)])


def _text(element: Element, name: str, where: str) -> str:
    value = element.get(name)
    if value is None:
        raise UserError(f"{where} lacks the attribute {name!r}", "missing-field")
    return value


def _whole(element: Element, name: str, where: str) -> int:
    return whole({name: _floats(element, (name,), where)[0]}, name, where)


def _floats(element: Element, fields: tuple[str, ...], where: str) -> list[float]:
    return shapes.numbers([_text(element, name, where) for name in fields], (len(fields),), where).tolist()
