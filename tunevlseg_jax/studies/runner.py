"""Runs the unfinished cells of a study."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.evaluation import evaluate_run
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.pretrained.load import find_checkpoint
from tunevlseg_jax.runs.card import CARD_FILE, load_learnt
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runs.run_folder import data_fingerprints, run_card, save_trial
from tunevlseg_jax.runs.scores import score_splits
from tunevlseg_jax.runs.trainer import train
from tunevlseg_jax.runtime import locks, sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json
from tunevlseg_jax.search import repeats, session, slots, trial_config
from tunevlseg_jax.search import summary as standing
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.worker import Worker, search_space
from tunevlseg_jax.studies.grid import GridCell, Study
from tunevlseg_jax.studies.progress import StudyDisplay, StudyProgress
from tunevlseg_jax.training.experiment import Experiment


def open_progress(study: Study) -> StudyProgress:
    """Checks a study, and opens the list of its finished cells.

    Raises:
      UserError: the folder holds another study, or a model or a data set is missing.
    """
    for combination in study.combinations:
        find_checkpoint(combination.config.model.checkpoint)
    for cell in study.cells():
        registry.splits(cell.config.data)
    return StudyProgress(Path(study.folder), study)


def run(study: Study, book: StudyProgress, console: Console) -> None:
    """Trains and evaluates what a study lacks.

    Raises:
      UserError: a search or an ablation can't be.
    """
    view = StudyDisplay(console, study, book)
    with view.live:
        _Work(study, Path(study.folder), book, view).run()
        view.end()


class _Work:
    """Runs each kind of cell; a model and a data set are loaded once for all cells that need them."""

    def __init__(self, study: Study, folder: Path, book: StudyProgress, view: StudyDisplay):
        self.study, self.folder, self.book, self.view = study, folder, book, view
        self.models: dict[Any, Resources] = {}

    def run(self) -> None:
        """Every cell that isn't finished."""
        self._check_spaces()
        kinds = {"zero-shot": self._as_it_is, "fine-tuned": self._fine_tuned, "searched": self._searched}
        for data in self.study.data:
            for combination in self.study.combinations:
                own = [cell for cell in self.study.cells() if (cell.data, cell.combination) == (data, combination)]
                if not all(map(self.book.has, own)):
                    kinds[combination.kind](own)
            for resources in self.models.values():
                resources.forget_training()

    def _check_spaces(self) -> None:
        """Raises a UserError where a search that isn't finished, or an ablation, can't be, before the first cell."""
        unfinished = [cell for cell in self.study.cells() if not self.book.has(cell)]
        searched = {cell.combination: cell for cell in unfinished if cell.combination.kind == "searched"}
        for cell in searched.values():
            options = self.study.options(cell)
            experiment, space = search_space(options, cell.config, self._shared(cell.config))
            first = trial_config.apply(cell.config, space, Sampler(space, options.sampler_seed).start_up[0])
            for ablation in self.study.ablations:
                if ablation.applies(cell.combination):
                    trial_config.check_fit(ablation.of(first), experiment, f"the ablation {ablation.name!r}")

    def _as_it_is(self, cells: Sequence[GridCell]) -> None:
        """The model without any training, as a run folder."""
        (cell,) = cells
        with self._making(cell) as runs:
            folder = self.folder / cell.folder
            config = dataclasses.replace(cell.config, workdir=str(folder))
            resources = self._shared(config)
            experiment = resources.experiment(config)
            splits = resources.splits(experiment)
            # As many times over as the devices' trial axis asks for.
            _, hyper = experiment.for_trials(resources.mesh.shape[sharding.TRIAL])
            hyper = sharding.shard_trials(hyper, resources.mesh)
            scores = score_splits(experiment.network, {}, experiment.frozen, hyper, splits, config.train.batch_size)[0]
            card = run_card(experiment, config, data_fingerprints(cell.data, splits), 0, {"tuned": scores})
            save_trial(folder, config, [], {}, card)
            self._evaluate(cell, resources, experiment, {}, folder)
            runs.append(folder)

    def _fine_tuned(self, cells: Sequence[GridCell]) -> None:
        """A baseline, by `train`."""
        (cell,) = cells
        with self._making(cell) as runs:
            folder = self.folder / cell.folder
            config = dataclasses.replace(cell.config, workdir=str(folder))
            if not (folder / CARD_FILE).exists():
                self.view.tell("training")
                train(config, Console(quiet=True))
            experiment, learnt = restore(folder)
            frozen = dataclasses.replace(config, train=dataclasses.replace(config.train, tune="prompts"))
            self._evaluate(cell, self._shared(frozen), experiment, learnt, folder)
            runs.append(folder)

    def _searched(self, cells: Sequence[GridCell]) -> None:
        """A search, and the ablations of its best trial."""
        options, folder, name = self.study.options(cells[0]), self.folder / cells[0].folder, str(cells[0].folder)
        resources = self._shared(cells[0].config)
        self.view.begin(cells[0])
        ablated = [cell.ablation.of for cell in cells if cell.ablation is not None]
        worker = Worker(options, name, folder, cells[0].config, resources, self.view, ablated)
        with contextlib.closing(worker):
            for cell in cells:
                if not self.book.has(cell):
                    with self._making(cell) as runs:
                        if cell.ablation is None:
                            runs += self._search(worker)
                        else:
                            runs += self._ablate(worker, cell)
                        for run in runs:
                            self._evaluate_searched(cell, resources, worker, run)

    def _search(self, worker: Worker) -> list[Path]:
        best = session.run(worker)["best"]
        return [] if best is None else [Path(one["folder"]) for one in best["runs"]]

    def _ablate(self, worker: Worker, cell: GridCell) -> list[Path]:
        """The best trial and its repetitions again, with the ablation's field changed."""
        assert cell.ablation is not None
        best = standing.best_of(worker.storage.finished(), worker.storage)
        if best is None:
            return []
        runs = {}
        for seed, folder in repeats.repeat(worker, best.number, worker.options.seeds).items():
            config, _, _ = load_learnt(folder)
            runs[self.folder / cell.folder / str(seed)] = cell.ablation.of(config)
        repeats.train(worker, runs)
        repeats.score(worker, runs)
        return list(runs)

    def _evaluate_searched(self, cell: GridCell, resources: Resources, worker: Worker, run: Path) -> None:
        """As `_evaluate`, in the program of the search's trials, which serves them all."""
        config, learnt, _ = load_learnt(run)
        experiment = worker.experiment.with_config(worker.program(config))
        padded = slots.padded(learnt, experiment.trainable)
        self._evaluate(cell, resources, dataclasses.replace(experiment, config=config), padded, run)

    def _evaluate(
        self, cell: GridCell, resources: Resources, experiment: Experiment, learnt: FlatParams, run: Path
    ) -> None:
        """Scores a run record by record, on its own data set and across."""
        for data in self.study.tested(cell):
            self.view.tell(f"evaluating on {data.name}")
            part = "test" if "test" in registry.splits(data) else "val"
            split = resources.split(experiment, part, data)
            evaluate_run.evaluate(experiment, learnt, split, data, run=str(run), folder=run / evaluate_run.FOLDER)

    def _shared(self, config: Config) -> Resources:
        key = config.model, config.train
        if key not in self.models:
            self.view.tell(f"loading {config.model.checkpoint}")
            self.models[key] = Resources(config, self.study.search.at_once, self.study.search.scratch)
        return self.models[key]

    @contextlib.contextmanager
    def _making(self, cell: GridCell) -> Iterator[list[Path]]:
        """Times the block, which fills the list with the runs that represent the cell; then stores the cell."""
        started = time.perf_counter()
        self.view.begin(cell)
        runs: list[Path] = []
        yield runs
        seconds = time.perf_counter() - started
        self.book.add(cell, runs, seconds)
        self.view.done(cell, [read_json(run / CARD_FILE)["scores"]["tuned"] for run in runs], seconds)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lets one process at a time work on a study.

    Raises:
      UserError: another process works on it.
    """
    try:
        held = locks.hold(folder / "study.lock")
    except BlockingIOError:
        raise UserError(f"another process works on {folder}", "folder-in-use") from None
    with held:
        yield
