"""Summaries of studies: a live table while they run, and a CSV and a JSON file of each when it has ended."""

import csv
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from tunevlseg_jax.runtime.files import atomic_file, write_json
from tunevlseg_jax.search.storage import ENDED, WORKER, StudyStorage, current_params

SUMMARY_FILE, TRIALS_FILE = "summary.json", "trials.csv"
METRICS = ("dice", "iou", "sample_iou", "loss")
COLUMNS = ("trials", "running", "pruned", "failed", "best val Dice", "in trial")


class SweepDisplay:
    """A live table of studies, and a line below it with the present activity."""

    def __init__(self, console: Console, names: Sequence[str], wanted: int):
        self.console, self.wanted = console, wanted
        self.rows: dict[str, list[str]] = {name: [""] * len(COLUMNS) for name in names}
        self.message = ""
        self.started = time.perf_counter()
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def notify(self, message: str) -> None:
        """Shows the present activity below the table."""
        self.message = message

    def note(self, line: str) -> None:
        """Prints a line that stays."""
        self.console.print(line, soft_wrap=True)

    def update(self, name: str, storage: StudyStorage) -> None:
        """Updates the counts of a study's trials."""
        states, best = Counter(trial.state for trial in storage.trials()), storage.best()
        counts = [str(states[state]) for state in (TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL)]
        score = ["", ""] if best is None else [f"{best.user_attrs['val_dice']:.4f}", str(best.number)]
        self.rows[name] = [f"{len(storage.finished())}/{self.wanted}", *counts, *score]

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Prints a line on a trial that has come to its end."""
        params = "  ".join(
            f"{name.partition('.')[2] or name} {format(value, '.3g') if isinstance(value, float) else value}"
            for name, value in trial.params.items()
        )
        details = trial.user_attrs
        score = "no score"
        if "val_dice" in details:
            score = f"val Dice {details['val_dice']:.4f} in epoch {details['best_epoch']}"
        end = {TrialState.FAIL: "diverged", TrialState.PRUNED: "pruned"}.get(trial.state, "done")
        line = f"trial {trial.number:3d}  {end} after {details['epochs']} epochs, {score}  {params}"
        self.console.print(line, soft_wrap=True)

    def _render(self) -> Group:
        table = Table("study", *(Column(name, justify="right") for name in COLUMNS), title="studies")
        for name, cells in self.rows.items():
            table.add_row(name, *cells)
        elapsed = time.perf_counter() - self.started
        return Group(table, Text(f"{self.message}  ({elapsed:.0f} s)" if self.message else ""))


def write(
    folder: Path, name: str, storage: StudyStorage, best: FrozenTrial | None, runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Writes a study's summaries.

    Args:
      folder: of the study.
      name: of the study.
      storage: the study.
      best: its best trial when the runs began.
      runs: the best trial's repetitions, itself first: `seed`, and scores by split and metric.

    Returns:
      The JSON: numbers of trials, the best one, and mean and standard deviation over the seeds.
    """
    trials = storage.finished()
    with atomic_file(folder / TRIALS_FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        details = sorted({key for trial in trials for key in trial.user_attrs} - {WORKER, ENDED})
        table = csv.writer(file)
        table.writerow(["trial", "state", "objective", *storage.sampler.space, *details])
        for trial in trials:
            params = current_params(trial)
            values = [*map(params.get, storage.sampler.space), *map(trial.user_attrs.get, details)]
            table.writerow([trial.number, trial.state.name.lower(), trial.value, *values])
    summary: dict[str, Any] = {
        "study": name,
        "trials": len(trials),
        "states": {state.name.lower(): count for state, count in Counter(trial.state for trial in trials).items()},
        "best": None,
    }
    if best is not None:
        objective = "validation loss" if storage.direction == "minimize" else "validation Dice"
        summary["best"] = {"trial": best.number, "chosen_by": objective, "objective": best.value}
        summary["best"] |= {"params": current_params(best), "runs": list(runs)}
        summary["best"]["mean"] = over_seeds(runs, statistics.fmean)
        if len(runs) > 1:
            summary["best"]["std"] = over_seeds(runs, statistics.stdev)
    write_json(folder / SUMMARY_FILE, summary)
    return summary


def over_seeds(
    runs: Sequence[Mapping[str, Any]], statistic: Callable[[list[float]], float]
) -> dict[str, dict[str, float]]:
    """A statistic of every score over the runs, by split and metric."""
    splits = [name for name in ("val", "test") if runs and name in runs[0]]
    return {split: {name: statistic([run[split][name] for run in runs]) for name in METRICS} for split in splits}


def results(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """A table of each study's best trial, with mean and standard deviation over its seeds."""
    columns = (Column(name, justify="right") for name in ("trial", "seeds", "val Dice", "test Dice", "test IoU"))
    caption = "Dice: mean over records; IoU: one ratio over all pixels; std over seeds"
    table = Table("study", *columns, title="best trials", caption=caption)
    for summary in summaries:
        best = summary["best"]
        if best is None:
            table.add_row(summary["study"], "none")
            continue
        scores = [
            " ± ".join(f"{best[part][split][metric]:.4f}" for part in ("mean", "std") if split in best.get(part, ()))
            for split, metric in (("val", "dice"), ("test", "dice"), ("test", "iou"))
        ]
        table.add_row(summary["study"], str(best["trial"]), str(len(best["runs"])), *scores)
    return table
