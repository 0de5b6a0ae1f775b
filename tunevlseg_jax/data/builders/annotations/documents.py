"""JSON files of a source, sorted by the tool that wrote them."""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.runtime.errors import UserError


class Document(NamedTuple):
    """A parsed file and its name."""

    name: str
    content: Any


def documents(source: SourceFiles) -> dict[str, list[Document]]:
    """The JSON files by format: coco, labelme, labelstudio, supervisely, "broken" (the content is the error), or ""."""
    found: dict[str, list[Document]] = defaultdict(list)
    for name, _ in source.find(r"[^/]+\.json"):
        kind, document = parse(name, source.read(name))
        found[kind].append(document)
    return found


def parse(name: str, data: bytes) -> tuple[str, Document]:
    """The format and content of a file, as in `documents`."""
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return "broken", Document(name, str(error))
    kind = _kind(content)
    if kind == "labelme" and content.get("imageData"):
        content["imageData"] = True  # may be megabytes; `labelme` reads it again
    return kind, Document(name, content if kind else None)


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        if isinstance(content.get("images"), list) and content.keys() & {"annotations", "categories"}:
            return "coco"
        if "shapes" in content and content.keys() & {"imagePath", "imageData", "imageHeight"}:
            return "labelme"
        if "objects" in content and "size" in content:
            return "supervisely"
    if isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
        first = content[0]
        if ("data" in first and "annotations" in first) or "annotation_id" in first or "completions" in first:
            return "labelstudio"
    return ""


def field(content: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of an entry.

    Raises:
      UserError: the entry isn't an object, lacks the field, or it has another type.
    """
    if not isinstance(content, Mapping) or name not in content:
        raise UserError(f"{where} lacks the field {name!r}", "missing-field")
    value = content[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where} has the {name} {str(value)[:80]!r}, which has the wrong type", "wrong-json")
    return value


def objects(values: Any, where: str) -> list[Mapping[str, Any]]:
    """A list of JSON objects.

    Raises:
      UserError: it isn't.
    """
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise UserError(f"{where} must have a list of JSON objects, got {str(values)[:80]}", "wrong-json")
    return values


def whole(content: Any, name: str, where: str) -> int:
    """A field that must be a positive whole number, such as a height; 80.0 is one.

    Raises:
      UserError: it isn't.
    """
    value = field(content, name, (int, float), where)
    if not 1 <= value < 2**31 or value != int(value):  # nor infinite, nor not a number
        raise UserError(f"{where} has the {name} {value}; it must be a whole number above 0", "out-of-range")
    return int(value)
