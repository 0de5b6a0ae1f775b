"""Prepares and audits data sets: `python -m tunevlseg_jax.prepare kvasir --source kvasir-seg.zip --output data`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tunevlseg_jax import command
from tunevlseg_jax.data.builders import PUBLIC
from tunevlseg_jax.data.builders.base import Builder, build
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.public import PublicSet
from tunevlseg_jax.data.source import Source

PROGRAM = "python -m tunevlseg_jax.prepare"
PAPER = "the paper's Table 1"


@dataclass(frozen=True)
class Public:
    """One of the paper's ten sets.

    Attributes:
      set: its name.
      source: the download: folders, zip or tar files; a folder's zip and tar files count as if unpacked.
      annotations: the folder data/ of github.com/naamiinepal/medvlsm; then splits and prompts are the paper's, record
        for record. Without it splits are seeded, in the paper's proportions.
      output: the data folder; the set is written to OUTPUT/NAME.
      seed: of the splits without annotations.
    """

    set: tyro.conf.Suppress[str]
    source: tuple[Path, ...]
    annotations: Path | None = None
    output: Path = Path("data")
    seed: int = 0


def main() -> None:
    """Prepares a set, or audits one."""
    defaults = {name: Public(name, tyro.MISSING) for name in PUBLIC}
    descriptions = {name: inspect.getdoc(builder) or "" for name, builder in PUBLIC.items()}
    options = command.subcommand(defaults, descriptions, PROGRAM, __doc__ or "")
    prepare_public(options, Console())


def prepare_public(options: Public, console: Console) -> None:
    """Writes one of the ten sets, and tells how its counts compare with the paper's.

    Raises:
      UserError: the source isn't what it should be, or the output can't be written to.
    """
    chosen = PUBLIC[options.set]

    def make(folder: Path) -> PublicSet:
        source = Source(options.source, folder / "unpacked")
        return chosen(folder, source, options.annotations, options.seed, bar)

    with Bar(console) as bar:
        builder = build(options.output, options.set, make)
    sizes = chosen.sizes._asdict()
    if builder.test_is_val:
        del sizes["test"]
    _report(builder, options.output, console, sizes)


class Bar(Progress):
    """A bar for each split."""

    def __init__(self, console: Console):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console)

    def __call__(self, split: str, items: Sequence[Item]) -> Iterable[Item]:
        return self.track(items, description=f"{split:5s}")


def _report(builder: Builder, output: Path, console: Console, paper: Mapping[str, int]) -> None:
    table = Table(title=f"{builder.name} in {output / builder.name}")
    for column in ("split", "images", "records", *((f"records in\n{PAPER}",) if paper else ())):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split in builder.written | dict.fromkeys(paper):
        images, records = builder.written.get(split, (0, 0))
        theirs = (f"{paper[split]}",) if split in paper else ()
        table.add_row(split, f"{images}", f"{records}", *theirs)
    console.print(table)
    others = [split for split, count in paper.items() if count != getattr(builder.written.get(split), "records", 0)]
    if others:
        console.print(f"note: {', '.join(others)} differ from {PAPER}", soft_wrap=True)
    if builder.test_is_val:
        console.print("test is val, as in the paper: the masks of the set's own test split aren't public")


if __name__ == "__main__":
    command.run(main)
