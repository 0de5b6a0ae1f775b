"""What a study is going to train, cell by cell, and what it lacks for that."""

from __future__ import annotations

from rich.table import Table

from tunevlseg_jax import pretrained
from tunevlseg_jax.config import Data
from tunevlseg_jax.data import sets
from tunevlseg_jax.errors import UserError
from tunevlseg_jax.grid import Cell, Study


def plan(study: Study) -> tuple[Table, list[str]]:
    """A row for each cell, and what is missing: data sets and models, each with what to do about it."""
    missing: dict[str, str] = {}
    records = {data: _training_records(data, missing) for data in {cell.config.data for cell in study.cells()}}
    for checkpoint in {combination.config.model.checkpoint for combination in study.combinations}:
        if pretrained.here(checkpoint) is None:
            missing[checkpoint] = f"there is no model {checkpoint!r} on this machine; see the commands of `conversion`"
    caption = "runs x epochs x training records = images to train on"
    table = Table(title=study.folder, caption=caption, box=None, pad_edge=False)
    for name in ("", "runs", "images"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    everything = 0
    for data in study.data:
        table.add_row(f"[bold]{data}[/bold] {'(missing)' if data in missing else ''}")
        for cell in (cell for cell in study.cells() if cell.data == data):
            count, runs, epochs = records[cell.config.data], _runs(study, cell), cell.config.train.epochs
            images = runs * epochs * (count or 0)
            everything += images
            told = (f"{runs} x {epochs} x {'?' if count is None else count}", f"{images:,}") if runs else ("", "")
            table.add_row(cell.way, *told)
        table.add_row()
    table.add_row(f"{len(study.cells())} cells", "", f"{everything:,}")
    return table, [missing[name] for name in sorted(missing)]


def _runs(study: Study, cell: Cell) -> int:
    """How often a model is trained for a cell."""
    if cell.ablation is not None:
        return study.search.seeds
    return {"zero-shot": 0, "fine-tuned": 1, "searched": study.search.trials + study.search.seeds - 1}[
        cell.combination.kind
    ]


def _training_records(data: Data, missing: dict[str, str]) -> int | None:
    """How many there are; where the set isn't prepared, as many as the paper has of it, and in `missing` the reason."""
    try:
        return sets.count(data, "train")
    except UserError as error:
        known = data.name in sets.PUBLISHED
        makes = f"`python -m tunevlseg_jax.prepare {data.name} --source FILES` makes it of its downloads"
        missing[data.name] = f"there is no {data.name} in {data.root}; {makes}" if known else str(error)
        return sets.PUBLISHED.get(data.name)
