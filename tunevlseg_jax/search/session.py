"""One hyperparameter search: trains what its study lacks, and writes its summary."""

from __future__ import annotations

from typing import Any

from tunevlseg_jax.runs.card import CARD_FILE
from tunevlseg_jax.search import repeats, summary
from tunevlseg_jax.search.worker import Worker


def run(worker: Worker) -> dict[str, Any]:
    """Trains what the study lacks, repeats its best trial, and scores on the test split; returns the summary."""
    worker.run()
    storage, options = worker.storage, worker.options
    best = summary.best_of(storage.finished(), storage)
    folders = {} if best is None else repeats.repeat(worker, best.number, options.seeds)
    everything = [worker.trial_folder(trial.number) for trial in storage.finished()] if options.test_all else []
    here = [folder for folder in everything if (folder / CARD_FILE).exists()]  # not on another machine
    repeats.score(worker, [*folders.values(), *here])
    return summary.write(worker.folder, worker.name, storage, best, repeats.details(folders))
