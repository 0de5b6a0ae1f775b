"""Gathers the runs under a folder, and lists the folders and files that it skips, each with the reason."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tunevlseg_jax.config import Config
from tunevlseg_jax.reporting import evaluations, stored_run
from tunevlseg_jax.reporting.evaluations import StoredEvaluation
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.search import summary

Role = Literal["run", "trial", "seed", "ablation"]

EVALUATIONS = "evaluations"
PARTS = ("checkpoints", "tensorboard", EVALUATIONS)
"""Folders in a run's that hold no runs."""
APART = 0.02
"""By how much the test Dice of a run's card and of its evaluation may differ, say through another precision; with more
between them they are taken to be of different weights."""


class SearchResult(NamedTuple):
    """What a study's files tell of its search.

    Attributes:
      states: how each trial ended, by number.
      unknown: why that can't be told, where it can't.
      best: number of the trial that it chose; None where that isn't told.
      chosen_by: what it chose it by.
    """

    states: Mapping[int, str]
    unknown: str = ""
    best: int | None = None
    chosen_by: str = "validation Dice"


@dataclass(frozen=True)
class Run:
    """A run that came to its end.

    Attributes:
      folder: where it lies.
      role: by where it lies: a study's trial (STUDY/trials/NNN), its best trial again with another seed
        (STUDY/seeds/NNN-SEED), an ablation of these (STUDY/ablations/NAME/SEED), or a run by itself.
      study: folder of the study that it belongs to.
      search: of that study.
      config: what it was asked for.
      card: see `artefacts.card`.
      curve: the lines of metrics.jsonl, one an epoch; empty for a zero-shot run.
      scores: of the model as it was tuned, by split ("val", and "test" where it was scored) and metric, as in the card.
      evaluations: what `evaluate` left in the folder.
    """

    folder: Path
    role: Role
    study: Path | None
    search: SearchResult | None
    config: Config
    card: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]]
    scores: Mapping[str, Mapping[str, float]]
    evaluations: Sequence[StoredEvaluation]

    @property
    def zero_shot(self) -> bool:
        """Whether this is the model as it is, with nothing learnt."""
        return stored_run.zero_shot(self.config)

    @property
    def passed_over(self) -> bool:
        """Whether this is a trial, or one again with another seed, and its study chose another trial."""
        best = None if self.search is None or self.role == "ablation" else self.search.best
        return best is not None and best != int(self.folder.name.partition("-")[0])

    @property
    def validation(self) -> float:
        """The validation Dice that a choice among runs goes by: that of the best epoch, as it was trained."""
        return max(line["val"]["dice"] for line in self.curve) if self.curve else self.scores["val"]["dice"]

    @property
    def own_test(self) -> StoredEvaluation | None:
        """The evaluation of the records that the run itself is to be tested on, at the model's size."""
        fitting = (one for one in self.evaluations if _is_own(one, self.card))
        return next(fitting, None)


@dataclass(frozen=True)
class Skipped:
    """Something that doesn't count.

    Attributes:
      path: the folder of a run, or the JSON of an evaluation.
      reason: why, in one line.
    """

    path: Path
    reason: str


def gather(root: Path) -> tuple[list[Run], list[Skipped]]:
    """Every run under a folder, in the order of their paths, and what was skipped.

    A run counts if its files are whole and agree with each other, and an evaluation if its files do. Trials count once
    the search of their study has ended, unless they were pruned or diverged. Replays of trials are no results and are
    passed over, as are hidden folders and links to folders.

    Raises:
      UserError: there is no such folder, or it can't be read.
    """
    if not root.is_dir():
        raise UserError(
            f"{root} is a file, not a folder of runs" if root.exists() else f"there is no folder {root}", "not-a-folder"
        )
    runs: list[Run] = []
    skipped: list[Skipped] = []
    searched = cache(_searched)
    for place, names, files in os.walk(root, onerror=_raise):
        path = Path(place)
        names[:] = sorted(name for name in names if not name.startswith(".") and not _is_replays(path / name))
        if not set(files) & set(stored_run.FILES):
            continue
        names[:] = [name for name in names if name not in PARTS]
        try:
            run, unread = _run(path, searched)
        except UserError as error:
            skipped.append(_skipped(path, error))
        else:
            runs.append(run)
            skipped += unread
    return runs, skipped


def _run(path: Path, searched: Callable[[Path], SearchResult]) -> tuple[Run, list[Skipped]]:
    """A run with the evaluations that count, and the others.

    Raises:
      UserError: it doesn't count.
    """
    role, study = _place(path)
    config = stored_run.settings(path)
    search = None if study is None else searched(study)
    if role == "trial" and search is not None:
        _check_end(int(path.name), search)
    card = stored_run.card(path, config)
    curve = stored_run.curve(path, config, card.get("best_epoch"))
    stored_run.check_learnt(path, config)
    found, unread = [], []
    for file in sorted((path / EVALUATIONS).glob("*.json")):
        try:
            evaluation = evaluations.read(file)
            _check_weights(evaluation, card)
        except UserError as error:
            unread.append(_skipped(file, error))
        else:
            found.append(evaluation)
    return Run(path, role, study, search, config, card, curve, card["scores"]["tuned"], tuple(found)), unread


def _place(path: Path) -> tuple[Role, Path | None]:
    """What a run is by where it lies, and its study."""
    if path.parent.name == "trials" and re.fullmatch(r"\d{3,}", path.name):
        return "trial", path.parent.parent
    if path.parent.name == "seeds" and re.fullmatch(r"\d{3,}-\d+", path.name):
        return "seed", path.parent.parent
    if path.parent.parent.name == "ablations" and path.name.isdigit():
        return "ablation", path.parent.parent.parent
    return "run", None


def _is_replays(path: Path) -> bool:
    return path.name == "replays" and (path.parent / "trials").is_dir()


def _searched(study: Path) -> SearchResult:
    """Reads how the trials of a study ended, and which of them it chose."""
    try:
        stored = read_object(study / summary.SUMMARY_FILE)
        text = (study / summary.TRIALS_FILE).read_bytes().decode("utf-8")
    except (UserError, OSError, ValueError):
        return SearchResult(
            {}, "the search of its study hasn't ended; the sweep's command, given again, goes on with it"
        )
    try:
        states = {int(row["trial"]): row["state"] for row in csv.DictReader(text.splitlines(), strict=True)}
    except (csv.Error, ValueError, KeyError, TypeError):
        states = {}
    if len(states) != stored.get("trials") or not text.endswith("\n"):
        broken = f"{summary.TRIALS_FILE} of its study is broken; the sweep's command, given again, writes it anew"
        return SearchResult({}, broken)
    best = stored.get("best")
    if not isinstance(best, dict) or type(best.get("trial")) is not int:
        return SearchResult(states)
    return SearchResult(states, best=best["trial"], chosen_by=str(best.get("chosen_by", "validation Dice")))


def _check_end(number: int, search: SearchResult) -> None:
    """Raises a UserError unless a trial was trained to its end."""
    if search.unknown:
        raise UserError(search.unknown, "trial-unfinished")
    match search.states.get(number):
        case "complete":
            return
        case "pruned":
            raise UserError("a pruned trial: the sweep gave it up", "trial-unfinished")
        case "fail":
            raise UserError("a failed trial: its loss wasn't finite", "trial-unfinished")
        case _:
            raise UserError(f"its study's {summary.TRIALS_FILE} lacks it: the search goes on", "trial-unfinished")


def _is_own(evaluation: StoredEvaluation, card: Mapping[str, Any]) -> bool:
    """Whether an evaluation is of the records that the card is of, in the same way."""
    same = evaluation.data_sha256 == card["data"].get("test") and evaluation.data == card["data"]["name"]
    return same and evaluation.split == "test" and evaluation.resolution == "model" and not evaluation.every_class


def _check_weights(evaluation: StoredEvaluation, card: Mapping[str, Any]) -> None:
    """Raises a UserError if an evaluation is of other weights than the run's, as far as scores can tell."""
    scores = card["scores"]["tuned"]
    if "test" in scores and _is_own(evaluation, card):
        ours, theirs = evaluation.scores["dice"], scores["test"]["dice"]
        if not math.isclose(ours, theirs, abs_tol=APART):
            raise UserError(f"its Dice is {ours:.4f}, the card's {theirs:.4f}: other weights", "scores-disagree")


def _skipped(path: Path, error: UserError) -> Skipped:
    return Skipped(path, error.line)


def _raise(error: OSError) -> None:
    raise UserError(f"can't read {error.filename}: {error.strerror}", "unreadable")
