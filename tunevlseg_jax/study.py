"""Runs a whole study and reports on it: `python -m tunevlseg_jax.study --config configs/study_scenes.py`."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.benchmarks import rates
from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.evaluation import evaluate_run
from tunevlseg_jax.models.parameters import Flat
from tunevlseg_jax.pretrained.load import find_checkpoint
from tunevlseg_jax.runs.run_folder import CARD_FILE, load_learnt, make_card, restore, save_trial
from tunevlseg_jax.runtime import locks, sharding, signals
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json
from tunevlseg_jax.search import repeats, session, slots, trial_config
from tunevlseg_jax.search import summary as standing
from tunevlseg_jax.search.resources import Shared
from tunevlseg_jax.search.sampler import Sampler
from tunevlseg_jax.search.worker import Sweeper
from tunevlseg_jax.studies import grid
from tunevlseg_jax.studies.grid import Cell, Study
from tunevlseg_jax.studies.plan import plan
from tunevlseg_jax.studies.progress import Book, Outlook
from tunevlseg_jax.train import train
from tunevlseg_jax.training import loop, metrics
from tunevlseg_jax.training.experiment import Experiment

PROGRAM = "python -m tunevlseg_jax.study"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which study.

    Attributes:
      config: a Python file that defines `study`, such as configs/study_scenes.py.
      folder: of its runs and its report, where it isn't the file's; one that exists is continued.
      plan: only print what is going to be trained, and what is missing for it.
      rates: files of `benchmark --output`, from which the plan tells hours: one of each device and model, or of TPU
        slices.
    """

    config: str
    folder: str | None = None
    plan: bool = False
    rates: tuple[str, ...] = ()


def main() -> None:
    """Runs a study, or goes on with it; an interruption tells how to go on."""
    options = cli.options(Options, PROGRAM, __doc__ or "")
    if options.rates and not options.plan:
        raise UserError("--rates is for --plan, which tells hours from them; give both")
    study = grid.load(options.config)
    if options.folder is not None:
        study = dataclasses.replace(study, folder=options.folder)
    console = rich.get_console()  # on which bars show themselves inside the live view
    if options.plan:
        table, missing = plan(study, rates.read(options.rates))
        console.print(table, *missing, sep="\n", soft_wrap=True)
        return
    again = shlex.join(["python", "-m", "tunevlseg_jax.study", *sys.argv[1:]])
    with signals.telling(f"what is finished is kept, and this goes on: {again}"):
        run(study, console)


def run(study: Study, console: Console) -> None:
    """Trains and evaluates what a study lacks, and reports on all of it.

    Raises:
      UserError: the folder holds another study, another process works on it, or something is missing.
    """
    from tunevlseg_jax.report import check_installed

    check_installed()  # what is missing is said before the first cell begins
    for combination in study.combinations:
        find_checkpoint(combination.config.model.checkpoint)
    for cell in study.cells():
        registry.splits(cell.config.data)
    folder = Path(study.folder)
    book = Book(folder, study)
    view = Outlook(console, study, book)
    with _alone(folder):
        with view.live:
            _Work(study, folder, book, view).run()
            view.end()
        _report(folder, console)


class _Work:
    """What is done for each cell; a model and a data set are loaded once for all that need them."""

    def __init__(self, study: Study, folder: Path, book: Book, view: Outlook):
        self.study, self.folder, self.book, self.view = study, folder, book, view
        self.models: dict[Any, Shared] = {}

    def run(self) -> None:
        """Every cell that isn't finished."""
        self._check_spaces()
        kinds = {"zero-shot": self._as_it_is, "fine-tuned": self._fine_tuned, "searched": self._searched}
        for data in self.study.data:
            for combination in self.study.combinations:
                own = [cell for cell in self.study.cells() if (cell.data, cell.combination) == (data, combination)]
                if not all(map(self.book.has, own)):
                    kinds[combination.kind](own)
            for shared in self.models.values():
                shared.forget_training()

    def _check_spaces(self) -> None:
        """Raises a UserError where a search that isn't finished, or an ablation, can't be, before the first cell."""
        unfinished = [cell for cell in self.study.cells() if not self.book.has(cell)]
        searched = {cell.combination: cell for cell in unfinished if cell.combination.kind == "searched"}
        for cell in searched.values():
            options = self.study.options(cell)
            made, space = session.searched(options, cell.config, self._shared(cell.config))
            first = trial_config.apply(cell.config, space, Sampler(space, options.sampler_seed).start_up[0])
            for ablation in self.study.ablations:
                if ablation.applies(cell.combination):
                    trial_config.check_fit(ablation.of(first), made, f"the ablation {ablation.name!r}")

    def _as_it_is(self, cells: Sequence[Cell]) -> None:
        """The model without any training, as a run folder."""
        (cell,) = cells
        with self._making(cell) as runs:
            folder = self.folder / cell.folder
            config = dataclasses.replace(cell.config, workdir=str(folder))
            shared = self._shared(config)
            made = shared.experiment(config)
            splits, scores = shared.splits(made), {}
            # As many times over as the devices' trial axis asks for.
            _, hyper = made.repeated(shared.mesh.shape[sharding.TRIAL])
            hyper = sharding.by_trial(hyper, shared.mesh)
            for part in splits.keys() - {"train"}:
                size = config.train.batch_size
                sums = loop.evaluate(made.network, {}, made.frozen, splits[part], hyper, size)
                scores[part] = {name: values[0] for name, values in metrics.means(sums).items()}
            data = {"name": cell.data} | {part: split.records.fingerprint() for part, split in splits.items()}
            card = make_card(config, made.pretrained.sha256, made.image_size, data)
            save_trial(folder, config, [], {}, card | {"best_epoch": 0, "scores": {"tuned": scores}})
            self._evaluate(cell, shared, made, {}, folder)
            runs.append(folder)

    def _fine_tuned(self, cells: Sequence[Cell]) -> None:
        """A baseline, by `train`."""
        (cell,) = cells
        with self._making(cell) as runs:
            folder = self.folder / cell.folder
            config = dataclasses.replace(cell.config, workdir=str(folder))
            if not (folder / CARD_FILE).exists():
                self.view.tell("training")
                train(config, Console(quiet=True))
            made, learnt = restore(folder)
            frozen = dataclasses.replace(config, train=dataclasses.replace(config.train, tune="prompts"))
            self._evaluate(cell, self._shared(frozen), made, learnt, folder)
            runs.append(folder)

    def _searched(self, cells: Sequence[Cell]) -> None:
        """A search, and the ablations of its best trial."""
        options, folder, name = self.study.options(cells[0]), self.folder / cells[0].folder, str(cells[0].folder)
        shared = self._shared(cells[0].config)
        self.view.begin(cells[0])
        ablated = [cell.ablation.of for cell in cells if cell.ablation is not None]
        with session.opened(options, name, folder, cells[0].config, shared, self.view, ablated) as sweeper:
            for cell in cells:
                if not self.book.has(cell):
                    with self._making(cell) as runs:
                        if cell.ablation is None:
                            runs += self._search(sweeper, options, name)
                        else:
                            runs += self._ablate(sweeper, options, cell)
                        for run in runs:
                            self._evaluate_searched(cell, shared, sweeper, run)

    def _search(self, sweeper: Sweeper, options: session.Search, name: str) -> list[Path]:
        best = session.run(sweeper, options, name)["best"]
        return [] if best is None else [Path(one["folder"]) for one in best["runs"]]

    def _ablate(self, sweeper: Sweeper, options: session.Search, cell: Cell) -> list[Path]:
        """The best trial and its repetitions again, with the ablation's field changed."""
        assert cell.ablation is not None
        best = standing.best_of(sweeper.ledger.finished(), sweeper.ledger)
        if best is None:
            return []
        runs = {}
        for seed, folder in repeats.repeat(sweeper, best.number, options.seeds).items():
            config, _, _ = load_learnt(folder)
            runs[self.folder / cell.folder / str(seed)] = cell.ablation.of(config)
        repeats.train(sweeper, runs)
        repeats.score(sweeper, runs)
        return list(runs)

    def _evaluate_searched(self, cell: Cell, shared: Shared, sweeper: Sweeper, run: Path) -> None:
        """As `_evaluate`, in the program of the search's trials, which serves them all."""
        config, learnt, _ = load_learnt(run)
        made = sweeper.made.another(sweeper.program(config))
        padded = slots.padded(learnt, made.trainable)
        self._evaluate(cell, shared, dataclasses.replace(made, config=config), padded, run)

    def _evaluate(self, cell: Cell, shared: Shared, made: Experiment, learnt: Flat, run: Path) -> None:
        """Scores a run record by record, on its own data set and across."""
        for data in self.study.tested(cell):
            self.view.tell(f"evaluating on {data.name}")
            part = "test" if "test" in registry.splits(data) else "val"
            split = shared.split(made, part, data)
            evaluate_run.evaluate(made, learnt, split, data, run=str(run), folder=run / evaluate_run.FOLDER)

    def _shared(self, config: Config) -> Shared:
        key = config.model, config.train
        if key not in self.models:
            self.view.tell(f"loading {config.model.checkpoint}")
            self.models[key] = Shared(config, self.study.search.at_once, self.study.search.scratch)
        return self.models[key]

    @contextlib.contextmanager
    def _making(self, cell: Cell) -> Iterator[list[Path]]:
        """Times the block, which fills the list with the runs that stand for the cell, and writes it down."""
        started = time.perf_counter()
        self.view.begin(cell)
        runs: list[Path] = []
        yield runs
        seconds = time.perf_counter() - started
        self.book.add(cell, runs, seconds)
        self.view.done(cell, [read_json(run / CARD_FILE)["scores"]["tuned"] for run in runs], seconds)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time works on a study."""
    try:
        held = locks.hold(folder / "study.lock")
    except BlockingIOError:
        raise UserError(f"another process works on {folder}") from None
    with held:
        yield


def _report(folder: Path, console: Console) -> None:
    """Everything that a report has of the study's runs, beside them."""
    from tunevlseg_jax.report import Options, report

    report(Options(runs=str(folder), output=str(folder / "report")), console)


if __name__ == "__main__":
    cli.run(main)
