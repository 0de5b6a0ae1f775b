"""Trains one run, in its folder."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tunevlseg_jax.config import Config, Precision
from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.learners.base import ContextLearner
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.products import TRANSPOSED
from tunevlseg_jax.network import Network
from tunevlseg_jax.runs import history
from tunevlseg_jax.runs.card import save_learnt, stored_command
from tunevlseg_jax.runs.provenance import of_splits
from tunevlseg_jax.runs.run_folder import RunFolder, check_folder, lock, metrics_line, run_card
from tunevlseg_jax.runs.scores import SplitScores, score_splits, scored_splits
from tunevlseg_jax.runs.start import first_params
from tunevlseg_jax.runtime import multihost, sharding
from tunevlseg_jax.runtime.errors import EverywhereError
from tunevlseg_jax.runtime.signals import Interrupted, Interruptions
from tunevlseg_jax.training import loop
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import Epoch, LoopState, TrainSetup
from tunevlseg_jax.training.metrics import Sums
from tunevlseg_jax.training.split import Split

GOES_ON = "the same command goes on"
Results = dict[str, SplitScores]
"""Scores by row ("zero-shot", "tuned"), split and metric."""


def train(
    config: Config,
    console: Console,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    command: str | None = None,
    *,
    force_data: bool = False,
) -> Results:
    """Trains one run in its folder, or resumes an earlier call.

    Args:
      config: of the run.
      console: to print on.
      on_epoch: called after each epoch with its line of metrics.jsonl.
      command: the command line that asked for the run, for its card; None where there was none.
      force_data: whether to resume although the data has changed, which the card then says.

    Raises:
      UserError: the configuration is invalid, the data of the run has changed, another process trains in the folder,
        or a loss is not finite.
    """
    with contextlib.ExitStack() as held:
        return _train_alone(config, console, on_epoch, command, force_data, held)


def _train_alone(
    config: Config,
    console: Console,
    on_epoch: Callable[[dict[str, Any]], None] | None,
    command: str | None,
    force_data: bool,
    held: contextlib.ExitStack,
) -> Results:
    """As `train`; `held` keeps the folder's lock."""
    mesh = sharding.mesh()
    with multihost.sync_errors():
        check_folder(config)  # also later, when it is locked: to load a model and data takes time
        kept = history.kept_precision(Path(config.workdir)) if multihost.is_primary() else None
    kept = _of_all_processes(kept)
    with multihost.sync_errors():
        experiment = build_experiment(config, kept=kept).on_mesh(mesh)
        cache = experiment.feature_cache(mesh)
        splits = experiment.splits(cache)
        setup = experiment.train_setup(splits, cache)
        held.enter_context(lock(config, console.print))
        folder = RunFolder(config, of_splits(config.data.name, splits), force_data=force_data)
        if multihost.is_primary() and config.train.precision == "auto":
            history.keep_precision(folder.path, experiment.computed)
    _introduce(experiment, setup, console)
    if note := setup.features_note(split for name, split in splits.items() if name == "test"):
        console.print(note, soft_wrap=True)
    with Interruptions(mesh) as interruptions:
        last = _train(experiment, setup, folder, interruptions.check, console, on_epoch)
        hyper = sharding.replicate(experiment.hyper(), mesh)
        models = {
            "zero-shot": _zero_shot(experiment, mesh),
            "tuned": (experiment.network, last.best, experiment.frozen),
        }
        results = {
            row: score_splits(*model, hyper, splits, config.train.batch_size, interruptions.check)[0]
            for row, model in models.items()
        }
    if multihost.is_primary():
        _save(experiment, folder, last, results, command or stored_command(folder.path))
    console.print(_table(config, experiment, splits, results))
    console.print(f"run folder: {folder.path}", soft_wrap=True)
    return results


def _of_all_processes(kept: Precision | None) -> Precision | None:
    """The first process's precision, for it alone reads the run folder."""
    choices: tuple[Precision | None, ...] = (None, "float32", "bfloat16")
    return choices[int(multihost.broadcast_from_primary(np.int32(choices.index(kept))))]


def _introduce(experiment: Experiment, setup: TrainSetup, console: Console) -> None:
    config = experiment.config
    negatives = config.data.negatives
    trainable = sum(array.size for array in experiment.trainable.values())
    frozen = sum(array.size for path, array in experiment.frozen.items() if not path.endswith(TRANSPOSED))
    device = jax.devices()[0]
    console.print(
        f"{config.learner.name} on {config.model.checkpoint} for {config.data.name}: "
        f"{trainable:,} parameters train, {frozen:,} are frozen; {len(setup.train.records)} training records"
        f"{f', {negatives:.0%} of a batch ask for something absent' if negatives else ''}; "
        f"{setup.mesh.size} {device.platform} device{'s' if setup.mesh.size > 1 else ''}"
        f"{f' in {jax.process_count()} processes' if multihost.is_multiprocess() else ''}, "
        f"computed in {experiment.computed}",
        soft_wrap=True,
    )
    live = experiment.spec.effective_vision_prompts
    for start, part in config.learner.parts.items():
        depth, _ = part.traced_values()
        field, depth = ("depth", depth) if isinstance(depth, int) else ("vision_depth", depth[-1])
        if isinstance(part, ContextLearner) and "vision" in part.changes and depth > live:
            console.print(
                f"note: learner.{start}{field} is {depth}, but only the first {live} visual prompts reach the mask; "
                "the others change nothing",
                soft_wrap=True,
            )


def _train(
    experiment: Experiment,
    setup: TrainSetup,
    folder: RunFolder,
    check: Callable[[], None],
    console: Console,
    on_epoch: Callable[[dict[str, Any]], None] | None,
) -> LoopState:
    """The training loop with its progress bar, logs and checkpoints."""
    first = {name: array[None] for name, array in first_params(experiment, folder).items()}
    last = folder.checkpoints.restore(loop.begin(first, experiment.hyper(), setup.mesh, averaged=setup.averaged))
    done = _steps_done(setup, last)
    if done:
        console.print(f"going on after {_position(last)}")
    if last.progress.stopped.all() and last.epoch[0] < setup.config.train.epochs:
        console.print(f"it stopped early, {setup.config.train.patience} epochs after its lowest validation loss")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[message]}"),
        TimeRemainingColumn(),
        console=console,
    )
    batching.import_library()
    with bar, contextlib.closing(folder):
        folder.begin_logs(int(last.epoch[0]))
        task = bar.add_task(
            "compiling", total=setup.config.train.epochs * setup.steps_per_epoch, completed=done, message=""
        )
        watch = _Watch(setup, folder, bar, task)
        for after, epoch in loop.run(setup, last, watch, check):
            last = after
            if isinstance(epoch, Interrupted):
                watch.check(int(last.epoch[0]) + 1, int(last.steps), float(np.asarray(last.sums.loss)[0]), "loss")
                folder.checkpoints.save(_steps_done(setup, last), last)
                raise Interrupted(epoch.number, f"{_position(last)} is saved, and {GOES_ON} from there")
            watch.check(epoch.number[0], setup.steps_per_epoch, epoch.val["loss"][0], "validation loss")
            # The checkpoint last: if the process ends before it, the epoch is trained and logged again.
            folder.log(epoch)
            folder.checkpoints.save(_steps_done(setup, last), last)
            bar.console.print(_epoch_line(epoch), soft_wrap=True)
            if on_epoch is not None:
                on_epoch(metrics_line(epoch, 0))
        bar.update(task, description="trained")
    return last


def _steps_done(setup: TrainSetup, last: LoopState) -> int:
    """Steps of all epochs so far."""
    return int(last.epoch[0]) * setup.steps_per_epoch + int(last.steps)


def _position(last: LoopState) -> str:
    """The position of a run, in words."""
    epochs = int(last.epoch[0])
    return f"step {last.steps} of epoch {epochs + 1}" if last.steps else f"epoch {epochs}"


class _Watch:
    """Advances the bar at each step, and ends the run at a loss that is not finite."""

    def __init__(self, setup: TrainSetup, folder: RunFolder, bar: Progress, task: Any):
        self.setup, self.folder, self.bar, self.task = setup, folder, bar, task
        self.epoch, self.started, self.seen = 0, 0.0, 0.0

    def __call__(self, epoch: int, number: int, sums: Sums) -> None:
        count, loss, dice = (float(np.asarray(values)[0]) for values in (sums.samples, sums.loss, sums.dice))
        self.check(epoch, number, loss / count, "loss")
        now = time.perf_counter()
        if epoch != self.epoch:  # the rate leaves out compilation and waiting before the first step of an epoch
            self.epoch, self.started, self.seen = epoch, now, -count
        self.seen += count
        rate = self.seen / max(now - self.started, 1e-9)
        message = f"loss {loss / count:.3f}  Dice {dice / count:.3f}  {rate:.0f} images/s"
        self.bar.update(
            self.task, advance=1, description=f"epoch {epoch}/{self.setup.config.train.epochs}", message=message
        )

    def check(self, epoch: int, number: int, loss: float, name: str) -> None:
        """Raises an error at a loss that is not finite; all checkpoints are from before it."""
        if math.isfinite(loss):
            return
        kept = self.folder.checkpoints.kept or "there is no checkpoint yet"
        raise EverywhereError(
            f"the {name} is {loss} at step {number} of epoch {epoch}, with learning rate "
            f"{self.setup.config.optim.learning_rate:g}; {kept}. Try a lower --optim.learning-rate",
            "not-finite",
        )


def _epoch_line(epoch: Epoch) -> str:
    return (
        f"epoch {epoch.number[0]:3d}  train loss {epoch.train['loss'][0]:.4f} Dice {epoch.train['dice'][0]:.4f}  "
        f"val loss {epoch.val['loss'][0]:.4f} Dice {epoch.val['dice'][0]:.4f}"
        f"{' *' if epoch.improved[0] else '  '}  {epoch.images / epoch.seconds:.0f} images/s"
    )


def _zero_shot(experiment: Experiment, mesh: Mesh) -> tuple[Network, FlatParams, FlatParams]:
    network, params = experiment.zero_shot()
    tuned = {path: array for path, array in params.items() if path in experiment.trainable}
    return network, {}, params | sharding.replicate(tuned, mesh)


def _save(
    experiment: Experiment,
    folder: RunFolder,
    last: LoopState,
    results: Results,
    command: str | None,
) -> None:
    learnt = {path: np.asarray(array)[0] for path, array in last.best.items()}
    data, earlier = folder.data.data, folder.data.earlier
    epochs, best_epoch = int(last.epoch[0]), int(last.progress.best_epoch[0])
    card = run_card(experiment, experiment.config, data, epochs=epochs, best_epoch=best_epoch, scores=results)
    card |= ({"earlier_data": list(earlier)} if earlier else {}) | history.read(folder.path).for_card()
    save_learnt(folder.path, learnt, card if command is None else card | {"command": command})


def _table(config: Config, experiment: Experiment, splits: Mapping[str, Split], results: Results) -> Table:
    height, width = experiment.image_size
    table = Table(
        title=f"{config.learner.name} on {config.data.name}",
        caption=f"Dice: mean over records; IoU: one ratio over all pixels; {height}x{width} pixels, threshold 0.5",
    )
    table.add_column("")
    for name in scored_splits(splits):
        for metric in ("Dice", "IoU"):
            table.add_column(f"{name} {metric}\n({len(splits[name].records)} records)", justify="right")
    for row, scores in results.items():
        cells = [f"{scores[name][metric]:.4f}" for name in scored_splits(splits) for metric in ("dice", "iou")]
        table.add_row(row, *cells)
    return table
