"""A worker of a study: it asks for trials, trains them in parallel, and stores their results.

A worker may consist of several processes. Process 0 alone talks to the study's storage, and tells the others what it
has drawn and decided.
"""

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from tunevlseg_jax.config import Config
from tunevlseg_jax.learners.space import Distribution, Space
from tunevlseg_jax.runs.card import NON_IDENTITY_FIELDS
from tunevlseg_jax.runs.provenance import data_fingerprints
from tunevlseg_jax.runtime import exchange, multihost, schema, sharding
from tunevlseg_jax.search import memory_fit, trial_config
from tunevlseg_jax.search.options import PRUNERS, ProgressListener, Search
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.sampler import START_UP, Sampler
from tunevlseg_jax.search.slots import Run, Slots
from tunevlseg_jax.search.storage import StudyStorage, current_params
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import TrainSetup
from tunevlseg_jax.training.metrics import Sums

PAUSE_SECONDS = 1.0
"""Seconds between two checks of other workers' trials, while this worker has nothing to train."""


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
      storage: the trials of the study; in process 0 alone.
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
        """Opens a new or existing study; `close` releases it.

        `ablated` changes the best trial's configuration into others that are trained in the same study.

        Raises:
          UserError: the search space is invalid, a prompt is too long, or the study has another configuration.
        """
        listener.notify(f"preparing {name}")
        self.options, self.name, self.folder, self.config = options, name, folder, config
        self.resources, self.listener, self.parallel = resources, listener, options.at_once
        with multihost.sync_errors():
            _, self.space = search_space(options, config, resources)
            longest = trial_config.longest_context(config, self.space)
            # All trials share the tokens of the prompts: the longest context decides how many tokens a prompt may have.
            changed = [longest, *(change(longest) for change in ablated)]
            self.experiment = resources.experiment(max(changed, key=lambda each: each.learner.text_tokens))
            self.splits = self.experiment.splits(resources.cache)
            self.test, self.data = self.splits.get("test"), data_fingerprints(config.data.name, self.splits)
        exchange.from_primary(self._open)
        self.pending: dict[int, Config] = {}
        self.compiled: dict[Config, set[int]] = {}
        self.latest: Slots | None = None
        self._show_counts()

    def close(self) -> None:
        """Releases the trials that have not ended."""
        if multihost.is_primary():
            self.storage.close()

    @cached_property
    def setup(self) -> TrainSetup:
        """The training setup that all trials share, built when the first trial is trained."""
        setup = self.experiment.train_setup(self.splits, self.resources.cache, parallel=True)
        note = setup.features_note([self.test] if self.test else ())
        if note and note not in self.resources.notes:
            self.resources.notes.add(note)
            self.listener.note(note)
        return setup

    def run(self) -> None:
        """Trains until the study has its number of finished trials, of this worker or others."""
        while True:
            self._ask(training=0)
            self._show_counts()
            if self.pending:
                self._train(Counter(map(self.program, self.pending.values())).most_common(1)[0][0])
            elif exchange.from_primary(lambda: len(self.storage.finished())) >= self.options.trials:
                return
            else:
                self.listener.notify("waiting for other workers' trials")
                time.sleep(PAUSE_SECONDS)

    def slots(self, program: Config, trials: int) -> Slots:
        """Slots for a number of trials of a program, when no trial is left in the previous slots.

        A size that is already compiled is used again, unless more than half of the slots would be free. The memory of
        slots of another program or size is released first: the next may take all of it.
        """
        trials = self.across(trials)
        compiled = self.compiled.setdefault(program, set())
        wanted = min((size for size in compiled if trials <= size <= 2 * trials), default=trials)
        if self.latest is not None:
            if (self.latest.setup.config, self.latest.size) == (program, wanted):
                return self.latest
            self.latest.close()
            self.latest = None
        self.listener.notify(f"compiling for {wanted} trials")
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
        """The configuration that trials which share a program have in common."""
        return trial_config.program(self.config, trial, self.space)

    def trial_folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / f"{number:03d}"

    def _open(self) -> None:
        """Opens the storage."""
        self.storage = StudyStorage(
            self.folder,
            self.name,
            self.options.storage,
            _identity(self.options, self.config, self.space, self.experiment, self.data),
            Sampler(self.space, self.options.sampler_seed),
            "maximize" if self.options.objective == "dice" else "minimize",
            PRUNERS[self.options.pruner](),
            self.listener.note,
        )

    def _ask(self, training: int) -> None:
        """Adds trials to the pending ones, up to `parallel` with those in training."""
        drawn = exchange.from_primary(lambda: self._drawn(self.parallel - training - len(self.pending)))
        for number, params in drawn.items():
            self.pending[number] = trial_config.apply(self.config, self.space, params)

    def _drawn(self, most: int) -> dict[int, dict[str, Any]]:
        """The parameters of the next trials by their number, in process 0.

        The start-up trials don't depend on each other. The first trial after them is sampled when this worker's
        start-up trials have all ended; from then on a trial is sampled whenever a slot is free.
        """
        self.storage.requeue()
        drawn: dict[int, dict[str, Any]] = {}
        while len(drawn) < most:
            if not self.storage.next_is_fixed() and any(number < START_UP for number in self.storage.assigned):
                break
            trial = self.storage.assign(self.options.trials)
            if trial is None:
                break
            drawn[trial.number] = current_params(trial)
        return drawn

    def _train(self, program: Config) -> None:
        """Trains the pending trials of one program, and those that join them."""
        slots = self.slots(program, [*map(self.program, self.pending.values())].count(program))
        while self._fill(slots, program) or slots.free < slots.size:
            slots.train_epoch(partial(self._notify_step, slots))
            self._settle(slots)
            if 0 < slots.free < slots.size:
                self._ask(training=slots.size - slots.free)
                self._show_counts()

    def _fill(self, slots: Slots, program: Config) -> int:
        """Puts pending trials of the program into free slots; returns how many."""
        fitting = [number for number, config in self.pending.items() if self.program(config) == program][: slots.free]
        for number in fitting:
            slots.put(number, self.pending.pop(number))
        return len(fitting)

    def _notify_step(self, slots: Slots, step: int, sums: Sums) -> None:
        training, steps = slots.size - slots.free, slots.setup.steps_per_epoch
        trials = f"{training} trial{'s' if training > 1 else ''}"
        self.listener.notify(f"training {trials}, epoch {slots.order}, step {step}/{steps}")

    def _settle(self, slots: Slots) -> None:
        """Reports the latest epoch of every trial, and closes those that have come to an end."""
        running = [(slot, run) for slot, run in enumerate(slots.runs) if run is not None]
        exchange.from_primary(lambda: self._report([run for _, run in running]))
        for slot, run in running:
            state = exchange.from_primary(partial(self._state, slots, slot, run))
            if state is not None:
                self._close(slots, slot, run, state)

    def _report(self, running: Sequence[Run]) -> None:
        for run in running:
            value = run.curve[-1]["val"][self.options.objective]
            if math.isfinite(value):
                self.storage.report(run.number, run.curve[-1]["epoch"], value)

    def _state(self, slots: Slots, slot: int, run: Run) -> TrialState | None:
        """The state in which a trial ends with its latest epoch, or None."""
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
        exchange.from_primary(lambda: self.listener.trial_ended(self.storage.finish(run.number, state, value, details)))
        slots.clear(slot)
        self._show_counts()

    def _show_counts(self) -> None:
        exchange.from_primary(lambda: self.listener.update(self.name, self.storage))


def search_space(options: Search, config: Config, resources: Resources) -> tuple[Experiment, Space]:
    """The model with room for every trial of a configuration, and the search space.

    Raises:
      UserError: the search space is invalid.
    """
    experiment = resources.experiment(trial_config.shallow(config))
    return experiment, trial_config.space(config, experiment, options.space)


def _identity(
    options: Search, config: Config, space: Space, experiment: Experiment, data: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings that all trials of a study share, as JSON."""
    settings = schema.flat(schema.to_json(config))
    for name in (*NON_IDENTITY_FIELDS, "model.checkpoint"):  # the model's hash identifies it
        del settings[name]
    return {
        **settings,
        "space": {name: _stored(distribution) for name, distribution in space.items()},
        "objective": options.objective,
        "sampler_seed": options.sampler_seed,
        "model_sha256": experiment.pretrained.sha256,
        "records": dict(data),
    }


def _stored(distribution: Distribution) -> dict[str, Any]:
    """A distribution as studies store it, with the names of version 0.1.0."""
    if isinstance(distribution, CategoricalDistribution):
        return {schema.CLASS: "Choice", "values": list(distribution.choices)}
    kind = "Integers" if isinstance(distribution, IntDistribution) else "Uniform"
    name = f"Log{kind}" if distribution.log else kind
    return {schema.CLASS: name, "low": distribution.low, "high": distribution.high}
