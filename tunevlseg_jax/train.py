"""Trains prompts for a frozen model: `python -m tunevlseg_jax.train --config configs/quickstart.py`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tunevlseg_jax import artefacts, command, devices, experiment, loop, metrics
from tunevlseg_jax.artefacts import Board, RunFolder
from tunevlseg_jax.config import Config
from tunevlseg_jax.errors import UserError
from tunevlseg_jax.experiment import Experiment
from tunevlseg_jax.files import write_json
from tunevlseg_jax.loop import Fit, Loop, Split
from tunevlseg_jax.metrics import Sums
from tunevlseg_jax.partition import Flat

Results = dict[str, dict[str, dict[str, float]]]
"""Scores by row ("zero-shot", "tuned"), split and metric."""


def main() -> None:
    """Trains, and closes with a table of zero-shot against tuned."""
    config = command.config_options("python -m tunevlseg_jax.train", __doc__ or "")
    train(config, Console())


def train(config: Config, console: Console) -> Results:
    """Trains one run in its folder, going on where an earlier call stopped.

    Raises:
      UserError: the configuration can't be, or the run came to a loss that isn't finite.
    """
    made = experiment.build(config)
    mesh = devices.mesh()
    splits = made.splits(mesh)
    folder = RunFolder(config)
    frozen = devices.replicated(made.frozen, mesh)
    fit = Fit(config, made.network, frozen, splits["train"], splits["val"], mesh)
    _introduce(made, fit, console)
    last = _train(made, fit, folder, console)
    learnt = jax.tree.map(lambda array: np.asarray(array[0]), last.best)
    results = {
        "zero-shot": _score(*_zero_shot(made), made, splits),
        "tuned": _score(made.network, last.best, frozen, made, splits),
    }
    _save(made, folder.path, last, learnt, splits, results)
    console.print(_table(config, made, splits, results))
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    return results


def _introduce(made: Experiment, fit: Fit, console: Console) -> None:
    trainable = sum(array.size for array in made.trainable.values())
    frozen = sum(array.size for array in made.frozen.values())
    device = jax.devices()[0]
    console.print(
        f"{type(made.config.learner).__name__} on {made.config.model.checkpoint} for {made.config.data.name}: "
        f"{trainable:,} parameters train, {frozen:,} are frozen; {len(fit.train.records)} training records; "
        f"{fit.mesh.size} {device.platform} device{'s' if fit.mesh.size > 1 else ''}, {made.network.dtype.name}",
        soft_wrap=True,
    )
    depth, _ = made.config.learner.values()
    live = made.towers.live_vision_prompts
    if made.config.learner.vision_prompts and depth > live:
        console.print(
            f"note: learner.depth is {depth}, but only the first {live} visual prompts reach the mask; "
            "the others change nothing",
            soft_wrap=True,
        )


def _train(made: Experiment, fit: Fit, folder: RunFolder, console: Console) -> Loop:
    """The loop with its bar, its log and its checkpoints."""
    config = fit.config
    start = loop.begin(jax.tree.map(lambda array: array[None], made.trainable), made.hyper(), fit.mesh)
    done = folder.checkpoints.latest
    last = folder.checkpoints.restore(start) if done else start
    folder.keep_metrics(done)
    if done:
        console.print(f"going on after epoch {done}")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
        console=console,
    )
    board = Board(folder.path / "tensorboard", done)
    with bar, contextlib.closing(board), contextlib.closing(folder.checkpoints):
        task = bar.add_task(
            "compiling", total=config.train.epochs * fit.steps_per_epoch, completed=done * fit.steps_per_epoch, told=""
        )
        watch = _Watch(fit, folder, bar, task)
        for after, epoch in loop.run(fit, last, watch):
            last = after
            watch.check(epoch.number[0], fit.steps_per_epoch, epoch.val["loss"][0], "validation loss")
            # The checkpoint last: whatever ends the process before it, the epoch is trained and told once more.
            folder.add_metrics(epoch)
            board.add(epoch)
            folder.checkpoints.save(epoch.number[0], last)
            bar.console.print(_epoch_line(epoch), soft_wrap=True)
        bar.update(task, description="trained")
    return last


class _Watch:
    """Moves the bar at each step, and ends the run at a loss that isn't finite."""

    def __init__(self, fit: Fit, folder: RunFolder, bar: Progress, task: Any):
        self.fit, self.folder, self.bar, self.task = fit, folder, bar, task
        self.started, self.seen = time.perf_counter(), 0.0

    def __call__(self, epoch: int, number: int, sums: Sums) -> None:
        count = float(sums.samples[0])
        loss = float(sums.loss[0]) / count
        self.check(epoch, number, loss, "loss")
        now = time.perf_counter()
        if number == 1:  # the epoch's rate, without what was compiled or waited for before its first step
            self.started, self.seen = now, -count
        self.seen += count
        rate = self.seen / max(now - self.started, 1e-9)
        told = f"loss {loss:.3f}  Dice {float(sums.dice[0]) / count:.3f}  {rate:.0f} images/s"
        self.bar.update(self.task, advance=1, description=f"epoch {epoch}/{self.fit.config.train.epochs}", told=told)

    def check(self, epoch: int, number: int, loss: float, name: str) -> None:
        """Raises a UserError at a loss that isn't finite; the checkpoints are all from before it."""
        if math.isfinite(loss):
            return
        latest = self.folder.checkpoints.latest
        kept = f"the checkpoint of epoch {latest} is kept" if latest else "no epoch had been finished"
        raise UserError(
            f"the {name} is {loss} at step {number} of epoch {epoch}, with learning rate "
            f"{self.fit.config.optim.learning_rate:g}; {kept}. Try a lower --optim.learning-rate"
        )


def _epoch_line(epoch: loop.Epoch) -> str:
    return (
        f"epoch {epoch.number[0]:3d}  train loss {epoch.train['loss'][0]:.4f} Dice {epoch.train['dice'][0]:.4f}  "
        f"val loss {epoch.val['loss'][0]:.4f} Dice {epoch.val['dice'][0]:.4f}"
        f"{' *' if epoch.improved[0] else '  '}  {epoch.images / epoch.seconds:.0f} images/s"
    )


def _zero_shot(made: Experiment):
    network, params = made.zero_shot()
    return network, {}, params


def _score(
    network, trainable: Flat, frozen: Flat, made: Experiment, splits: Mapping[str, Split]
) -> dict[str, dict[str, float]]:
    """Means over every split but the training split."""
    scores = {}
    for name in _scored(splits):
        sums, _ = loop.evaluate(network, trainable, frozen, splits[name], made.hyper(), made.config.train.batch_size)
        scores[name] = {metric: values[0] for metric, values in metrics.means(sums).items()}
    return scores


def _save(
    made: Experiment,
    path: Path,
    last: Loop,
    learnt: Mapping[str, np.ndarray],
    splits: Mapping[str, Split],
    results: Results,
) -> None:
    data = {"name": made.config.data.name} | {name: split.records.fingerprint() for name, split in splits.items()}
    card = artefacts.card(made.config, made.pretrained.sha256, made.image_size, data)
    card |= {"best_epoch": int(last.progress.best_epoch[0]), "scores": results}
    artefacts.save_learnt(path, learnt, card)
    write_json(path / artefacts.RESULTS_FILE, results)


def _scored(splits: Mapping[str, Split]) -> list[str]:
    """The splits that results tell of."""
    return [name for name in splits if name != "train"]


def _table(config: Config, made: Experiment, splits: Mapping[str, Split], results: Results) -> Table:
    height, width = made.image_size
    table = Table(
        title=f"{type(config.learner).__name__} on {config.data.name}",
        caption=f"Dice: mean over records; IoU: one ratio over all pixels; {height}x{width} pixels, threshold 0.5",
    )
    table.add_column("")
    for name in _scored(splits):
        for metric in ("Dice", "IoU"):
            table.add_column(f"{name} {metric}\n({len(splits[name].records)} records)", justify="right")
    for row, scores in results.items():
        cells = [f"{scores[name][metric]:.4f}" for name in _scored(splits) for metric in ("dice", "iou")]
        table.add_row(row, *cells)
    return table


if __name__ == "__main__":
    command.run(main)
