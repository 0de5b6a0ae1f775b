"""Options that a command line has several times: lists are joined, and other options are refused."""

import dataclasses
import re
import shlex
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from tunevlseg_jax.runtime.errors import UserError


def join(arguments: Sequence[str], cls: Any) -> list[str]:
    """The arguments with each list in one place: `--image a --image b` becomes `--image a b`.

    Args:
      arguments: the command line.
      cls: the dataclass with a field for each option; options that it lacks stay as they are.

    Raises:
      UserError: an option that takes no list is there twice; the parser would silently take the last value.
    """
    first, *given = _split(arguments)
    uses: dict[str, list[list[str]]] = {}
    for option in given:
        uses.setdefault(_field(option[0]), []).append(option)
    lists = dict(_fields(cls, "")) if len(uses) < len(given) else {}
    joined = list(first)
    for field, parts in uses.items():
        if len(parts) > 1 and (takes_list := _ending(lists, field)) is not None:
            if not takes_list:
                raise _twice(parts)
            values = (part[0].partition("=")[2:] * ("=" in part[0]) + tuple(part[1:]) for part in parts)
            parts = [[parts[0][0].partition("=")[0], *(value for part in values for value in part)]]
        joined += [argument for part in parts for argument in part]
    return joined


def check(arguments: Sequence[str], option: str) -> None:
    """Raises a UserError if this option is there twice."""
    if len(parts := [part for part in _split(arguments)[1:] if part[0].partition("=")[0] == option]) > 1:
        raise _twice(parts)


def _split(arguments: Sequence[str]) -> list[list[str]]:
    """The arguments before the first option, then each option with the arguments up to the next one."""
    parts: list[list[str]] = [[]]
    for argument in arguments:
        if argument.startswith("--"):
            parts.append([])
        parts[-1].append(argument)
    return parts


def _twice(parts: Sequence[list[str]]) -> UserError:
    option = parts[0][0].partition("=")[0]
    return UserError(
        f"{option} is given twice, as {' and '.join(map(shlex.join, parts[:2]))}; give it once", "repeated-option"
    )


def _field(argument: str) -> str:
    """The name of an option's field: `--train.no-augment` is another value of train.augment."""
    return re.sub(r"(^|\.)no_", r"\1", argument.partition("=")[0][2:].replace("-", "_"))


def _ending(lists: dict[str, bool], field: str) -> bool | None:
    """Whether a field takes a list, None if there is none; its path may be longer than the option's name."""
    field = re.sub(r"\.\d+(?=\.)", "", field)  # the place of a dataclass in a list
    return next((takes for path, takes in lists.items() if f".{path}".endswith(f".{field}")), None)


def _fields(hint: Any, path: str) -> Iterator[tuple[str, bool]]:
    """The dotted name of each field, and whether it takes any number of values."""
    if dataclasses.is_dataclass(hint):
        for name, field in typing.get_type_hints(hint).items():
            yield from _fields(field, f"{path}.{name}".lstrip("."))
    elif typing.get_origin(hint) is typing.Annotated:
        yield from _fields(typing.get_args(hint)[0], path)
    elif any(map(dataclasses.is_dataclass, options := _options(hint))):
        for option in options:
            yield from _fields(option, path)
    elif typing.get_origin(hint) is tuple and any(map(dataclasses.is_dataclass, _options(typing.get_args(hint)[0]))):
        yield from _fields(typing.get_args(hint)[0], path)
    else:
        yield path, any(typing.get_origin(one) is tuple and typing.get_args(one)[-1] is ... for one in options)


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
