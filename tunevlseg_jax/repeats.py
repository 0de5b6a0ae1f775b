"""The best trial again with other seeds, and all of them scored on the test split."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tunevlseg_jax import artefacts, locks, loop, metrics, search, slots
from tunevlseg_jax.config import Config
from tunevlseg_jax.files import read_json, write_json
from tunevlseg_jax.loop import Split
from tunevlseg_jax.sweeper import Sweeper

SEEDS = "seeds"


def repeat(sweeper: Sweeper, best: int, seeds: int, splits: dict[str, Split]) -> list[dict[str, Any]]:
    """Trains the best trial with the seeds that follow its own, and scores all of them.

    Initial values and dropout differ between them; the order of the records is the same.

    Args:
      sweeper: of the study, whose search has ended.
      best: number of the best trial.
      seeds: how many runs there are to be, the trial itself among them.
      splits: "val" and "test".

    Returns:
      For each run its `seed`, its `folder` and its scores by split and metric; empty where another machine keeps
      the best trial's folder.
    """
    first = sweeper.folder / "trials" / f"{best:03d}"
    if not (first / artefacts.CARD_FILE).exists():
        return []
    config, _, _ = artefacts.load_learnt(first)
    own = config.train.seed
    others = range(own + 1, own + seeds)
    folders = {own: first} | {seed: sweeper.folder / SEEDS / f"{best:03d}-{seed}" for seed in others}
    with locks.locked(sweeper.folder / "seeds.lock"):  # several workers end together, and one of them does this
        missing = [seed for seed, folder in folders.items() if not (folder / artefacts.CARD_FILE).exists()]
        _train(sweeper, config, {seed: folders[seed] for seed in missing})
        return _score(sweeper, folders, splits)


def _train(sweeper: Sweeper, config: Config, folders: dict[int, Path]) -> None:
    """One run for each seed, side by side as far as they fit."""
    program = search.program(sweeper.config, config, sweeper.space)
    waiting = list(folders)
    while waiting:
        batch = sweeper.slots(program, min(len(waiting), sweeper.parallel))
        for seed in waiting[: batch.size]:
            batch.put(seed, dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed)))
        del waiting[: batch.size]
        while batch.free < batch.size:
            sweeper.tell(f"repeating with {batch.size - batch.free} other seeds, epoch {batch.order + 1}")
            batch.advance(lambda number, sums: None)
            for slot, run in enumerate(batch.runs):
                if run is not None and batch.has_ended(slot):
                    sweeper.write(folders[run.number], batch, slot, run, int(batch.loop.progress.best_epoch[slot]))
                    batch.take(slot)


def _score(sweeper: Sweeper, folders: dict[int, Path], splits: dict[str, Split]) -> list[dict[str, Any]]:
    """Every run on validation and test, and the scores into its folder."""
    sweeper.tell("scoring the best trial on the test split")
    runs = [(folder, *artefacts.load_learnt(folder)) for folder in folders.values()]
    made = sweeper.made.another(search.program(sweeper.config, runs[0][1], sweeper.space))
    params = [slots.padded(learnt, made.trainable) for _, _, learnt, _ in runs]
    hypers = [dataclasses.replace(made, config=config).hyper() for _, config, _, _ in runs]
    trainable = {path: jnp.stack([each[path] for each in params]) for path in made.trainable}
    hyper = jax.tree.map(lambda *values: jnp.concatenate(values), *hypers)
    size = made.config.train.batch_size
    scores = {}
    for name, split in splits.items():
        sums, _ = loop.evaluate(made.network, trainable, sweeper.fit.frozen, split, hyper, size)
        scores[name] = metrics.means(sums)
    told = []
    for place, (folder, config, _, _) in enumerate(runs):
        own = {name: {metric: values[place] for metric, values in means.items()} for name, means in scores.items()}
        card = read_json(folder / artefacts.CARD_FILE)
        write_json(folder / artefacts.RESULTS_FILE, {"tuned": own})
        write_json(folder / artefacts.CARD_FILE, card | {"scores": {"tuned": own}})
        told.append({"seed": config.train.seed, "folder": str(folder)} | own)
    return told
