"""Bounds of plans beside measurements of the same training step: how near a real device comes to what it could do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tunevlseg_jax.benchmarks.rates import SETTINGS
from tunevlseg_jax.benchmarks.tpu_plan import CHIPS
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json

Row = dict[str, Any]
KEY = ("model", "learner", "tune", "chips", "batch a chip")
PRECISION = "bfloat16"
"""Of the plans of earlier versions, which don't name it."""
Place = tuple[tuple[Any, ...], float]
"""The values of `KEY`, and seconds."""


def compare(plan: Path, measured: Path) -> list[Row]:
    """Each measured training step with the bound of every plan for the same program on as many chips of its kind.

    Raises:
      UserError: a file isn't one of `benchmark --output`, the first holds no plan, or nothing agrees.
    """
    plans = [row for row in _rows(plan) if row["program"] == "training" and "bound" in row]
    steps = [row for row in _rows(measured) if row["program"] == "training" and "bound" not in row]
    if not plans:
        raise UserError(f"{plan} holds no plan; write one with benchmark --topology and --output", "not-plan")
    planned = [(_checked(plan, row, _planned), row) for row in plans]
    timed = [(_checked(measured, row, _timed), row) for row in steps]
    rows = [
        dict(zip(KEY, place, strict=True))
        | {"slice": bound["device"], "device": step["device"], "bound_by": bound["binding"]}
        | {"bound_seconds": least, "seconds": seconds, "of_bound": seconds / least}
        for (place, seconds), step in timed
        for (other, least), bound in planned
        if place == other and _same_program(bound, step)
    ]
    if not rows:
        have, want = ("; ".join(map(_named, found)) or "no training step" for found in (planned, timed))
        details = f"{plan} has {have}; {measured} has {want}"
        raise UserError(
            f"no training step in both files is of the same program and chips: {details}", "nothing-in-common"
        )
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The rows of `compare`."""
    shown = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for name in ("", "slice", "measured on", "bound\nms", "by", "step\nms", "step /\nbound"):
        shown.add_column(name, justify="right" if name else "left")
    for row in rows:
        bound, step = f"{1e3 * row['bound_seconds']:.1f}", f"{1e3 * row['seconds']:.1f}"
        cells = row["learner"], row["slice"], f"{row['chips']} x {row['device']}", bound, row["bound_by"], step
        shown.add_row(*cells, f"{row['of_bound']:.2f}")
    return shown


def _rows(path: Path) -> list[Row]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "program" in row for row in rows):
        raise UserError(f"{path} isn't a file of `benchmark --output`", "not-rates")
    return rows


def _checked(path: Path, row: Row, read: Callable[[Row], Place]) -> Place:
    """What `read` finds in a row.

    Raises:
      UserError: the row lacks it, or the time is no positive number.
    """
    try:
        place, seconds = read(row)
        usable = seconds > 0 and isinstance(row["device"], str)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{path} has a broken row of a training step ({reason}); write the file again", "not-rates"
        ) from error
    if not usable:
        raise UserError(f"{path} has a training step of {seconds} s; write the file again", "not-rates")
    return place, seconds


def _planned(row: Row) -> Place:
    place = row["model"], row["learner"], row["tune"], int(row["chips"]), int(row["batch"])
    return place, float(row["bound"][row["binding"]])


def _timed(row: Row) -> Place:
    devices = int(row["devices"])
    return (row["model"], row["learner"], row["tune"], devices, int(row["batch"]) // devices), float(row["seconds"])


def _same_program(plan: Row, step: Row) -> bool:
    """Whether both are of the same kind of chip and settings, as far as the files tell."""
    chip = CHIPS.get(plan["device"].partition(":")[0])
    plan = {"precision": PRECISION} | plan
    alike = all(plan[name] == step[name] for name in SETTINGS if name in plan and name in step)
    return chip is not None and step["device"] in chip.kinds and alike


def _named(found: tuple[Place, Row]) -> str:
    ((model, learner, tune, chips, batch), _), row = found
    given = {name: row.get(name) for name in SETTINGS if name != "learner_fields"}
    settings = "".join(f", {name} {value}" for name, value in given.items() if value is not None)
    return f"{learner} on {model} ({tune}{settings}), {chips} chips of {row['device']}, {batch} records each"
