"""Runs the unfinished cells of a study."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.evaluation import evaluate_run
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.pretrained.load import find_checkpoint
from tunevlseg_jax.runs import history
from tunevlseg_jax.runs.card import CARD_FILE, load_learnt
from tunevlseg_jax.runs.provenance import data_fingerprints
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runs.run_folder import run_card, save_trial
from tunevlseg_jax.runs.scores import score_splits
from tunevlseg_jax.runs.trainer import train
from tunevlseg_jax.runtime import locks, sharding
from tunevlseg_jax.runtime.files import read_json
from tunevlseg_jax.search import repeats, slots, trial_config
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.worker import Worker, search_space
from tunevlseg_jax.studies import stored_data
from tunevlseg_jax.studies.grid import Ablation, GridCell, Study
from tunevlseg_jax.studies.progress import STUDY_FILE, StudyDisplay, StudyProgress
from tunevlseg_jax.training.experiment import Experiment


@contextlib.contextmanager
def open_progress(study: Study) -> Iterator[StudyProgress]:
    """Opens the list of a study's finished cells for one process at a time.

    Raises:
      UserError: a model or a data set is missing, the folder holds another study, another process works on it, or a
        data set has changed since cells were trained on it.
    """
    for combination in study.combinations:
        find_checkpoint(combination.config.model.checkpoint)
    for cell in study.cells():
        registry.splits(cell.config.data)
        for fold in cell.folds:
            registry.check_fold(dataclasses.replace(cell.config.data, fold=fold))
        if not (Path(study.folder) / STUDY_FILE).exists():
            registry.check_prompt_kind(cell.config.data)
    progress = StudyProgress(Path(study.folder), study)
    with locks.owned(progress.folder / "study.lock", f"works on {progress.folder}"):
        stored_data.check(study, progress)
        yield progress


def run(study: Study, progress: StudyProgress, console: Console) -> None:
    """Trains and evaluates the unfinished cells of a study.

    Raises:
      UserError: a search or an ablation is invalid.
    """
    display = StudyDisplay(console, study, progress)
    batching.import_library()
    with display.live:
        _Work(study, progress, display).run()
        display.end()


def on_fold(config: Config, fold: int) -> Config:
    """The configuration of the same run on another fold."""
    return dataclasses.replace(config, data=dataclasses.replace(config.data, fold=fold))


def with_seed(config: Config, seed: int) -> Config:
    """The configuration of the same run with another seed."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))


class _Work:
    """Runs each kind of cell; a model and a data set are loaded once for all cells that need them."""

    def __init__(self, study: Study, progress: StudyProgress, display: StudyDisplay):
        self.study, self.folder, self.progress, self.display = study, progress.folder, progress, display
        self.models: dict[Any, Resources] = {}

    def run(self) -> None:
        """Runs every cell that isn't finished."""
        self._check_spaces()
        kinds = {"zero-shot": self._zero_shot, "fine-tuned": self._fine_tuned, "searched": self._searched}
        for data in self.study.data:
            for combination in self.study.combinations:
                cells = [cell for cell in self.study.cells() if (cell.data, cell.combination) == (data, combination)]
                if not all(map(self.progress.has, cells)):
                    kinds[combination.kind](cells)
            for resources in self.models.values():
                resources.cache.evict_all_but("test")

    def _check_spaces(self) -> None:
        """Raises a UserError before the first cell where an unfinished search, or an ablation, is invalid."""
        unfinished = [cell for cell in self.study.cells() if not self.progress.has(cell)]
        searched = {cell.combination: cell for cell in unfinished if cell.combination.kind == "searched"}
        for cell in searched.values():
            options = self.study.options(cell)
            experiment, space = search_space(options, cell.config, self._resources(cell.config))
            first = trial_config.apply(cell.config, space, Sampler(space, options.sampler_seed).start_up[0])
            for ablation in self.study.ablations:
                if ablation.applies(cell.combination):
                    trial_config.check_fit(ablation.of(first), experiment, f"the ablation {ablation.name!r}")

    def _zero_shot(self, cells: Sequence[GridCell]) -> None:
        """Scores the model without any training, as a run folder."""
        (cell,) = cells
        with self._recorded(cell) as runs:
            folder = self.folder / cell.folder
            config = dataclasses.replace(cell.config, workdir=str(folder))
            resources = self._resources(config)
            experiment = resources.experiment(config)
            splits = experiment.splits(resources.cache)
            # As many times over as the devices' trial axis asks for.
            _, hyper = experiment.for_trials(resources.mesh.shape[sharding.TRIAL])
            hyper = sharding.shard_trials(hyper, resources.mesh)
            scores = score_splits(experiment.network, {}, experiment.frozen, hyper, splits, config.train.batch_size)[0]
            data = data_fingerprints(cell.data, splits)
            card = run_card(experiment, config, data, epochs=0, best_epoch=0, scores={"tuned": scores})
            save_trial(folder, config, [], {}, card)
            self._evaluate(cell, resources, experiment, {}, folder)
            runs.append(folder)

    def _fine_tuned(self, cells: Sequence[GridCell]) -> None:
        """Trains a baseline, by `train`, on each fold and with each seed."""
        (cell,) = cells
        frozen = dataclasses.replace(cell.config, train=dataclasses.replace(cell.config.train, tune="prompts"))
        with self._recorded(cell) as runs:
            for folder, config in self._repetitions(cell).items():
                self._train(folder, config)
                self._evaluate(cell, self._resources(frozen), *restore(folder), folder)
                runs.append(folder)

    def _repetitions(self, cell: GridCell) -> dict[Path, Config]:
        """The configurations of a baseline's runs by folder: each fold, and in its folder each further seed."""
        folder, first = self.folder / cell.folder, cell.config.train.seed
        folds = {folder / f"fold-{fold}": on_fold(cell.config, fold) for fold in cell.folds} or {folder: cell.config}
        return {
            each if seed == first else each / f"seed-{seed}": with_seed(config, seed)
            for each, config in folds.items()
            for seed in range(first, first + self.study.search.seeds)
        }

    def _train(self, folder: Path, config: Config) -> None:
        """Trains a run by `train`, unless it is finished."""
        if not (folder / CARD_FILE).exists():
            self.display.notify(_activity(config))
            train(dataclasses.replace(config, workdir=str(folder)), Console(quiet=True))

    def _searched(self, cells: Sequence[GridCell]) -> None:
        """Runs a search, and the ablations of its best trial."""
        options, folder, name = self.study.options(cells[0]), self.folder / cells[0].folder, str(cells[0].folder)
        resources = self._resources(cells[0].config)
        self.display.begin(cells[0])
        ablated = [cell.ablation.of for cell in cells if cell.ablation is not None]
        worker = Worker(options, name, folder, cells[0].config, resources, self.display, ablated)
        with contextlib.closing(worker):
            for cell in cells:
                if self.progress.has(cell):
                    continue
                with self._recorded(cell) as runs:
                    if cell.ablation is not None:
                        runs += self._ablate(worker, cell, cell.ablation)
                    elif (best := repeats.search(worker)["best"]) is not None:
                        runs += [Path(run["folder"]) for run in best["runs"]]
                    runs += self._on_other_folds(cell, runs)
                    for run in runs:
                        self._evaluate_searched(cell, resources, worker, run)

    def _ablate(self, worker: Worker, cell: GridCell, ablation: Ablation) -> list[Path]:
        """Trains the best trial and its repetitions again, with the ablation's field changed."""
        best = worker.storage.best()
        if best is None:
            return []
        runs = {}
        for seed, folder in repeats.repeat(worker, best.number, worker.options.seeds).items():
            config, _, _ = load_learnt(folder)
            runs[self.folder / cell.folder / str(seed)] = ablation.of(config)
        repeats.train(worker, runs)
        repeats.score(worker, runs)
        return list(runs)

    def _on_other_folds(self, cell: GridCell, runs: Sequence[Path]) -> list[Path]:
        """Trains the runs on the first fold again on each of the others."""
        trained = []
        for fold in cell.folds[1:]:
            for run in runs:
                config, _, _ = load_learnt(run)
                seed = config.train.seed
                if cell.ablation is None:
                    best = run.name.partition("-")[0]
                    folder = self.folder / cell.folder / repeats.FOLDS / f"{best}-{fold}-{seed}"
                else:
                    folder = self.folder / cell.folder / f"{fold}-{seed}"
                self._train(folder, on_fold(config, fold))
                trained.append(folder)
        return trained

    def _evaluate_searched(self, cell: GridCell, resources: Resources, worker: Worker, run: Path) -> None:
        """As `_evaluate`, in the program of the search's trials, which serves them all."""
        config, learnt, _ = load_learnt(run)
        experiment = worker.experiment.with_config(worker.program(config))
        padded = slots.padded(learnt, experiment.trainable)
        self._evaluate(cell, resources, dataclasses.replace(experiment, config=config), padded, run)

    def _evaluate(
        self, cell: GridCell, resources: Resources, experiment: Experiment, learnt: FlatParams, run: Path
    ) -> None:
        """Scores a run record by record, on its data set and across."""
        for data in self.study.tested(cell):
            self.display.notify(f"evaluating on {data.name}")
            part = "test" if "test" in registry.splits(data) else "val"
            if part == "val" and data.fold is not None:  # the test split is the same for all folds
                data = dataclasses.replace(data, fold=experiment.config.data.fold)
            split = experiment.split(part, data, cache=resources.cache)
            evaluate_run.evaluate(experiment, learnt, split, data, run=str(run), folder=run / evaluate_run.FOLDER)

    def _resources(self, config: Config) -> Resources:
        key = config.model, config.train
        if key not in self.models:
            self.display.notify(f"loading {config.model.checkpoint}")
            search, kept = self.study.search, history.precision_of_runs(self.folder)
            self.models[key] = Resources(config, search.at_once, search.scratch, kept)
        return self.models[key]

    @contextlib.contextmanager
    def _recorded(self, cell: GridCell) -> Iterator[list[Path]]:
        """Times the block, which fills the list with the runs that represent the cell; then stores the cell."""
        started = time.perf_counter()
        self.display.begin(cell)
        runs: list[Path] = []
        yield runs
        seconds = time.perf_counter() - started
        self.progress.add(cell, runs, seconds)
        self.display.done(cell, [read_json(run / CARD_FILE)["scores"]["tuned"] for run in runs], seconds)


def _activity(config: Config) -> str:
    fold = "" if config.data.fold is None else f" on fold {config.data.fold}"
    return f"training{fold}, seed {config.train.seed}"
