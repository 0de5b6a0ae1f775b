"""The options of `sweep`: how a study is searched; and the listener that a search reports its progress to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import optuna
import tyro
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.multihost import Cluster
from tunevlseg_jax.search.sampler import START_UP

if TYPE_CHECKING:
    from tunevlseg_jax.search.storage import StudyStorage

STUDIES = "runs/studies"
"""The folder of all studies, unless another is asked for."""

Objective = Literal["dice", "loss"]
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    # Optuna's default first rung, a hundredth of a finished trial, comes too late for parallel trials.
    "halving": partial(optuna.pruners.SuccessiveHalvingPruner, min_resource=1),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """How to search.

    Attributes:
      trials: number of trials in the study, with those that it already has.
      parallel: trials to train at once, or "auto" for up to 10 as memory allows. Parallel trials are sampled without
        each other's scores: the first 10 are random anyway, later ones are a little less informed than in sequence.
      seeds: runs of the best trial, with its seed and those that follow.
      space: ranges and values to search besides or instead of the paper's Table 2, such as depth=1..5
        learning_rate=1e-4..1e-3 projector.kind=mlp,low_rank optim.warmup_steps=log:1..20 num_context=4.
      pruner: "median" gives up a trial whose best epoch so far is worse than half of the finished ones were at that
        epoch, once five have finished; "halving" all but the best quarter at epochs 1, 4, 16 and so on; "none" none.
      objective: "dice", the validation Dice of the trial's best epoch, or "loss", that epoch's validation loss.
      sampler_seed: seed of the search.
      test_all: whether every trial is scored on the test split, instead of the best one alone; the best trial is chosen
        by validation either way.
      scratch: GiB on the cache folder's disk, at most half of its free space, where a sweep on a CPU keeps the features
        of augmented images, for textual learners' later trials.
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
        """Raises a UserError that names the first invalid option."""
        for name in ("trials", "seeds", "parallel"):
            value = getattr(self, name)
            if value != "auto" and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}", "out-of-range")
        if not self.scratch >= 0:
            raise UserError(f"scratch must be at least 0, got {self.scratch}", "out-of-range")

    @property
    def at_once(self) -> int:
        """How many trials to train at once, as far as they fit in memory."""
        return START_UP if self.parallel == "auto" else self.parallel


@dataclass(frozen=True, kw_only=True)
class Options(Search):
    """A sweep: how to search, and the configuration of every trial.

    Attributes:
      study: name of the study; one that exists is continued.
      folder: of all studies.
      learners: "all", or names such as coop,vpt: a study for each; None for the configuration's own.
      config: of every trial; data.name may list several data sets, a study for each.
      cluster: how several processes find each other; process 0 alone uses the studies' folder and storage.
    """

    study: str
    folder: str = STUDIES
    learners: str | None = None
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)

    def check(self) -> None:
        """Raises a UserError that names the first invalid option."""
        super().check()
        if not self.study or Path(self.study).is_absolute() or ".." in Path(self.study).parts:
            raise UserError(f"study must be a folder's name in {self.folder}, got {self.study!r}", "invalid-name")
        configuration.check(self.config)
        configuration.check_fresh(self.config, "each trial of a sweep")
        if self.seeds > 1 and self.config.model.fresh:
            raise UserError(f"seeds must be 1 with model.fresh, got {self.seeds}", "options-conflict")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A trial to train again.

    Attributes:
      study: name of the study.
      trial: number of the trial.
      folder: of all studies.
      workdir: folder of the new run; None for one in the study's folder.
      as_train: whether to train it as `python -m tunevlseg_jax.train` would: in a separate program, whose sums are
        rounded otherwise, to the last epoch, with checkpoints, TensorBoard's events and zero-shot scores.
    """

    study: tyro.conf.Positional[str]
    trial: tyro.conf.Positional[int]
    folder: str = STUDIES
    workdir: str | None = None
    as_train: bool = False


class ProgressListener(Protocol):
    """Receives the progress of a search."""

    def notify(self, message: str) -> None:
        """Receives a few words on the present activity."""

    def note(self, line: str) -> None:
        """Receives a line that the user has to read."""

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Receives a trial that has come to its end, with its scores as attributes."""

    def update(self, name: str, storage: StudyStorage) -> None:
        """Receives a study whose numbers of trials have changed."""
