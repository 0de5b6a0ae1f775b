"""A worker of a study: it asks for trials, trains them in parallel, and stores their results."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from tunevlseg_jax.config import Config
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.runs.card import NON_IDENTITY_FIELDS
from tunevlseg_jax.runs.run_folder import data_fingerprints
from tunevlseg_jax.runtime import schema, sharding
from tunevlseg_jax.search import memory_fit, trial_config
from tunevlseg_jax.search.options import PRUNERS, ProgressListener, Search
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import START_UP, Sampler
from tunevlseg_jax.search.slots import Run, Slots
from tunevlseg_jax.search.storage import AssignedTrial, StudyStorage
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import TrainSetup

PAUSE_SECONDS = 1.0
"""Between two looks at the trials of other workers, when this one has nothing to train."""


class Worker:
    """Trains the trials of one study, which other workers may share.

    Attributes:
      options: how to search.
      name: of the study.
      folder: of the study.
      config: the configuration that all trials share.
      resources: the model and the data.
      listener: receives the progress.
      space: the distributions of the searched fields.
      experiment: the model with the longest context that a trial may have.
      splits: of the data set, by name.
      test: the test split, None if the data set has none.
      data: name and fingerprints of the data, for the cards.
      storage: the trials of the study.
      parallel: number of trials to train at once; lowered where they don't fit in memory.
    """

    def __init__(
        self,
        options: Search,
        name: str,
        folder: Path,
        config: Config,
        resources: Resources,
        listener: ProgressListener,
        ablated: Sequence[Callable[[Config], Config]] = (),
    ):
        """Opens a study, new or begun; `close` releases it.

        `ablated` changes the best trial's configuration into others that are trained in the same study.

        Raises:
          UserError: the search space can't be, a prompt is too long, or the study is of another configuration.
        """
        listener.tell(f"preparing {name}")
        self.options, self.name, self.folder, self.config = options, name, folder, config
        self.resources, self.listener, self.parallel = resources, listener, options.at_once
        _, self.space = search_space(options, config, resources)
        longest = trial_config.longest_context(config, self.space)
        # All trials share the tokens of the prompts, so the longest context decides how many tokens a prompt may have.
        longest = max([longest, *(change(longest) for change in ablated)], key=lambda each: each.learner.text_tokens)
        self.experiment = resources.experiment(longest)
        self.splits = self.experiment.splits(resources.cache)
        self.test, self.data = self.splits.get("test"), data_fingerprints(config.data.name, self.splits)
        self.storage = StudyStorage(
            folder,
            name,
            options.storage,
            _identity(options, config, self.space, self.experiment, self.data),
            Sampler(self.space, options.sampler_seed),
            "maximize" if options.objective == "dice" else "minimize",
            PRUNERS[options.pruner](),
        )
        self.pending: list[AssignedTrial] = []
        self.compiled: dict[Config, set[int]] = {}
        self.latest: Slots | None = None
        self._show_counts()

    def close(self) -> None:
        """Gives trials that have not ended back to the study."""
        self.storage.close()

    @cached_property
    def setup(self) -> TrainSetup:
        """The training that all trials share; made when the first of them is trained."""
        return self.experiment.train_setup(self.splits, self.resources.cache, parallel=True)

    def run(self) -> None:
        """Trains until the study has its number of finished trials, whoever finishes them."""
        while True:
            self._ask(training=0)
            self._show_counts()
            if self.pending:
                self._train(Counter(map(self._program, self.pending)).most_common(1)[0][0])
            elif len(self.storage.finished()) >= self.options.trials:
                return
            else:
                self.listener.tell("waiting for other workers' trials")
                time.sleep(PAUSE_SECONDS)

    def slots(self, program: Config, trials: int) -> Slots:
        """Slots for that many trials of a program, once those that were given before have all been freed.

        As many as were compiled before, unless more than half of them would be free. Slots of another program or size
        let go of their memory first: the next may take all of it.
        """
        trials = self.across(trials)
        compiled = self.compiled.setdefault(program, set())
        wanted = min((size for size in compiled if trials <= size <= 2 * trials), default=trials)
        if self.latest is not None:
            if (self.latest.setup.config, self.latest.size) == (program, wanted):
                return self.latest
            self.latest.close()
            self.latest = None
        self.listener.tell(f"compiling for {wanted} trials")
        experiment = self.experiment.with_config(program)
        setup = dataclasses.replace(self.setup, config=program, network=experiment.network)
        size = memory_fit.max_parallel_trials(experiment, setup, wanted, automatic=self.options.parallel == "auto")
        if size < trials:
            self.parallel = size
        compiled.add(size)
        self.latest = Slots(experiment, setup, size, sharding.num_programs(size, setup.mesh))
        return self.latest

    def across(self, trials: int) -> int:
        """The next multiple of the devices' trial axis."""
        axis = self.resources.mesh.shape[sharding.TRIAL]
        return -(-trials // axis) * axis

    def program(self, trial: Config) -> Config:
        """What a trial must agree in with others to share a program with them."""
        return trial_config.program(self.config, trial, self.space)

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / f"{number:03d}"

    def _ask(self, training: int) -> None:
        """Takes trials as pending, until with those in training there are `parallel`.

        The start-up trials don't depend on each other. The first one after them is asked for when all of them have
        come to an end, as far as this worker trains them; from then on each is asked for when a slot is free.
        """
        self.pending += self.storage.adopt()
        while len(self.pending) + training < self.parallel:
            if not self.storage.starting() and any(number < START_UP for number in self.storage.claimed):
                return
            claim = self.storage.claim(self.options.trials)
            if claim is None:
                return
            self.pending.append(claim)

    def _trial(self, claim: AssignedTrial) -> Config:
        return trial_config.apply(self.config, self.space, claim.params)

    def _program(self, claim: AssignedTrial) -> Config:
        return self.program(self._trial(claim))

    def _train(self, program: Config) -> None:
        """The pending trials that one program can train, and those that join them."""
        slots = self.slots(program, sum(self._program(claim) == program for claim in self.pending))
        while self._fill(slots, program) or slots.free < slots.size:
            slots.advance(self._watch(slots))
            self._settle(slots)
            if 0 < slots.free < slots.size:
                self._ask(training=slots.size - slots.free)
                self._show_counts()

    def _fill(self, slots: Slots, program: Config) -> int:
        """Puts pending trials of the program into free slots; returns how many."""
        fitting = [claim for claim in self.pending if self._program(claim) == program][: slots.free]
        for claim in fitting:
            self.pending.remove(claim)
            slots.put(claim.number, self._trial(claim))
        return len(fitting)

    def _watch(self, slots: Slots) -> Callable[[int, Any], None]:
        """What tells of the steps of an epoch."""
        training, epoch, steps = slots.size - slots.free, slots.order + 1, slots.setup.steps_per_epoch
        trials = f"{training} trial{'s' if training > 1 else ''}"
        return lambda step, sums: self.listener.tell(f"training {trials}, epoch {epoch}, step {step}/{steps}")

    def _settle(self, slots: Slots) -> None:
        """Reports the latest epoch of every trial, and closes those that have come to an end."""
        running = [(slot, run) for slot, run in enumerate(slots.runs) if run is not None]
        for _, run in running:
            value = run.curve[-1]["val"][self.options.objective]
            if math.isfinite(value):
                self.storage.report(run.number, run.curve[-1]["epoch"], value)
        for slot, run in running:
            state = self._state(slots, slot, run)
            if state is not None:
                self._close(slots, slot, run, state)

    def _state(self, slots: Slots, slot: int, run: Run) -> TrialState | None:
        """How a trial ended with its latest epoch, or None."""
        last = run.curve[-1]
        if not (math.isfinite(last["train"]["loss"]) and math.isfinite(last["val"]["loss"])):
            return TrialState.FAIL
        if slots.has_ended(slot):
            return TrialState.COMPLETE
        if self.storage.should_prune(run.number, last["epoch"]):
            return TrialState.PRUNED
        return None

    def _close(self, slots: Slots, slot: int, run: Run, state: TrialState) -> None:
        """Writes a trial's folder, then closes it in the storage; killed in between, the trial is trained again."""
        best = slots.best_epoch(slot)
        details = {"epochs": len(run.curve), "best_epoch": best}
        if best:
            details |= {f"val_{name}": value for name, value in run.curve[best - 1]["val"].items()}
        slots.save(self.trial_folder(run.number), slot, self.data)
        value = run.curve[best - 1]["val"][self.options.objective] if state == TrialState.COMPLETE else None
        self.storage.finish(run.number, state, value, details)
        slots.take(slot)
        self.listener.trial(self.storage, run.number, state, details)
        self._show_counts()

    def _show_counts(self) -> None:
        self.listener.update(self.name, self.storage)


def search_space(options: Search, config: Config, resources: Resources) -> tuple[Experiment, Space]:
    """The model with room for every trial of a configuration, and what is searched.

    Raises:
      UserError: the search space can't be.
    """
    experiment = resources.experiment(trial_config.shallow(config))
    return experiment, trial_config.space(config, experiment, options.space)


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
