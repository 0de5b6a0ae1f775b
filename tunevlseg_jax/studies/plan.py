"""The plan of a study: its unfinished cells, the hours that they take, and the files that are missing."""

import dataclasses
from collections.abc import Mapping, Sequence

from rich.table import Column, Table

from tunevlseg_jax.benchmarks import rates
from tunevlseg_jax.benchmarks.rates import Rates
from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.builders.catalogue import PUBLIC
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.pretrained.load import local_folder
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search import trial_config
from tunevlseg_jax.studies.grid import GridCell, Study


def plan(study: Study, measured: Mapping[str, Rates]) -> tuple[Table, list[str]]:
    """A table with a row for each cell, and a line with a remedy for each missing data set and model.

    Args:
      study: the study.
      measured: rates by device; the table has a column of each device's hours.
    """
    missing: dict[str, str] = {}
    records = {data: _training_records(data, missing) for data in {cell.config.data for cell in study.cells()}}
    for checkpoint in {combination.config.model.checkpoint for combination in study.combinations}:
        if local_folder(checkpoint) is None:
            missing[checkpoint] = f"there is no model {checkpoint!r} on this machine; see the commands of `conversion`"
    caption = "runs x epochs x training records = images to train on"
    if measured:
        caption += "; hours of one device, training alone, ? where nothing was measured"
    numbers = ("runs", "images", *(f"{device}\nhours" for device in measured))
    columns = (Column(name, justify="right", no_wrap=True) for name in numbers)
    table = Table("", *columns, title=study.folder, caption=caption, box=None, pad_edge=False)
    total = 0
    hours: list[list[float | None]] = []  # of each device, for each cell that trains
    for data in study.data:
        table.add_row(f"[bold]{data}[/bold] {'(missing)' if data in missing else ''}")
        for cell in (cell for cell in study.cells() if cell.data == data):
            config = _longest(study, cell)
            count, runs, epochs = records[cell.config.data], _runs(study, cell), config.train.epochs
            if not runs:
                table.add_row(cell.way)
                continue
            images = runs * epochs * (count or 0)
            total += images
            at_once = study.search.at_once if cell.combination.kind == "searched" else 1
            hours.append([rates.hours(rate, config, at_once, images) for rate in measured.values()])
            details = f"{runs} x {epochs} x {'?' if count is None else count}", f"{images:,}"
            table.add_row(cell.way, *details, *(_sum([each]) for each in hours[-1]))
        table.add_row()
    table.add_row(f"{len(study.cells())} cells", "", f"{total:,}", *map(_sum, zip(*hours, strict=True)))
    return table, [missing[name] for name in sorted(missing)]


def _sum(hours: Sequence[float | None]) -> str:
    """The sum of the known hours, and a question mark if there are others."""
    known = [each for each in hours if each is not None]
    total = sum(known)
    parts = [f"{total:,.0f}" if total >= 100 else f"{total:.2g}"] if known else []
    return " + ".join(parts + ["?"] * (len(known) < len(hours)))


def _longest(study: Study, cell: GridCell) -> Config:
    """The configuration of a cell's runs, with the most epochs that its search may give them."""
    config = cell.config
    if cell.combination.kind == "searched":
        epochs = trial_config.largest(config, study.options(cell).space, "train.epochs")
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=epochs))
    return config if cell.ablation is None else cell.ablation.of(config)


def _runs(study: Study, cell: GridCell) -> int:
    """The number of trainings of a cell."""
    trials, repeated = study.search.trials, study.search.seeds * max(1, len(cell.folds))
    runs = {"zero-shot": 0, "fine-tuned": repeated, "searched": trials + repeated - 1}
    return runs[cell.combination.kind] if cell.ablation is None else repeated


def _training_records(data: Data, missing: dict[str, str]) -> int | None:
    """The number of records; the paper's if the set isn't prepared, which `missing` then explains."""
    try:
        return registry.count(data, "train")
    except UserError as error:
        known = data.name in PUBLIC
        makes = f"`python -m tunevlseg_jax.prepare {data.name} --source FILES` makes it of its downloads"
        missing[data.name] = f"there is no {data.name} in {data.root}; {makes}" if known else str(error)
        return PUBLIC[data.name].sizes.train if known else None
