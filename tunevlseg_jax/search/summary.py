"""Summaries of studies: a live table while they run, and a CSV and a JSON file of each when it has ended."""

from __future__ import annotations

import csv
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tunevlseg_jax.runtime.files import atomic_file, write_json
from tunevlseg_jax.search.storage import ENDED, WORKER, StudyStorage

SUMMARY_FILE, TRIALS_FILE = "summary.json", "trials.csv"
METRICS = ("dice", "iou", "sample_iou", "loss")


COLUMNS = ("study", "trials", "running", "pruned", "failed", "best val Dice", "in trial")


class SweepDisplay:
    """A live table of studies, with a line below on what is going on."""

    def __init__(self, console: Console, names: Sequence[str], wanted: int):
        self.console, self.wanted = console, wanted
        self.rows: dict[str, list[str]] = {name: [""] * (len(COLUMNS) - 1) for name in names}
        self.told = ""
        self.started = time.perf_counter()
        self.live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def tell(self, words: str) -> None:
        """What is going on."""
        self.told = words

    def update(self, name: str, storage: StudyStorage) -> None:
        """Updates the counts of a study's trials."""
        trials = storage.trials()
        states = Counter(trial.state for trial in trials)
        done = sum(trial.state.is_finished() for trial in trials)
        best = best_of(trials, storage)
        counts = [str(states[state]) for state in (TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL)]
        score = ["", ""] if best is None else [f"{best.user_attrs['val_dice']:.4f}", str(best.number)]
        self.rows[name] = [f"{done}/{self.wanted}", *counts, *score]

    def trial(self, storage: StudyStorage, number: int, state: TrialState, details: Mapping[str, Any]) -> None:
        """A line on a trial that has come to its end."""
        params = "  ".join(
            f"{name.split('.', 1)[-1]} {_short(value)}" for name, value in storage.params(number).items()
        )
        score = (
            f"val Dice {details['val_dice']:.4f} in epoch {details['best_epoch']}"
            if "val_dice" in details
            else "no score"
        )
        ending = {TrialState.FAIL: "diverged", TrialState.PRUNED: "pruned"}.get(state, "done")
        self.console.print(
            f"trial {number:3d}  {ending} after {details['epochs']} epochs, {score}  {params}", soft_wrap=True
        )

    def _render(self) -> Group:
        table = Table(title="studies")
        for number, column in enumerate(COLUMNS):
            table.add_column(column, justify="right" if number else "left")
        for name, cells in self.rows.items():
            table.add_row(name, *cells)
        elapsed = time.perf_counter() - self.started
        return Group(table, Text(f"{self.told}  ({elapsed:.0f} s)" if self.told else ""))


def best_of(trials: Sequence[FrozenTrial], storage: StudyStorage) -> FrozenTrial | None:
    """The best trial that was trained to its end; the first of equals."""
    complete = {trial.number: trial for trial in trials if trial.state == TrialState.COMPLETE}
    values = {number: trial.value for number, trial in complete.items() if trial.value is not None}
    if not values:
        return None
    sign = 1 if storage.direction == "minimize" else -1
    return complete[min(values, key=lambda number: (sign * values[number], number))]


def write(
    folder: Path, name: str, storage: StudyStorage, best: FrozenTrial | None, runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Writes a study's summaries.

    Args:
      folder: of the study.
      name: of the study.
      storage: the study.
      best: its best trial.
      runs: the best trial's repetitions, itself first: `seed`, and scores by split and metric.

    Returns:
      The JSON: numbers of trials, the best one, and mean and standard deviation over the seeds.
    """
    trials = storage.finished()
    with atomic_file(folder / TRIALS_FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        told = sorted({key for trial in trials for key in trial.user_attrs} - {WORKER, ENDED})
        params = list(storage.sampler.distributions)
        table = csv.writer(file)
        table.writerow(["trial", "state", "objective", *params, *told])
        for trial in trials:
            values = [trial.params.get(param) for param in params] + [trial.user_attrs.get(key) for key in told]
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
        summary["best"] |= {"params": best.params, "runs": list(runs)}
        summary["best"]["mean"] = over_seeds(runs, statistics.fmean)
        if len(runs) > 1:
            summary["best"]["std"] = over_seeds(runs, statistics.stdev)
    write_json(folder / SUMMARY_FILE, summary)
    return summary


def over_seeds(runs: Sequence[Mapping[str, Any]], what: Any) -> dict[str, dict[str, float]]:
    """A statistic of every score over the runs, by split and metric."""
    splits = [name for name in ("val", "test") if runs and name in runs[0]]
    return {split: {name: what([run[split][name] for run in runs]) for name in METRICS} for split in splits}


def results(summaries: Sequence[Mapping[str, Any]]) -> Table:
    """What to close with: each study's best trial, with mean and standard deviation over its seeds."""
    table = Table(
        title="best trials", caption="Dice: mean over records; IoU: one ratio over all pixels; std over seeds"
    )
    table.add_column("study")
    for column in ("trial", "seeds", "val Dice", "test Dice", "test IoU"):
        table.add_column(column, justify="right")
    for summary in summaries:
        best = summary["best"]
        if best is None:
            table.add_row(summary["study"], "none")
            continue
        cells = []
        for split, metric in (("val", "dice"), ("test", "dice"), ("test", "iou")):
            if split not in best["mean"]:
                cells.append("")
                continue
            std = f" ± {best['std'][split][metric]:.4f}" if "std" in best else ""
            cells.append(f"{best['mean'][split][metric]:.4f}{std}")
        table.add_row(summary["study"], str(best["trial"]), str(len(best["runs"])), *cells)
    return table


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
