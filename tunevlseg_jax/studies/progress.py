"""The progress of a study: the list of its finished cells, a live table, and an estimate of the remaining time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tunevlseg_jax.runs.card import CARD_FILE
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json
from tunevlseg_jax.search.storage import StudyStorage
from tunevlseg_jax.studies.grid import GridCell, Study

STUDY_FILE, CELLS_FILE = "study.json", "cells.json"


class StudyProgress:
    """The finished cells of a study, in its folder."""

    def __init__(self, folder: Path, study: Study):
        """Begins the book, or opens it to go on.

        Raises:
          UserError: the folder holds another study, or something else.
        """
        self.folder = folder
        identity = study.identity()
        if (folder / STUDY_FILE).exists():
            told = schema.difference(read_object(folder / STUDY_FILE), identity)
            if told:
                raise UserError(f"{folder} holds another study ({told}); choose another --folder", "other-config")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is neither empty nor a study; choose another --folder", "other-folder")
        else:
            write_json(folder / STUDY_FILE, identity)
        path = folder / CELLS_FILE
        self.cells: dict[str, dict[str, Any]] = read_object(path) if path.exists() else {}

    def has(self, cell: GridCell) -> bool:
        """Whether a cell is finished, and its runs are still there."""
        kept = self.cells.get(str(cell.folder))
        return kept is not None and all((self.folder / run / CARD_FILE).exists() for run in kept["runs"])

    def add(self, cell: GridCell, runs: Sequence[Path], seconds: float) -> None:
        """A cell has been finished: the runs that stand for it, and the seconds that it took."""
        told = {"runs": [str(run.relative_to(self.folder)) for run in runs], "seconds": round(seconds, 1)}
        self.cells[str(cell.folder)] = told
        write_json(self.folder / CELLS_FILE, self.cells)

    def seconds(self, cells: Sequence[GridCell]) -> float:
        """What finished cells took together."""
        return sum(self.cells[str(cell.folder)]["seconds"] for cell in cells if str(cell.folder) in self.cells)

    def rest(self, cells: Sequence[GridCell]) -> float | None:
        """Seconds that the unfinished ones of these cells take, if each takes as long as its like; None if unknown.

        Its like are the same combination and ablation on other data sets, of which the quickest had nothing to compile;
        where there is none yet, the average of all.
        """
        known: dict[str, float] = {}
        done = [cell for cell in cells if str(cell.folder) in self.cells]
        if not done:
            return None
        for cell in done:
            seconds = self.cells[str(cell.folder)]["seconds"]
            known[cell.way] = min(known.get(cell.way, seconds), seconds)
        average = self.seconds(done) / len(done)
        return sum(known.get(cell.way, average) for cell in cells if not self.has(cell))


class StudyDisplay:
    """A live table of a study's data sets, with a line below on what is going on and how long it will take."""

    def __init__(self, console: Console, study: Study, book: StudyProgress):
        self.console, self.study, self.book = console, study, book
        self.cells = study.cells()
        self.doing, self.words, self.counts = "", "", ""
        self.started = time.perf_counter()
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=2)

    def begin(self, cell: GridCell) -> None:
        """A cell is begun."""
        self.doing, self.words, self.counts = cell.name, "", ""

    def tell(self, words: str) -> None:
        """What is going on."""
        self.words = words

    def trial(self, storage: StudyStorage, number: int, state: TrialState, details: Mapping[str, Any]) -> None:
        """Does nothing: `update` counts the trials that have ended."""

    def update(self, name: str, storage: StudyStorage) -> None:
        """Updates the count of a search's trials."""
        self.counts = f"{len(storage.finished())}/{self.study.search.trials} trials"

    def done(self, cell: GridCell, scores: Sequence[Mapping[str, Mapping[str, float]]], seconds: float) -> None:
        """A line on a cell that is finished: the scores of the runs that represent it, by split and metric."""
        told = "no run came to its end"
        if scores:
            means = {part: [one[part]["dice"] for one in scores] for part in ("val", "test") if part in scores[0]}
            told = ", ".join(f"{part} Dice {sum(values) / len(values):.4f}" for part, values in means.items())
        number = sum(self.book.has(one) for one in self.cells)
        self.console.print(
            f"{number:3d}/{len(self.cells)}  {cell.name}: {told}  ({seconds:.0f} s)", soft_wrap=True, highlight=False
        )

    def end(self) -> None:
        """Every cell is finished: what they took, by what was done."""
        seconds: dict[str, float] = {}
        for cell in self.cells:
            what = cell.combination.kind if cell.ablation is None else "ablations"
            seconds[what] = seconds.get(what, 0) + self.book.seconds([cell])
        self.doing, self.words, self.counts = "", "", ""
        told = ", ".join(f"{what} {taken:.0f} s" for what, taken in seconds.items())
        self.console.print(f"{len(self.cells)} cells: {told}", soft_wrap=True, highlight=False)

    def _render(self) -> Group:
        table = Table(title=self.study.folder)
        table.add_column("data set")
        for column in ("cells", "seconds"):
            table.add_column(column, justify="right")
        for data in self.study.data:
            own = [cell for cell in self.cells if cell.data == data]
            done = [cell for cell in own if self.book.has(cell)]
            table.add_row(data, f"{len(done)}/{len(own)}", f"{self.book.seconds(done):.0f}" if done else "")
        rest = self.book.rest(self.cells)
        left = f", about {rest / 60:.0f} min left" if rest else ""
        told = "  ".join(part for part in (self.doing, self.counts, self.words) if part)
        return Group(table, Text(f"{told}  ({time.perf_counter() - self.started:.0f} s{left})"))
