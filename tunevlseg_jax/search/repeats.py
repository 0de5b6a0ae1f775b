"""Repeats the best trial of a study with other seeds or a changed field, and scores runs on the test split."""

from __future__ import annotations

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
from tunevlseg_jax.runtime import locks, sharding
from tunevlseg_jax.runtime.files import read_json
from tunevlseg_jax.search import slots
from tunevlseg_jax.search.slots import Slots
from tunevlseg_jax.search.worker import Worker
from tunevlseg_jax.training.split import Split

SEEDS = "seeds"


def repeat(worker: Worker, best: int, seeds: int) -> dict[int, Path]:
    """Trains the best trial with the seeds that follow its own.

    Initial values and dropout differ between them; the order of the records is the same.

    Args:
      worker: of the study, whose search has ended.
      best: number of the best trial.
      seeds: how many runs there are to be, the trial itself among them.

    Returns:
      The run folders by seed, the trial's first; none where another machine keeps that.
    """
    first = worker.trial_folder(best)
    if not (first / CARD_FILE).exists():
        return {}
    config, _, _ = load_learnt(first)
    own = config.train.seed
    others = {seed: worker.folder / SEEDS / f"{best:03d}-{seed}" for seed in range(own + 1, own + seeds)}
    train(worker, {folder: _with_seed(config, seed) for seed, folder in others.items()})
    return {own: first} | others


def train(worker: Worker, runs: Mapping[Path, Config]) -> None:
    """Trains what is missing of some runs, side by side as far as they share a program and fit.

    Args:
      worker: of the study whose model and data they are.
      runs: their configurations by folder.
    """
    with _alone(worker):
        missing: dict[tuple[Config, int], list[Path]] = {}
        for folder, config in runs.items():
            if not (folder / CARD_FILE).exists():
                # Side by side they share the order of the records, which each is to have as its configuration says.
                missing.setdefault((worker.program(config), config.train.order_skip), []).append(folder)
        for (program, _), folders in missing.items():
            while folders:
                batch = worker.slots(program, min(len(folders), worker.parallel))
                _train(worker, batch, {folder: runs[folder] for folder in folders[: batch.size]})
                del folders[: batch.size]


def score(worker: Worker, folders: Iterable[Path]) -> None:
    """Puts the scores on the test split into the cards and results of runs that have none yet."""
    if worker.test is None:
        return
    with _alone(worker):
        waiting: dict[Config, list[_Run]] = {}
        for folder in dict.fromkeys(folders):
            config, learnt, card = load_learnt(folder)
            if card["scores"] and "test" not in card["scores"]["tuned"]:
                waiting.setdefault(worker.program(config), []).append(_Run(folder, config, learnt, card))
        for program, runs in waiting.items():
            size = worker.across(min(len(runs), worker.parallel))
            for start in range(0, len(runs), size):
                worker.listener.tell("scoring on the test split")
                _score(worker, worker.test, program, runs[start : start + size], size)


def details(folders: Mapping[int, Path]) -> list[dict[str, Any]]:
    """For each run, by seed, its `seed`, its `folder` and its scores by split and metric."""
    cards = {seed: read_json(folder / CARD_FILE) for seed, folder in folders.items()}
    return [{"seed": seed, "folder": str(folder)} | cards[seed]["scores"]["tuned"] for seed, folder in folders.items()]


class _Run(NamedTuple):
    folder: Path
    config: Config
    learnt: Mapping[str, np.ndarray]
    card: dict[str, Any]


def _train(worker: Worker, batch: Slots, runs: Mapping[Path, Config]) -> None:
    """Runs of one program, no more than there are slots."""
    folders = list(runs)
    for number, folder in enumerate(folders):
        batch.put(number, runs[folder])
    before = batch.order
    while batch.free < batch.size:
        worker.listener.tell(f"training {batch.size - batch.free} more, epoch {batch.order - before + 1}")
        batch.advance(lambda number, sums: None)
        for slot, run in enumerate(batch.runs):
            if run is not None and batch.has_ended(slot):
                batch.save(folders[run.number], slot, worker.data)
                batch.take(slot)


def _score(worker: Worker, test: Split, program: Config, runs: Sequence[_Run], size: int) -> None:
    """Runs of one program, `size` at most: the last run is repeated to fill the compiled program."""
    made = worker.experiment.with_config(program)
    filled = [*runs, *[runs[-1]] * (size - len(runs))]
    params = [slots.padded(run.learnt, made.trainable) for run in filled]
    hypers = [dataclasses.replace(made, config=run.config).hyper() for run in filled]
    trainable = {path: jnp.stack([each[path] for each in params]) for path in made.trainable}
    hyper = jax.tree.map(lambda *values: jnp.concatenate(values), *hypers)
    trainable, hyper = sharding.shard_trials((trainable, hyper), worker.resources.mesh)
    scores = score_splits(made.network, trainable, made.frozen, hyper, {"test": test}, program.train.batch_size)
    for run, test_scores in zip(runs, scores, strict=False):
        save_card(run.folder, run.card | {"scores": {"tuned": run.card["scores"]["tuned"] | test_scores}})


def _alone(worker: Worker) -> contextlib.AbstractContextManager[None]:
    """A lock: workers end at the same time, and one at a time repeats and scores."""
    return locks.locked(worker.folder / "repeats.lock")


def _with_seed(config: Config, seed: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
