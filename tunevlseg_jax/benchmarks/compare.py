"""Bounds of plans beside measurements of the same training step: how near a real device comes to what it could do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json

Row = dict[str, Any]
KEY = ("model", "learner", "tune", "chips", "batch a chip")


def compare(plan: Path, measured: Path) -> list[Row]:
    """Each measured training step with the bound of the plan for the same model, learner, chips and batch.

    Raises:
      UserError: a file isn't one of `benchmark --output`, the first holds no plan, or nothing agrees.
    """
    bounds = {_key(row, "chips", 1): row for row in _rows(plan) if "bound" in row}
    if not bounds:
        raise UserError(f"{plan} holds no plan; write one with benchmark --topology and --output", "not-plan")
    steps = [row for row in _rows(measured) if row.get("program") == "training" and "bound" not in row]
    rows = []
    for row in steps:
        key = _key(row, "devices", row["devices"])
        if key in bounds:
            bound = bounds[key]
            least = bound["bound"][bound["binding"]]
            rows.append(
                dict(zip(KEY, key, strict=True))
                | {"slice": bound["device"], "device": row["device"], "bound_by": bound["binding"]}
                | {"bound_seconds": least, "seconds": row["seconds"], "of_bound": row["seconds"] / least}
            )
    if not rows:
        have, want = (", ".join(map(str, keys)) or "no training step" for keys in (_keys(steps), sorted(bounds)))
        details = f"{plan} has {want}; {measured} has {have}"
        raise UserError(f"no training step is in both files ({', '.join(KEY)}): {details}", "nothing-in-common")
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


def _key(row: Row, chips: str, divisor: int) -> tuple[Any, ...]:
    try:
        return row["model"], row["learner"], row["tune"], row[chips], row["batch"] // divisor
    except (KeyError, TypeError) as error:
        raise UserError(f"a row of a training step lacks {error}; write the file again", "not-rates") from error


def _keys(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return [_key(row, "devices", row["devices"]) for row in rows]
