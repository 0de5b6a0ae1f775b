"""A worker of a study: it asks for trials, trains them in parallel, and stores their results."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.trial import TrialState

from tunevlseg_jax.config import Config
from tunevlseg_jax.learners.space import Space
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.search import memory_fit, trial_config
from tunevlseg_jax.search.sampler import START_UP
from tunevlseg_jax.search.slots import Run, Slots
from tunevlseg_jax.search.storage import AssignedTrial, StudyStorage
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.loop import TrainSetup
from tunevlseg_jax.training.split import Split

Objective = Literal["dice", "loss"]
PAUSE = 1.0
"""Seconds between two looks at what other workers do, when there is nothing else to do."""


@dataclass
class Worker:
    """What a worker knows of its study.

    Attributes:
      config: of the study.
      space: what is searched.
      experiment: the model, with the study's own learner.
      setup: what all trials share.
      test: the test split, where there is one.
      storage: the study.
      folder: of the study.
      data: name and fingerprints of the data, for the cards.
      wanted: number of trials.
      parallel: trials to train at once.
      automatic: whether to train fewer at once where they don't fit in memory.
      objective: "dice", the best validation Dice of a trial's epochs, maximised; "loss", that same epoch's
        validation loss, minimised.
      tell: what is happening, in a few words.
      asked: called when trials may have been assigned.
      ended: called with the number of a trial that has come to its end, and how.
    """

    config: Config
    space: Space
    experiment: Experiment
    setup: TrainSetup
    test: Split | None
    storage: StudyStorage
    folder: Path
    data: Mapping[str, Any]
    wanted: int
    parallel: int
    automatic: bool
    objective: Objective
    tell: Callable[[str], None]
    asked: Callable[[], None]
    ended: Callable[[int, TrialState, Mapping[str, Any]], None]

    def __post_init__(self):
        self.pending: list[AssignedTrial] = []
        self.compiled: dict[Config, set[int]] = {}
        self.latest: Slots | None = None

    def run(self) -> None:
        """Trains until the study has its number of finished trials, whoever finishes them."""
        while True:
            self._ask(training=0)
            self.asked()
            if self.pending:
                self._train(Counter(map(self._program, self.pending)).most_common(1)[0][0])
            elif len(self.storage.finished()) >= self.wanted:
                return
            else:
                self.tell("waiting for other workers' trials")
                time.sleep(PAUSE)

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
        self.tell(f"compiling for {wanted} trials")
        experiment = self.experiment.with_config(program)
        setup = dataclasses.replace(self.setup, config=program, network=experiment.network)
        size = memory_fit.max_parallel_trials(experiment, setup, wanted, automatic=self.automatic)
        if size < trials:
            self.parallel = size
        compiled.add(size)
        self.latest = Slots(experiment, setup, size, sharding.num_programs(size, setup.mesh))
        return self.latest

    def across(self, trials: int) -> int:
        """The next multiple of the devices' trial axis."""
        axis = self.setup.mesh.shape[sharding.TRIAL]
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
            claim = self.storage.claim(self.wanted)
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
                self.asked()

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
        return lambda step, sums: self.tell(f"training {trials}, epoch {epoch}, step {step}/{steps}")

    def _settle(self, slots: Slots) -> None:
        """Reports the latest epoch of every trial, and closes those that have come to an end."""
        running = [(slot, run) for slot, run in enumerate(slots.runs) if run is not None]
        for _, run in running:
            value = run.curve[-1]["val"][self.objective]
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
        value = run.curve[best - 1]["val"][self.objective] if state == TrialState.COMPLETE else None
        self.storage.finish(run.number, state, value, details)
        slots.take(slot)
        self.ended(run.number, state, details)
