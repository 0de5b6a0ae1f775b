"""A table of a training step's memory and time on absent TPU slices."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from tunevlseg_jax.benchmarks import tpu_plan
from tunevlseg_jax.benchmarks.tpu_plan import Plan
from tunevlseg_jax.training.experiment import Experiment

Row = dict[str, Any]
COMPILED = ("compilation, s", "GiB a chip", "fits", "largest batch a chip", "HBM traffic, GB", "collectives")
"""The lines of the table that need a compiled program."""


def plans(
    experiment: Experiment,
    slices: Sequence[str],
    batch: int,
    show_status: Callable[[str], None],
    *,
    larger: bool,
) -> list[Row]:
    """The numbers of each slice, ready for JSON.

    A chip's program is compiled once for all slices of such chips, unless their number decides what a chip holds.

    Args:
      experiment: the experiment, in the TPU's type, bfloat16; it may be abstract.
      slices: such as "v5e:16x16".
      batch: records per chip.
      show_status: shows a status message.
      larger: whether to compile for twice the batch as well, for the largest batch that fits.

    Raises:
      UserError: as in `tpu_plan.plan`.
    """
    compiled: dict[str, tuple[Plan, int | None]] = {}
    rows = []
    for name in slices:
        program = tpu_plan.program(experiment, name)
        if program not in compiled:
            show_status(f"compiling {experiment.config.learner.name} for {name}")
            one = tpu_plan.plan(experiment, name, batch)
            largest = tpu_plan.largest_batch(one, tpu_plan.plan(experiment, name, 2 * batch)) if larger else None
            compiled[program] = one, largest
        one, largest = compiled[program]
        plan = tpu_plan.on_slice(one, name)
        memory = {"memory": plan.chip.memory, "fits": plan.fits, "largest_batch": largest}
        rows.append(
            {"program": "training"} | dataclasses.asdict(plan) | memory | _bounded(batch, plan.chips, plan.bound)
        )
    return rows


def counts(experiment: Experiment, slices: Sequence[str], batch: int) -> list[Row]:
    """The rows of `plans` without compilation: the bound is that of the operations in the traced step alone."""
    flops = tpu_plan.operations(experiment, batch)
    rows = []
    for name in slices:
        chip, number = tpu_plan.parse(name)
        row = {"program": "training", "device": name, "chips": number, "batch": batch, "flops": flops}
        bound = {"compute": flops / chip.flops}
        rows.append(row | _bounded(batch, number, bound))
    return rows


def _bounded(batch: int, chips: int, bound: Mapping[str, float]) -> Row:
    binding = max(bound, key=lambda part: bound[part])
    rate = batch / bound[binding]
    return {
        "bound": dict(bound),
        "binding": binding,
        "images_per_second": rate * chips,
        "images_per_second_per_device": rate,
    }


def table(rows: Sequence[Row]) -> Table:
    """A table with one learner's slices as columns."""
    title = f"{rows[0]['learner']}: the training step, {rows[0]['batch']} records a chip"
    shown = Table(title=title, caption="bounds: by published figures of the chip")
    shown.add_column("")
    for row in rows:
        shown.add_column(row["device"], justify="right")
    cells: dict[str, Callable[[Row], str]] = {
        "chips": lambda row: str(row["chips"]),
        "compilation, s": lambda row: f"{row['seconds']:.0f}",
        "GiB a chip": lambda row: f"{(row['held'] + row['temporary']) / 2**30:.2f} of {row['memory'] / 2**30:.0f}",
        "fits": lambda row: "yes" if row["fits"] else "no",
        "largest batch a chip": lambda row: "" if row["largest_batch"] is None else str(row["largest_batch"]),
        "GFLOP a chip": lambda row: f"{row['flops'] / 1e9:,.0f}",
        "HBM traffic, GB": lambda row: f"{row['bytes'] / 1e9:.1f}",
        "collectives": _collectives,
        "a step takes at least": lambda row: f"{1e3 * row['bound'][row['binding']]:.1f} ms\n({row['binding']})",
        "images/s at most": lambda row: f"{row['images_per_second']:,.0f}",
    }
    uncompiled = "held" not in rows[0]
    for name, cell in cells.items():
        if not (uncompiled and name in COMPILED):
            shown.add_row(name, *map(cell, rows))
    return shown


def _collectives(row: Row) -> str:
    lines = [f"{number} {kind}\n{size / 1e3:,.0f} kB" for kind, (size, number) in row["collectives"].items()]
    return "\n".join(lines) or "none"
