"""Strict conversion between frozen dataclasses and JSON: unknown fields and missing fields are errors."""

import contextlib
import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from tunevlseg_jax.runtime.errors import UserError, nearest

T = TypeVar("T")

CLASS = "class"
"""The key that names the class, since a field may hold one of several; no Python field can have this name."""
ADDED = "added"
"""Metadata key of a field that files of earlier versions lack."""

EARLIER_NAMES = {"learner.words": "learner.init_phrase"}
"""The current names of fields by their names in earlier versions, which files, options and studies may still have."""


def current_name(name: str) -> str:
    """The current name of a field, whose dotted name may be an earlier version's and part of a longer one."""
    for earlier, current in EARLIER_NAMES.items():
        name = re.sub(rf"(?<![^.]){re.escape(earlier)}(?![^.])", current, name)
    return name


def added(default: Any) -> Any:
    """A dataclass field that files of earlier versions lack; the default is those versions' behaviour."""
    return dataclasses.field(default=default, metadata={ADDED: True})


def to_json(value: Any) -> Any:
    """A dataclass as plain JSON values; the key `class` holds the class's name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {CLASS: type(value).__name__} | fields
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(cls: type[T], data: Any, where: str) -> T:
    """The inverse of `to_json`.

    Args:
      cls: the dataclass.
      data: parsed JSON.
      where: the file, for error messages.

    Raises:
      UserError: a field is unknown, has another type, or is missing and not `added`; the message names it.
    """
    return _read(cls, data, where, "")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested JSON objects as one flat dictionary, names joined with dots; fields have their current names.

    The objects of a list are named by their place, from 0.
    """
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = {str(place): item for place, item in enumerate(value)}
    if not isinstance(value, dict):
        return {current_name(path): current_name(value) if isinstance(value, str) else value}
    return {name: leaf for key, item in value.items() for name, leaf in flat(item, f"{path}.{key}".lstrip(".")).items()}


def added_defaults(cls: type, path: str = "") -> dict[str, Any]:
    """The defaults of the `added` fields of a dataclass and of those in it, as JSON, by their dotted names."""
    defaults = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{path}.{field.name}".lstrip(".")
        if ADDED in field.metadata:
            defaults[name] = to_json(field.default)
        hint = hints[field.name]
        for option in typing.get_args(hint) if _is_union(hint) else (hint,):
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                defaults |= added_defaults(option, name)
    return defaults


def difference(before: Any, now: Any, but: tuple[str, ...] = (), added: Mapping[str, Any] | None = None) -> str:
    """How two JSON objects differ, such as "optim.learning_rate was 0.1 and is now 0.2"; "" if they are equal.

    Args:
      before: one object.
      now: the other.
      but: names of fields that may differ.
      added: see `added_defaults`; `before` may be of a version without these fields.
    """
    old, new = flat(before), flat(now)
    for field, default in (added or {}).items():
        old = {name: default for name in new if f".{name}".endswith(f".{field}")} | old
    changed = [name for name in sorted({*old, *new}) if name not in but and old.get(name) != new.get(name)]
    return ", ".join(f"{name} was {old.get(name)} and is now {new.get(name)}" for name in changed)


def _read(annotation: Any, data: Any, where: str, path: str) -> Any:
    options = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    classes = {
        option.__name__: option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)
    }
    if data is None and type(None) in options:
        return None
    if classes:
        return _read_dataclass(classes, data, where, path)
    *others, option = (option for option in options if option is not type(None))
    for other in others:
        with contextlib.suppress(UserError):
            return _read(other, data, where, path)
    if typing.get_origin(option) is tuple:
        items = typing.get_args(option)
        if not isinstance(data, list) or (items[-1] is not ... and len(items) != len(data)):
            raise UserError(f"{where}: {path} must be a list for {option}, got {data!r}", "wrong-type")
        kinds = (items[0],) * len(data) if items[-1] is ... else items
        return tuple(_read(kind, item, where, path) for kind, item in zip(kinds, data, strict=True))
    if typing.get_origin(option) is typing.Literal:
        if data not in (choices := typing.get_args(option)):
            raise UserError(f"{where}: {path} is {data!r}{nearest(str(data), map(str, choices))}", "unknown-choice")
        return data
    if option is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if type(data) is not option:
        raise UserError(f"{where}: {path} must be {option.__name__}, got {data!r}", "wrong-type")
    return data


def _read_dataclass(classes: dict[str, Any], data: Any, where: str, path: str) -> Any:
    if not isinstance(data, dict) or CLASS not in data:
        raise UserError(f"{where}: {path or 'the top'} lacks {CLASS!r}, one of {', '.join(classes)}", "missing-field")
    data = {current_name(f"{path}.{name}").rpartition(".")[2]: value for name, value in data.items()}
    kind = data.pop(CLASS)
    if not isinstance(kind, str) or kind not in classes:
        raise UserError(f"{where}: {path or 'the top'} has class {kind!r}{nearest(str(kind), classes)}", "unknown-type")
    cls = classes[kind]
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    for name in data:
        if name not in names:
            raise UserError(f"{where}: {kind} has no field {name!r}{nearest(name, names)}", "unknown-field")
    data = {field.name: to_json(field.default) for field in dataclasses.fields(cls) if ADDED in field.metadata} | data
    missing = [name for name in names if name not in data]
    if missing:
        raise UserError(f"{where}: {kind} lacks {', '.join(missing)}", "missing-field")
    return cls(**{name: _read(hints[name], data[name], where, f"{path}.{name}".lstrip(".")) for name in names})


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
