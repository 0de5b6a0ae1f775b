"""Statistics from the text of a compiled program: its collectives and its traffic with a TPU's memory."""

import math
import re
from collections import Counter

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SHAPE = re.compile(r"(pred|[a-z]+\d+)\[([\d,]*)\](\{[^}]*\})?")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_INSTRUCTION = re.compile(r"^ *(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:, |$)", re.MULTILINE)
_NOTHING = ("parameter", "constant", "iota", "bitcast", "tuple", "get-tuple-element", "after-all")
"""Instructions that move nothing; the ends (-done) of asynchronous instructions count as nothing too."""
_PARTS = ("copy-start", "slice-start")
"""Instructions that move as much as the smaller of their two arrays, in the background."""


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """Bytes and number of each kind of collective."""
    sizes: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for shapes, kind in _COLLECTIVE.findall(program):
        sizes[kind] += sum(size for size, _ in _arrays(shapes))
        numbers[kind] += 1
    return {kind: (sizes[kind], numbers[kind]) for kind in sizes}


def traffic(program: str) -> int:
    """Bytes to and from the main memory in one run of the program; traffic with a chip's faster memories doesn't count.

    XLA's own "bytes accessed" includes that traffic and is several times as large. An array from which an instruction
    reads only some elements counts in full.
    """
    entry = program[program.index("\nENTRY ") :].partition("\n}")[0]
    shapes: dict[str, str] = {}
    moved = 0
    for name, shape, kind, arguments in _INSTRUCTION.findall(entry):
        shapes[name] = shape
        if kind in _NOTHING or kind.endswith("-done"):
            continue
        arrays = _arrays(shape)
        if kind in _PARTS:
            (one, one_outside), (other, other_outside), *_ = arrays
            moved += min(one, other) * (one_outside + other_outside)
        else:
            if not kind.endswith("-start"):  # such an instruction returns its arguments with its results
                arrays += [
                    array for argument in re.findall(r"%([\w.-]+)", arguments) for array in _arrays(shapes[argument])
                ]
            moved += sum(size for size, outside in arrays if outside)
    return moved


def _arrays(shapes: str) -> list[tuple[int, bool]]:
    """The arrays of a shape or a tuple of shapes: bytes, and whether it lies in the main memory."""
    return [
        (math.prod(int(side) for side in sides.split(",") if side) * _bits(kind) // 8, "S(" not in layout)
        for kind, sides, layout in _SHAPE.findall(shapes)
    ]


def _bits(kind: str) -> int:
    """Bits of an element of a type such as f32."""
    return 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
