"""The progress of a study: the list of its finished cells, a live table, and an estimate of the remaining time."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from tunevlseg_jax.config import ADDED
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
        """Creates the list, or opens it to continue.

        Raises:
          UserError: the folder holds another study, or something else.
        """
        self.folder = folder
        identity = study.identity()
        if (folder / STUDY_FILE).exists():
            details = schema.difference(
                read_object(folder / STUDY_FILE), identity, added=ADDED | schema.added_defaults(Study)
            )
            if details:
                raise UserError(f"{folder} holds another study ({details}); choose another --folder", "other-config")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is neither empty nor a study; choose another --folder", "other-folder")
        else:
            write_json(folder / STUDY_FILE, identity)
        path = folder / CELLS_FILE
        self.cells: dict[str, dict[str, Any]] = read_object(path) if path.exists() else {}

    def has(self, cell: GridCell) -> bool:
        """Whether a cell is finished, and its runs are still there."""
        entry = self.cells.get(str(cell.folder))
        return entry is not None and all((self.folder / run / CARD_FILE).exists() for run in entry["runs"])

    def runs(self, cell: GridCell) -> list[Path]:
        """The folders of the runs that represent a finished cell; none of one that isn't finished."""
        return [self.folder / run for run in self.cells[str(cell.folder)]["runs"]] if self.has(cell) else []

    def add(self, cell: GridCell, runs: Sequence[Path], seconds: float) -> None:
        """Adds a finished cell: the runs that represent it, and the seconds that it took."""
        names = [str(run.relative_to(self.folder)) for run in runs]
        self.cells[str(cell.folder)] = {"runs": names, "seconds": round(seconds, 1)}
        write_json(self.folder / CELLS_FILE, self.cells)

    def seconds(self, cells: Sequence[GridCell]) -> float:
        """The total of the finished ones of these cells."""
        return sum(self.cells[str(cell.folder)]["seconds"] for cell in cells if str(cell.folder) in self.cells)

    def rest(self, cells: Sequence[GridCell]) -> float | None:
        """Estimated seconds of the unfinished ones of these cells; None before the first cell is finished.

        A cell takes as long as the same combination and ablation on the data set where that was quickest, with nothing
        to compile; or else the average of all finished cells.
        """
        done = [cell for cell in cells if str(cell.folder) in self.cells]
        if not done:
            return None
        quickest: dict[str, float] = {}
        for cell in done:
            quickest[cell.way] = min(quickest.get(cell.way, math.inf), self.seconds([cell]))
        average = self.seconds(done) / len(done)
        return sum(quickest.get(cell.way, average) for cell in cells if not self.has(cell))


class StudyDisplay:
    """A live table of a study's data sets, and a line below it with the present activity and the remaining time."""

    def __init__(self, console: Console, study: Study, progress: StudyProgress):
        self.console, self.study, self.progress = console, study, progress
        self.cells = study.cells()
        self.cell, self.counts, self.message = "", "", ""
        self.started = time.perf_counter()
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=2)

    def begin(self, cell: GridCell) -> None:
        """Shows a cell as begun."""
        self.cell, self.counts, self.message = cell.name, "", ""

    def notify(self, message: str) -> None:
        """Shows the present activity below the table."""
        self.message = message

    def note(self, line: str) -> None:
        """Prints a line that stays."""
        self.console.print(line, soft_wrap=True)

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Does nothing: `update` counts the trials that have ended."""

    def update(self, name: str, storage: StudyStorage) -> None:
        """Updates the count of a search's trials."""
        self.counts = f"{len(storage.finished())}/{self.study.search.trials} trials"

    def done(self, cell: GridCell, scores: Sequence[Mapping[str, Mapping[str, float]]], seconds: float) -> None:
        """Prints a line on a finished cell: the mean scores of its runs, given by split and metric."""
        means = ", ".join(
            f"{part} Dice {fmean(run[part]['dice'] for run in scores):.4f}"
            for part in ("val", "test")
            if scores and part in scores[0]
        )
        number = sum(map(self.progress.has, self.cells))
        line = f"{number:3d}/{len(self.cells)}  {cell.name}: {means or 'no run came to its end'}  ({seconds:.0f} s)"
        self.console.print(line, soft_wrap=True, highlight=False)

    def end(self) -> None:
        """Prints the seconds of all cells by their kind."""
        seconds: dict[str, float] = {}
        for cell in self.cells:
            kind = cell.combination.kind if cell.ablation is None else "ablations"
            seconds[kind] = seconds.get(kind, 0) + self.progress.seconds([cell])
        self.cell, self.counts, self.message = "", "", ""
        totals = ", ".join(f"{kind} {total:.0f} s" for kind, total in seconds.items())
        self.console.print(f"{len(self.cells)} cells: {totals}", soft_wrap=True, highlight=False)

    def _render(self) -> Group:
        columns = (Column(name, justify="right") for name in ("cells", "seconds"))
        table = Table("data set", *columns, title=self.study.folder)
        for data in self.study.data:
            cells = [cell for cell in self.cells if cell.data == data]
            done = [cell for cell in cells if self.progress.has(cell)]
            table.add_row(data, f"{len(done)}/{len(cells)}", f"{self.progress.seconds(done):.0f}" if done else "")
        rest = self.progress.rest(self.cells)
        left = f", about {rest / 60:.0f} min left" if rest else ""
        activity = "  ".join(part for part in (self.cell, self.counts, self.message) if part)
        return Group(table, Text(f"{activity}  ({time.perf_counter() - self.started:.0f} s{left})"))
