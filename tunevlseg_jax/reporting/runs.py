"""Gathers the runs under a folder, and lists the folders and files that it skips, each with the reason."""

import contextlib
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

Role = Literal["run", "trial", "seed", "fold", "ablation"]

EVALUATIONS = "evaluations"
PARTS = ("checkpoints", "tensorboard", EVALUATIONS)
"""Folders within a run's folder that hold no runs."""
ENDS: Mapping[str | None, str] = {
    "pruned": "a pruned trial: the sweep gave it up",
    "fail": "a failed trial: its loss wasn't finite",
}
UNLISTED = f"{summary.TRIALS_FILE} of its study doesn't list it: its search hasn't ended"
"""Why trials don't count, by the state in which they ended."""
APART = 0.02
"""The largest difference between the test Dice of a run's card and of its evaluation that other devices or another
precision may cause; with a larger one they are of different weights."""


class SearchResult(NamedTuple):
    """The end of a study's search: how each trial ended, the selected trial if there is one, and the score that
    selected it."""

    states: Mapping[int, str]
    best: int | None = None
    chosen_by: str = "validation Dice"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
      folder: of the run.
      role: by its folder: a study's trial (STUDY/trials/NNN), its best trial with another seed (STUDY/seeds/NNN-SEED),
        or on another fold (STUDY/folds/NNN-FOLD-SEED), an ablation of these (STUDY/ablations/NAME/SEED, or FOLD-SEED),
        or a run by itself.
      study: folder of the study that it belongs to.
      search: of that study.
      config: of the run.
      card: see `card.make_card`.
      curve: the lines of metrics.jsonl, one an epoch; empty for a zero-shot run.
      evaluations: those in the run's folder.
    """

    folder: Path
    role: Role
    study: Path | None
    search: SearchResult | None
    config: Config
    card: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]]
    evaluations: Sequence[StoredEvaluation]

    @property
    def scores(self) -> Mapping[str, Mapping[str, float]]:
        """The scores of the tuned model by split ("val", and "test" where it was scored) and metric, from the card."""
        return self.card["scores"]["tuned"]

    @property
    def zero_shot(self) -> bool:
        """Whether this is the model without any training."""
        return stored_run.zero_shot(self.config)

    @property
    def passed_over(self) -> bool:
        """Whether this is a trial, or its repetition with other seeds or folds, and its study selected another."""
        best = None if self.search is None or self.role == "ablation" else self.search.best
        return best is not None and best != int(self.folder.name.partition("-")[0])

    @property
    def validation(self) -> float:
        """The validation Dice of the best epoch, by which runs are chosen."""
        return max(line["val"]["dice"] for line in self.curve) if self.curve else self.scores["val"]["dice"]

    @property
    def own_test(self) -> StoredEvaluation | None:
        """The evaluation of the run's own test records, at the model's size."""
        return next((stored for stored in self.evaluations if _is_own(stored, self.card)), None)


@dataclass(frozen=True)
class Skipped:
    """The folder of a run or the JSON of an evaluation that doesn't count, and the reason in one line."""

    path: Path
    reason: str


def gather(root: Path) -> tuple[list[Run], list[Skipped]]:
    """Every run under a folder, in the order of their paths, and what was skipped.

    A run or an evaluation counts if its files are complete and agree. Trials count once the search of their study has
    ended, unless they were pruned or diverged. Replays of trials, hidden folders and links to folders are ignored.

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


def gather_some(root: Path) -> tuple[list[Run], list[Skipped]]:
    """As `gather`; raises a UserError where there is no run."""
    gathered, skipped = gather(root)
    if not gathered:
        details = f": {skipped[0].path}: {skipped[0].reason}" if skipped else ""
        more = f", and {len(skipped) - 1} more" if len(skipped) > 1 else ""
        raise UserError(f"there is no run to report on in {root}{details}{more}", "no-runs")
    return gathered, skipped


def _run(path: Path, searched: Callable[[Path], SearchResult]) -> tuple[Run, list[Skipped]]:
    """A run with the evaluations that count, and the others.

    Raises:
      UserError: it doesn't count.
    """
    role, study = _place(path)
    config = stored_run.read_config(path)
    search = None
    if study is not None:
        with contextlib.nullcontext() if role == "trial" else contextlib.suppress(UserError):
            search = searched(study)
    if role == "trial" and search is not None and (state := search.states.get(int(path.name))) != "complete":
        raise UserError(ENDS.get(state, UNLISTED), "trial-unfinished")
    card = stored_run.card(path, config)
    curve = stored_run.curve(path, config, card)
    stored_run.check_learnt(path, config)
    counting, skipped = [], []
    for file in sorted((path / EVALUATIONS).glob("*.json")):
        try:
            evaluation = evaluations.read(file)
            _check_data(evaluation)
            _check_weights(evaluation, card)
        except UserError as error:
            skipped.append(_skipped(file, error))
        else:
            counting.append(evaluation)
    return Run(path, role, study, search, config, card, curve, tuple(counting)), skipped


def _place(path: Path) -> tuple[Role, Path | None]:
    """A run's role by its folder, and its study."""
    if path.parent.name == "trials" and re.fullmatch(r"\d{3,}", path.name):
        return "trial", path.parent.parent
    if path.parent.name == "seeds" and re.fullmatch(r"\d{3,}-\d+", path.name):
        return "seed", path.parent.parent
    if path.parent.name == "folds" and re.fullmatch(r"\d{3,}-\d+-\d+", path.name):
        return "fold", path.parent.parent
    if path.parent.parent.name == "ablations" and re.fullmatch(r"(\d+-)?\d+", path.name):
        return "ablation", path.parent.parent.parent
    return "run", None


def _is_replays(path: Path) -> bool:
    return path.name == "replays" and (path.parent / "trials").is_dir()


def _searched(study: Path) -> SearchResult:
    """Reads how the trials of a study ended, and which of them it selected.

    Raises:
      UserError: the search goes on, or a file of its is broken.
    """
    try:
        stored = read_object(study / summary.SUMMARY_FILE)
        text = (study / summary.TRIALS_FILE).read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:  # UserError among them
        reason = "the search of its study hasn't ended; the sweep's command, given again, goes on with it"
        raise UserError(reason, "trial-unfinished") from error
    try:
        states = {int(row["trial"]): row["state"] for row in csv.DictReader(text.splitlines(), strict=True)}
    except (csv.Error, ValueError, KeyError, TypeError):
        states = {}
    if len(states) != stored.get("trials") or not text.endswith("\n"):
        broken = f"{summary.TRIALS_FILE} of its study is broken; the sweep's command, given again, writes it again"
        raise UserError(broken, "trial-unfinished")
    best = stored.get("best")
    if not isinstance(best, dict) or type(best.get("trial")) is not int:
        return SearchResult(states)
    return SearchResult(states, best=best["trial"], chosen_by=str(best.get("chosen_by", "validation Dice")))


def _is_own(evaluation: StoredEvaluation, card: Mapping[str, Any]) -> bool:
    """Whether an evaluation is of the test records in a run's card."""
    data = card["data"]
    return evaluation.is_plain_test and (evaluation.data, evaluation.data_sha256) == (data["name"], data.get("test"))


def _check_data(evaluation: StoredEvaluation) -> None:
    """Raises a UserError if an evaluation is of the run's data set, but not as it was in training."""
    if evaluation.data_changed:
        seen = evaluation.trained_on
        details = f", and {seen} of its images trained the run" if seen else ""
        message = f"the {evaluation.split} split of {evaluation.data} had changed since training{details}"
        raise UserError(message, "data-changed")


def _check_weights(evaluation: StoredEvaluation, card: Mapping[str, Any]) -> None:
    """Raises a UserError if an evaluation's scores are those of other weights than the run's."""
    scores = card["scores"]["tuned"]
    if "test" in scores and _is_own(evaluation, card):
        ours, theirs = evaluation.scores["dice"], scores["test"]["dice"]
        if not math.isclose(ours, theirs, abs_tol=APART):
            raise UserError(f"its Dice is {ours:.4f}, the card's {theirs:.4f}: other weights", "scores-disagree")


def _skipped(path: Path, error: UserError) -> Skipped:
    return Skipped(path, error.line)


def _raise(error: OSError) -> None:
    raise UserError(f"can't read {error.filename}: {error.strerror}", "unreadable")
