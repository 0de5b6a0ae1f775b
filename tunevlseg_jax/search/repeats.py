"""A whole search: its trials, repetitions of its best trial with other seeds or a changed field, and test scores."""

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tunevlseg_jax.config import Config
from tunevlseg_jax.runs.card import CARD_FILE, load_learnt, save_card
from tunevlseg_jax.runs.scores import score_splits
from tunevlseg_jax.runtime import exchange, locks, multihost, sharding
from tunevlseg_jax.runtime.files import read_json
from tunevlseg_jax.search import slots, summary
from tunevlseg_jax.search.slots import Slots
from tunevlseg_jax.search.worker import Worker
from tunevlseg_jax.training.split import Split

SEEDS, FOLDS = "seeds", "folds"
"""Folders of a study's best trial with other seeds, and on other folds."""


def search(worker: Worker) -> dict[str, Any]:
    """Trains the study's missing trials, repeats the best one, scores on the test split; returns the summary."""
    worker.run()
    best = exchange.from_primary(lambda: None if (trial := worker.storage.best()) is None else trial.number)
    folders = {} if best is None else repeat(worker, best, worker.options.seeds)
    trials = exchange.from_primary(lambda: _kept(worker)) if worker.options.test_all else []
    score(worker, [*folders.values(), *trials])
    return exchange.from_primary(lambda: _summary(worker, folders))


def _kept(worker: Worker) -> list[Path]:
    """The folders of the finished trials that are here; a trial of another machine has none."""
    folders = [worker.trial_folder(trial.number) for trial in worker.storage.finished()]
    return [folder for folder in folders if (folder / CARD_FILE).exists()]


def _summary(worker: Worker, folders: Mapping[int, Path]) -> dict[str, Any]:
    """Writes the summary; `folders` are those of the best trial and its repetitions, by seed."""
    scores = {seed: read_json(folder / CARD_FILE)["scores"]["tuned"] for seed, folder in folders.items()}
    runs = [{"seed": seed, "folder": str(folder)} | scores[seed] for seed, folder in folders.items()]
    return summary.write(worker.folder, worker.name, worker.storage, worker.storage.best(), runs)


def repeat(worker: Worker, best: int, seeds: int) -> dict[int, Path]:
    """Trains the best trial with the next seeds: initial values and dropout differ, the order of the records doesn't.

    Args:
      worker: of the study, whose search has ended.
      best: number of the best trial.
      seeds: number of runs, with the trial itself.

    Returns:
      The run folders by seed, first the trial's; none if another machine has the trial's folder.
    """
    first = worker.trial_folder(best)
    config = exchange.from_primary(lambda: load_learnt(first)[0] if (first / CARD_FILE).exists() else None)
    if config is None:
        return {}
    start = config.train.seed
    others = {seed: worker.folder / SEEDS / f"{best:03d}-{seed}" for seed in range(start + 1, start + seeds)}
    train(
        worker,
        {
            folder: dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
            for seed, folder in others.items()
        },
    )
    return {start: first} | others


def train(worker: Worker, runs: Mapping[Path, Config]) -> None:
    """Trains the missing runs, in parallel as far as they share a program and fit in memory.

    Args:
      worker: of the study with their model and data.
      runs: configurations by folder.
    """
    with _alone(worker):
        missing: dict[tuple[Config, int], list[Path]] = {}
        for folder in exchange.from_primary(lambda: [each for each in runs if not (each / CARD_FILE).exists()]):
            config = runs[folder]
            # Parallel runs share the order of the records, so theirs must begin at the same epoch.
            missing.setdefault((worker.program(config), config.train.order_skip), []).append(folder)
        for (program, _), folders in missing.items():
            while folders:
                batch = worker.slots(program, min(len(folders), worker.parallel))
                _train(worker, batch, {folder: runs[folder] for folder in folders[: batch.size]})
                del folders[: batch.size]


def score(worker: Worker, folders: Iterable[Path]) -> None:
    """Adds scores on the test split to the cards and results of the runs that lack them."""
    if worker.test is None:
        return
    with _alone(worker):
        waiting: dict[Config, list[_Run]] = {}
        for run in exchange.from_primary(
            lambda: [_Run(folder, *load_learnt(folder)) for folder in dict.fromkeys(folders)]
        ):
            if run.card["scores"] and "test" not in run.card["scores"]["tuned"]:
                waiting.setdefault(worker.program(run.config), []).append(run)
        for program, runs in waiting.items():
            size = worker.across(min(len(runs), worker.parallel))
            for start in range(0, len(runs), size):
                worker.listener.notify("scoring on the test split")
                _score(worker, worker.test, program, runs[start : start + size], size)


class _Run(NamedTuple):
    folder: Path
    config: Config
    learnt: Mapping[str, np.ndarray]
    card: dict[str, Any]


def _train(worker: Worker, batch: Slots, runs: Mapping[Path, Config]) -> None:
    """Trains runs of one program, at most one for each slot."""
    folders = list(runs)
    for number, folder in enumerate(folders):
        batch.put(number, runs[folder])
    before = batch.order
    while batch.free < batch.size:
        worker.listener.notify(f"training {batch.size - batch.free} more, epoch {batch.order - before + 1}")
        batch.train_epoch(lambda number, sums: None)
        for slot, run in enumerate(batch.runs):
            if run is not None and batch.has_ended(slot):
                batch.save(folders[run.number], slot, worker.data)
                batch.clear(slot)


def _score(worker: Worker, test: Split, program: Config, runs: Sequence[_Run], size: int) -> None:
    """Scores at most `size` runs of one program; the last run is repeated to fill it."""
    experiment = worker.experiment.with_config(program)
    filled = [*runs, *[runs[-1]] * (size - len(runs))]
    params = [slots.padded(run.learnt, experiment.trainable) for run in filled]
    hypers = [dataclasses.replace(experiment, config=run.config).hyper() for run in filled]
    trainable = {path: jnp.stack([each[path] for each in params]) for path in experiment.trainable}
    hyper = jax.tree.map(lambda *values: jnp.concatenate(values), *hypers)
    trainable, hyper = sharding.shard_trials((trainable, hyper), worker.resources.mesh)
    scores = score_splits(
        experiment.network, trainable, experiment.frozen, hyper, {"test": test}, program.train.batch_size
    )

    def save() -> None:
        for run, test_scores in zip(runs, scores, strict=False):
            save_card(run.folder, run.card | {"scores": {"tuned": run.card["scores"]["tuned"] | test_scores}})

    exchange.from_primary(save)


def _alone(worker: Worker) -> contextlib.AbstractContextManager[None]:
    """Lets one worker at a time repeat and score, since workers end at the same time."""
    if not multihost.is_primary():
        return contextlib.nullcontext()
    return locks.locked(worker.folder / "repeats.lock")
