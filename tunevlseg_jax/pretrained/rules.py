"""A conversion is a list of rules, each an exact and invertible move of tensors."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tunevlseg_jax.runtime.errors import UserError

Tensors = Mapping[str, np.ndarray]
SHOWN = 8
"""Number of names that an error lists."""


class ConversionError(UserError):
    """A checkpoint doesn't fit its configuration; the message lists the names."""


@dataclass(frozen=True)
class Move:
    """The conversion between a list of their tensors and a tensor of ours.

    Attributes:
      to_ours: from their tensors to ours.
      to_theirs: from ours to theirs; `to_theirs(to_ours(x)) == x` exactly.
    """

    to_ours: Callable[[list[np.ndarray]], np.ndarray]
    to_theirs: Callable[[np.ndarray], list[np.ndarray]]


@dataclass(frozen=True)
class Rule:
    """The name of our tensor, the names of theirs, and the move between them."""

    ours: str
    theirs: tuple[str, ...]
    move: Move


def _single(there: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]) -> Move:
    return Move(lambda tensors: there(tensors[0]), lambda tensor: [back(tensor)])


COPY = _single(lambda x: x, lambda x: x)
FIRST = _single(lambda x: x.reshape(x.shape[1:]), lambda x: x[None])
"""(1, ...) to (...)."""
LINEAR = _single(np.transpose, np.transpose)
"""(out, in) to (in, out)."""
CONVOLUTION = _single(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
"""(out, in, height, width) to (height, width, in, out)."""
UNFOLD = _single(lambda x: x.transpose(0, 2, 3, 1), lambda x: x.transpose(0, 3, 1, 2))
"""A transposed convolution's (in, out, height, width) to (in, height, width, out)."""


def patches(size: int) -> Move:
    """A patch convolution's (out, 3, size, size) to (size * size * 3, out)."""

    def there(x: np.ndarray) -> np.ndarray:
        if x.shape[1:] != (3, size, size):  # another order of the same axes would pass for right once it is flat
            raise ValueError(f"a patch of {x.shape[1:]}, not {(3, size, size)}")
        return x.transpose(2, 3, 1, 0).reshape(size * size * 3, -1)

    return _single(there, lambda x: x.reshape(size, size, 3, -1).transpose(3, 2, 0, 1))


def concatenated(parts: int, *, transpose: bool) -> Move:
    """The kernels or biases of several linear layers, concatenated along the output axis."""
    turn = np.transpose if transpose else np.asarray

    def there(tensors: list[np.ndarray]) -> np.ndarray:
        if len({tensor.shape for tensor in tensors}) > 1:  # only equal parts come apart again
            raise ValueError("parts of several shapes")
        return np.concatenate([turn(tensor) for tensor in tensors], axis=-1)

    return Move(there, lambda tensor: [turn(part) for part in np.split(tensor, parts, axis=-1)])


def stacked(move: Move) -> Move:
    """The tensors of all depths, each moved by `move`, stacked along a leading axis."""
    return Move(
        lambda tensors: np.stack([move.to_ours([tensor]) for tensor in tensors]),
        lambda tensor: [piece for row in tensor for piece in move.to_theirs(row)],
    )


def columns(start: int, stop: int | None) -> Move:
    """Columns of the last axis. Rules that share a tensor of theirs take all its columns, in the order of the rules."""
    return _single(lambda x: x[..., start:stop], lambda x: x)


def to_ours(rules: Iterable[Rule], theirs: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Our tensors from theirs, strictly: every tensor is used, every parameter is filled, every shape is right.

    Args:
      rules: one for each of our tensors.
      theirs: tensors by name.
      shapes: of our parameters.

    Raises:
      ConversionError: names that are missing, left over, or of another shape.
    """
    rules = list(rules)
    used = [name for rule in rules for name in rule.theirs]
    _complain("the checkpoint lacks", [name for name in used if name not in theirs])
    _complain("the checkpoint has tensors that this model doesn't know:", sorted(set(theirs) - set(used)))
    _complain("no rule fills", sorted(set(shapes) - {rule.ours for rule in rules}))
    ours = {}
    wrong = []
    for rule in rules:
        tensors = [np.asarray(theirs[name]) for name in rule.theirs]
        sources = ", ".join(f"{name} {tensor.shape}" for name, tensor in zip(rule.theirs, tensors, strict=True))
        try:
            tensor = rule.move.to_ours(tensors)
        except ValueError:  # the wrong number of axes
            wrong.append(sources)
            continue
        if tensor.shape != shapes[rule.ours]:
            wrong.append(f"{sources} gives {tensor.shape}, not {shapes[rule.ours]}")
        ours[rule.ours] = np.asarray(tensor, order="C")
    _complain("the configuration doesn't fit the shape of", wrong)
    return ours


def to_theirs(rules: Iterable[Rule], ours: Tensors) -> dict[str, np.ndarray]:
    """Their tensors from ours, the inverse of `to_ours`.

    Raises:
      ConversionError: a tensor has no rule, or a rule has no tensor.
    """
    rules = list(rules)
    names = {rule.ours for rule in rules}
    _complain("the model lacks", sorted(names - set(ours)))
    _complain("no rule takes", sorted(set(ours) - names))
    theirs: dict[str, np.ndarray] = {}
    for rule in rules:
        for name, tensor in zip(rule.theirs, rule.move.to_theirs(np.asarray(ours[rule.ours])), strict=True):
            tensor = np.concatenate([theirs[name], tensor], axis=-1) if name in theirs else tensor
            theirs[name] = np.asarray(tensor, order="C")
    return theirs


def _complain(what: str, names: list[str]) -> None:
    if names:
        raise ConversionError(f"{what} {some(names)}", "wrong-weights")


def some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
