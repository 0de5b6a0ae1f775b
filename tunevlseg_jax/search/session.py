"""One hyperparameter search: starts or resumes it, and writes its summary."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from tunevlseg_jax.config import Config
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.runs.card import CARD_FILE, NON_IDENTITY_FIELDS
from tunevlseg_jax.runs.run_folder import data_fingerprints
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search import repeats, summary, trial_config
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import START_UP, Sampler
from tunevlseg_jax.search.storage import StudyStorage
from tunevlseg_jax.search.worker import Objective, Worker
from tunevlseg_jax.training.experiment import Experiment

PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    # Optuna's own first rung, a hundredth of a finished trial, comes too late for trials that run side by side.
    "halving": partial(optuna.pruners.SuccessiveHalvingPruner, min_resource=1),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to search.

    Attributes:
      trials: how many trials the study is to have, those that it has already included.
      parallel: trials to train at once, or "auto" for up to 10 as memory allows. Parallel trials are sampled without
        each other's scores: the first 10 are random anyway, later ones are a little less informed than in sequence.
      seeds: runs of the best trial, with its own seed and those that follow.
      space: what to search besides or instead of the paper's Table 2, such as depth=1..5 learning_rate=1e-4..1e-3
        projector.kind=mlp,low_rank optim.warmup_steps=log:1..20 num_context=4.
      pruner: "median" gives up a trial whose best epoch so far is worse than half of the finished ones were at that
        epoch, once five have finished; "halving" all but the best quarter at epochs 1, 4, 16 and so on; "none" none.
      objective: "dice", the validation Dice of the trial's best epoch, or "loss", that epoch's validation loss.
      sampler_seed: of the search.
      test_all: whether every trial is scored on the test split, instead of the best one alone; validation decides
        either way which is the best.
      scratch: GiB on the cache folder's disk, at most half of what is free there, where a sweep on a CPU keeps what a
        model sees in augmented images, for textual learners' later trials.
      storage: URL of a database for the studies, such as postgresql+psycopg://user@host/name; None for a journal file.
    """

    trials: int = 20
    parallel: Literal["auto"] | int = "auto"
    seeds: int = 1
    space: tuple[str, ...] = ()
    pruner: Literal["none", "median", "halving"] = "none"
    objective: Objective = "dice"
    sampler_seed: int = 0
    test_all: bool = False
    scratch: float = 8.0
    storage: str | None = None

    def check(self) -> None:
        """Raises a UserError that names the first option that can't be."""
        for name in ("trials", "seeds", "parallel"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise UserError(f"{name} can't be {value}; it must be at least 1")
        if not self.scratch >= 0:
            raise UserError(f"scratch can't be {self.scratch}; it must be at least 0")

    @property
    def at_once(self) -> int:
        """How many trials to train at once, as far as they fit in memory."""
        return START_UP if self.parallel == "auto" else self.parallel


class ProgressListener(Protocol):
    """Receives the progress of a search."""

    def tell(self, words: str) -> None:
        """What is going on."""

    def trial(self, storage: StudyStorage, number: int, state: TrialState, details: Mapping[str, Any]) -> None:
        """A trial has come to its end."""

    def update(self, name: str, storage: StudyStorage) -> None:
        """The counts of a study have changed."""


def searched(options: Search, config: Config, resources: Resources) -> tuple[Experiment, Space]:
    """The model with room for every trial of a configuration, and what is searched.

    Raises:
      UserError: the search space can't be.
    """
    experiment = resources.experiment(trial_config.shallow(config))
    return experiment, trial_config.space(config, experiment, options.space)


@contextlib.contextmanager
def opened(
    options: Search,
    name: str,
    folder: Path,
    config: Config,
    resources: Resources,
    view: ProgressListener,
    ablated: Sequence[Callable[[Config], Config]] = (),
) -> Iterator[Worker]:
    """A study, made or opened to go on, and its worker.

    Args:
      options: how to search.
      name: of the study.
      folder: of the study.
      config: what all trials have in common.
      resources: the model and the data.
      view: receives the progress.
      ablated: what changes the best trial's configuration, to be trained in the same study.

    Raises:
      UserError: the search space can't be, a prompt is too long, or the study is of another configuration.
    """
    view.tell(f"preparing {name}")
    _, space = searched(options, config, resources)
    longest = trial_config.longest_context(config, space)
    # All trials share the prompts' tokens, so the longest context says how much room there is for them.
    longest = max([longest, *(change(longest) for change in ablated)], key=lambda one: one.learner.text_tokens)
    experiment = resources.experiment(longest)
    splits = resources.splits(experiment)
    data = data_fingerprints(config.data.name, splits)
    storage = StudyStorage(
        folder,
        name,
        options.storage,
        _identity(options, config, space, experiment, data),
        Sampler(space, options.sampler_seed),
        "maximize" if options.objective == "dice" else "minimize",
        PRUNERS[options.pruner](),
    )

    def ended(number: int, state: TrialState, details: Mapping[str, Any]) -> None:
        view.trial(storage, number, state, details)
        view.update(name, storage)

    with contextlib.closing(storage):
        view.update(name, storage)
        yield Worker(
            config=config,
            space=space,
            experiment=experiment,
            setup=resources.setup(config, experiment),
            test=splits.get("test"),
            storage=storage,
            folder=folder,
            data=data,
            wanted=options.trials,
            parallel=options.at_once,
            automatic=options.parallel == "auto",
            objective=options.objective,
            tell=view.tell,
            asked=lambda: view.update(name, storage),
            ended=ended,
        )


def run(worker: Worker, options: Search, name: str) -> dict[str, Any]:
    """Trains what the study lacks, repeats its best trial, and scores on the test split; returns the summary."""
    worker.run()
    storage = worker.storage
    best = summary.best_of(storage.finished(), storage)
    folders = {} if best is None else repeats.repeat(worker, best.number, options.seeds)
    everything = [worker.trial_folder(trial.number) for trial in storage.finished()] if options.test_all else []
    here = [folder for folder in everything if (folder / CARD_FILE).exists()]  # not on another machine
    repeats.score(worker, [*folders.values(), *here])
    return summary.write(worker.folder, name, storage, best, repeats.told(folders))


def _identity(
    options: Search, config: Config, space: Space, experiment: Experiment, data: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that all trials of a study share, as JSON."""
    whereabouts = (*NON_IDENTITY_FIELDS, "model.checkpoint")  # the model's hash says what it is
    settings = {name: value for name, value in schema.flat(schema.to_json(config)).items() if name not in whereabouts}
    return {
        **settings,
        "space": {name: schema.to_json(distribution) for name, distribution in space.items()},
        "objective": options.objective,
        "sampler_seed": options.sampler_seed,
        "model_sha256": experiment.pretrained.sha256,
        "records": dict(data),
    }
