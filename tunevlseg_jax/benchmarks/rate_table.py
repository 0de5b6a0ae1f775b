"""Tables of the measured programs, no wider than a terminal of 80 columns."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tunevlseg_jax.benchmarks import programs
from tunevlseg_jax.benchmarks.peer_process import PRECISIONS

Row = dict[str, Any]


def show(rows: Sequence[Row], repeats: int, console: Console) -> None:
    """Prints the rows of `measure.measure`, a table for each learner, and how the numbers were taken."""
    for learner, group in itertools.groupby(rows, key=lambda row: row["learner"]):
        of_learner = list(group)
        first = of_learner[0]
        hosts = f" in {first['hosts']} processes" if first["hosts"] > 1 else ""
        about = f"{first['devices']} x {first['device']}{hosts}, {first['precision']}, batch {first['batch']}"
        trains = f"{first['trainable_bytes'] / 2**10:,.0f} KiB"
        console.print(f"[bold]{learner}[/bold], trains {trains}: {about}; medians of {repeats}", soft_wrap=True)
        console.print(table(of_learner), "")
        for compared in peer_tables(of_learner):
            console.print(compared, "")
        for row in of_learner:
            console.print(*_waits(row), sep="", end="", soft_wrap=True)
    _legend(rows[0], console)


def table(rows: Sequence[Row]) -> Table:
    """One learner's programs."""
    shown = _table(["", "step\ns", "images/s", "of the\nceiling", "GFLOP", "MiB", "compile\ns"])
    for row in rows:
        cells = [
            row["program"],
            f"{row['seconds']:.3g}\n{row['fastest']:.3g}-{row['slowest']:.3g}",
            _rate(row),
            f"{row['share_of_ceiling']:.0%}",
            f"{row['flops'] / 1e9:,.0f}",
            f"{row['temporary_bytes'] / 2**20:,.0f}",
            f"{row['compilation_seconds']:.1f}",
        ]
        shown.add_row(*cells)
    return shown


def _rate(row: Row) -> str:
    """Images a second, of all devices and, where there are several, of each."""
    each = f"\n{row['images_per_second_per_device']:.1f} each"
    return f"{row['images_per_second']:.1f}{each if row['devices'] > 1 else ''}"


def peer_tables(rows: Sequence[Row]) -> Iterator[Table]:
    """One learner's programs as ratios to the peer's forward pass and to its training step, with their spread."""
    for prefix, what in (("peer_", "forward pass"), ("peer_training_", "training step")):
        names = {f"{prefix}{precision}": precision for precision in PRECISIONS}
        compared = [row for row in rows if names.keys() & row.keys()]
        if compared:
            yield _peer_table(compared, names, what)


def _peer_table(rows: Sequence[Row], names: Mapping[str, str], what: str) -> Table:
    best = min(names, key=lambda key: rows[0][key]["seconds"])
    heads = [
        f"{name}{' (its best)' if key == best else ''}\n{rows[0][key]['seconds']:.3g} s" for key, name in names.items()
    ]
    shown = _table([f"of the peer's\n{what}", *heads])
    for row in rows:
        ratios = [row[key] for key in names]
        spreads = (f"{ratio['ratio']:.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})" for ratio in ratios)
        shown.add_row(row["program"], *spreads)
    return shown


def scaling_table(rows: Sequence[Row]) -> Table:
    """The rows of `measure.scaling`."""
    shown = _table(["devices", "batch", "step\ns", "images/s", "images/s\na device", "efficiency"])
    for row in rows:
        each = f"{row['images_per_second_per_device']:.1f}"
        numbers = f"{row['seconds']:.3g}", f"{row['images_per_second']:.1f}", each, f"{row['efficiency']:.0%}"
        shown.add_row(str(row["devices"]), str(row["batch"]), *numbers)
    return shown


def _table(columns: Sequence[str]) -> Table:
    shown = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for number, column in enumerate(columns):
        shown.add_column(column, justify="right" if number else "left", no_wrap=True)
    return shown


def _waits(row: Row) -> list[str]:
    """Lines on a program's time beside its operations, if there are any."""
    lines = []
    if row.get("collective_seconds"):
        share = row["collective_seconds"] / row["seconds"]
        lines.append(f"{row['program']}: {row['collective_seconds']:.3g} s of a step in collectives ({share:.0%})\n")
    if "stall_seconds" in row:
        lines.append(f"{row['program']}: a step waits {row['stall_seconds']:.3g} s for its batch\n")
    if speeds := row.get("loading_images_per_second"):
        rates = ", ".join(f"{speed:,.0f} images/s {placement}" for placement, speed in speeds.items())
        lines.append(f"{row['program']}: batches reach the devices at {rates}\n")
    if row["hosts"] > 1:
        waits = row.get("stall_seconds_by_host") or [None] * row["hosts"]
        parts = zip(row["seconds_by_host"], row["compilation_seconds_by_host"], waits, strict=True)
        for number, (seconds, compiling, wait) in enumerate(parts):
            waiting = "" if wait is None else f", waits {wait:.3g} s"
            lines.append(f"  process {number}: a step {seconds:.3g} s{waiting}, compiled in {compiling:.1f} s\n")
    return lines


def _legend(row: Row, console: Console) -> None:
    console.print("GFLOP: counted in the program before compilation; MiB: beside its arguments")
    by_host, side = row["ceiling_by_host"], programs.CEILING_SIDE
    rate = f"{min(by_host) / 1e9:,.0f} GFLOP/s a device"
    console.print(f"ceiling: a {side}² matrix product in the same run, {rate}", soft_wrap=True)
    if len(by_host) > 1:
        slow, fast = (by_host.index(pick(by_host)) for pick in (min, max))
        console.print(
            f"slowest host: process {slow}, {by_host[slow] / 1e9:,.0f} GFLOP/s; "
            f"fastest: process {fast}, {by_host[fast] / 1e9:,.0f} GFLOP/s",
            soft_wrap=True,
        )
    sizes = ", ".join(f"{size / 2**30:.2f} GiB {when}" for when, size in row["peak_bytes"].items())
    console.print(f"peak memory of the fullest device or process: {sizes}", soft_wrap=True)
