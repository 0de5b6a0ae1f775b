"""Selects the runs that represent each cell of a table: a model, a combination, an ablation and a data set.

Three rules decide every number of the tables and figures:

1. Only comparable runs are compared. The runs of a data set share protocol, shots, kind of prompts and whether train
   and val are folds, and those of a model on it also image size and the fingerprints of the records, which for train
   and val are a fold's. Where runs differ in these, the condition that most cells have is kept, and the other runs are
   listed as left out.
2. Validation selects. A study is represented by its selected trial. Of a cell's configurations (fold, seed and paths
   aside) the one with the highest validation Dice of the best epoch, as a mean over its runs, represents the cell. The
   repetitions of a sweep's best trial with other seeds and folds don't count here: the trial was selected with a lucky
   seed, and they would make it look worse than trials that weren't repeated.
3. Every fold and seed counts. A cell's scores are means over the runs of that configuration, on the test split: from
   each run's own evaluation at the model's size, or from its card where there is none.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tunevlseg_jax.config import Config
from tunevlseg_jax.learners import LEARNERS, ZeroShot
from tunevlseg_jax.learners.textual import TextContextLearner
from tunevlseg_jax.reporting.runs import Run, Skipped
from tunevlseg_jax.runs.card import NON_IDENTITY_FIELDS
from tunevlseg_jax.runtime import schema

ZERO_SHOT, DECODER, MODEL = "zero-shot", "fine-tuned decoder", "fine-tuned model"
BASELINES = (ZERO_SHOT, DECODER, MODEL)
COMBINATIONS = (*BASELINES, *(learner.__name__ for learner in LEARNERS))
"""In the order of the tables; learners of users come after them."""
NONE, GAUSSIAN, NO_UPSAMPLER = "", "Gaussian context", "no upsampler"
"""Ablations; several are joined with commas."""

APART = (*NON_IDENTITY_FIELDS, "data.fold", "train.seed", "model.checkpoint")
"""Fields in which runs of one configuration may differ; the model is identified by its hash."""


class RowKey(NamedTuple):
    """The place of a table's row: a model, a combination and an ablation, as in `Key`."""

    model: str
    combination: str
    ablation: str


class Key(NamedTuple):
    """The place of a cell.

    Attributes:
      model: name of the base model.
      combination: one of COMBINATIONS, or another learner's name.
      ablation: what differs from the paper's way, or NONE.
      data: name of the data set.
    """

    model: str
    combination: str
    ablation: str
    data: str

    @property
    def row(self) -> RowKey:
        """The row of the tables that the cell is in."""
        return RowKey(*self[:3])


class Score(NamedTuple):
    """A metric over the runs of a cell: mean, sample standard deviation (None for one run), number of runs."""

    mean: float
    std: float | None
    runs: int


@dataclass(frozen=True)
class Cell:
    """The runs that represent a cell.

    Attributes:
      key: its place.
      runs: of one configuration, by fold and seed.
      configurations: the number of candidates.
      condition: see `condition`; all runs that are compared share it.
    """

    key: Key
    runs: tuple[Run, ...]
    configurations: int
    condition: Mapping[str, Hashable]

    def score(self, metric: str) -> Score | None:
        """A test score, such as "dice", "iou" or "hd95_both_nonempty"; None where no run has it."""
        scores = [score.get(metric) for score in map(tested, self.runs) if score is not None]
        return summary([score for score in scores if score is not None])

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds of its runs; () where train and val are the set's own, or nothing trains."""
        trained = (run.config.data.fold for run in self.runs if not run.zero_shot)
        return tuple(sorted({fold for fold in trained if fold is not None}))

    @property
    def seeds(self) -> int:
        """The number of different seeds."""
        return len({run.config.train.seed for run in self.runs})

    @property
    def spread(self) -> str:
        """What the deviation of its scores is over: "folds", "seeds", "folds and seeds", or "" for one run."""
        return " and ".join(["folds"] * (len(self.folds) > 1) + ["seeds"] * (self.seeds > 1))

    @property
    def from_card(self) -> bool:
        """Whether a run's scores are from its card, as it has no evaluation of its own test records."""
        return any(run.own_test is None for run in self.runs if tested(run) is not None)

    @property
    def records(self) -> int | None:
        """Number of test records; None without an evaluation."""
        return next((run.own_test.records for run in self.runs if run.own_test), None)


@dataclass(frozen=True)
class Cells:
    """Every cell, and the runs that were compared for them.

    Attributes:
      by_key: the cells.
      left_out: runs of another condition, and copies, with the reason.
      runs: the other runs, with the key of the cell that each belongs to.
    """

    by_key: Mapping[Key, Cell]
    left_out: Sequence[Skipped] = ()
    runs: Sequence[tuple[Key, Run]] = ()

    @cached_property
    def ordered(self) -> list[Cell]:
        """The cells in the order of the tables."""
        return [self.by_key[key] for key in sorted(self.by_key, key=_order)]

    @cached_property
    def rows(self) -> list[RowKey]:
        """The rows of the tables in their order."""
        return list(dict.fromkeys(cell.key.row for cell in self.ordered))

    @cached_property
    def compared(self) -> list[tuple[Key, Run]]:
        """All runs that were compared, with their cells' keys, in the order of the tables."""
        return sorted(self.runs, key=lambda pair: (_order(pair[0]), str(pair[1].folder)))


def choose(runs: Iterable[Run]) -> Cells:
    """Sorts runs into cells, and picks those that represent each."""
    runs = list(runs)
    names = _model_names(runs)
    searched = {run.study: ablation(run.config) for run in runs if run.role in ("trial", "seed", "fold")}
    keys = {run.folder: _place(run, names[run.card["model_sha256"]], searched.get(run.study)) for run in runs}
    runs, left_out = _comparable(runs, keys)
    cells: dict[Key, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        cells[keys[run.folder]][configuration(run.config)].append(run)
    by_key, compared = {}, []
    for place, configurations in cells.items():
        for members in configurations.values():
            left_out += _without_copies(members)
            compared += [(place, run) for run in members]
        selected = [members for members in configurations.values() if not all(run.passed_over for run in members)]
        best = max(selected or configurations.values(), key=_validation)
        ordered = sorted(best, key=_repetition)
        by_key[place] = Cell(place, tuple(ordered), len(configurations), condition(ordered[0]))
    return Cells(by_key, left_out, compared)


def key(config: Config, model: str) -> Key:
    """The cell that a run belongs to."""
    return Key(model, combination(config), ablation(config), config.data.name)


def _place(run: Run, model: str, searched: str | None) -> Key:
    """The cell that a run of a model belongs to. In a study whose trials are of the ablation `searched`, an ablation
    that isn't the paper's is named after its folder."""
    place = key(run.config, model)
    if run.role == "ablation" and place.ablation == (searched or NONE):
        return place._replace(ablation=", ".join(filter(None, (place.ablation, run.folder.parent.name))))
    return place


def combination(config: Config) -> str:
    """The name of what trains: the learner, the decoder, the model or the upsampler."""
    learner, tune = config.learner, config.train.tune
    parts = [] if isinstance(learner, ZeroShot) else [learner.name]
    parts += {"prompts": [], "decoder": [DECODER], "all": [MODEL]}[tune]
    if isinstance(learner, ZeroShot) and config.upsampling != "none":
        parts.append("upsampler")
    return " + ".join(parts) or ZERO_SHOT


def ablation(config: Config) -> str:
    """The differences from the paper's way: no initial words where the learner may have some, and no upsampler."""
    learner = config.learner
    gaussian = (isinstance(part, TextContextLearner) and part.init_phrase is None for part in learner.parts.values())
    parts = [GAUSSIAN] * any(gaussian)
    parts += [NO_UPSAMPLER] * (not isinstance(learner, ZeroShot) and config.upsampling == "none")
    return ", ".join(parts)


def configuration(config: Config) -> str:
    """A configuration without the fields in which its runs may differ."""
    flat = schema.flat(schema.to_json(config))
    return repr([(name, value) for name, value in flat.items() if name not in APART])


def condition(run: Run) -> dict[str, Hashable]:
    """The settings that decide what a run's scores mean, by their names; a zero-shot run has no training records."""
    data, sha = run.config.data, run.card["data"]
    height, width = run.card["protocol"]["image_size"]
    details: dict[str, Hashable] = {"protocol": data.protocol, "kind of prompts": data.prompt_index}
    source = "the set's own" if data.fold is None else "folds"
    details |= {} if run.zero_shot else {"shots": data.shots or "all", SOURCE: source}
    details |= {"image size": f"{height}x{width}", "test records": sha.get("test")}
    return details | ({} if run.zero_shot else dict(zip(TRAINED_ON, (sha["train"], sha["val"]), strict=True)))


SOURCE = "source of train and val"
TERMS = ("protocol", "kind of prompts", "shots", SOURCE)
"""The parts of a condition that all models share on a data set."""
TRAINED_ON = ("training records", "validation records")
"""The parts of a condition that are another fold's on another fold."""


def tested(run: Run) -> Mapping[str, Any] | None:
    """A run's scores on its test split: those of its evaluation, or of its card, which has none of outlines."""
    if run.own_test is not None:
        return run.own_test.scores
    outlines = {"hd95_both_nonempty": None, "surface_dice_2px": None}
    return {**outlines, **run.scores["test"]} if "test" in run.scores else None


def summary(values: Sequence[float]) -> Score | None:
    """Mean and deviation of some runs' scores; None for none."""
    if not values:
        return None
    return Score(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def _comparable(runs: Sequence[Run], keys: Mapping[Path, Key]) -> tuple[list[Run], list[Skipped]]:
    """The runs of the condition that most cells have, by data set, then by model and by fold, and the others."""
    kept, left_out = list(runs), []

    def by_fold(run: Run) -> tuple[str, str, int | None]:
        key = keys[run.folder]
        return key.data, key.model, run.config.data.fold

    passes: tuple[tuple[Callable[[Run], Hashable], Callable[[str, Run], bool]], ...] = (
        (lambda run: keys[run.folder].data, lambda name, run: name in TERMS),
        (lambda run: by_fold(run)[:2], lambda name, run: name not in TRAINED_ON or run.config.data.fold is None),
        (by_fold, lambda name, run: True),
    )
    for group, counts in passes:
        details = {
            run.folder: {name: value for name, value in condition(run).items() if counts(name, run)} for run in kept
        }
        groups = defaultdict(list)
        for run in kept:
            groups[group(run)].append((keys[run.folder], tuple(details[run.folder].items())))
        most_common = {place: _most_common(members) for place, members in groups.items()}
        for run in list(kept):
            chosen = most_common[group(run)]
            differing = [name for name, value in details[run.folder].items() if chosen.get(name, value) != value]
            if differing:
                kept.remove(run)
                left_out.append(Skipped(run.folder, _reason(differing[0], details[run.folder], chosen)))
    return kept, left_out


def _most_common(conditions: Sequence[tuple[Key, tuple[tuple[str, Hashable], ...]]]) -> dict[str, Hashable]:
    """The condition that most cells have; of equals the one with more runs, then the one that comes first.

    A zero-shot run's condition has fewer parts, and fits any condition that agrees in those, so the longest count.
    """
    keys = defaultdict(list)
    for key, details in conditions:
        keys[details].append(key)
    return dict(max(keys, key=lambda details: (len(details), len({*keys[details]}), len(keys[details]))))


def _reason(name: str, details: Mapping[str, Hashable], chosen: Mapping[str, Hashable]) -> str:
    """Why a run is left out."""
    if name.endswith("records"):
        return f"left out: its {name} are others than those of most cells of this data set and model"
    return f"left out: its {name} is {details[name]}, and that of most cells of this data set {chosen[name]}"


def _without_copies(members: list[Run]) -> list[Skipped]:
    """Removes all runs but the first of each fold and seed, and returns them; selected trials come first."""
    first: dict[tuple[int, int], Run] = {}
    for run in sorted(members, key=lambda run: run.passed_over):
        first.setdefault(_repetition(run), run)
    copies = [run for run in members if first[_repetition(run)] is not run]
    members[:] = [run for run in members if first[_repetition(run)] is run]
    reason = "left out: of the same configuration and seed as"
    return [Skipped(run.folder, f"{reason} {first[_repetition(run)].folder}") for run in copies]


def _repetition(run: Run) -> tuple[int, int]:
    """A run's fold, -1 for none, and seed: what tells it apart from the others of its configuration."""
    fold = run.config.data.fold
    return -1 if fold is None else fold, run.config.train.seed


def _validation(members: Sequence[Run]) -> float:
    """The validation Dice that a configuration is chosen by."""
    voting = [run for run in members if run.role not in ("seed", "fold")] or members
    return statistics.fmean(run.validation for run in voting)


def _model_names(runs: Iterable[Run]) -> dict[str, str]:
    """A name for each base model by its hash: its folder's, with a part of the hash where two share it."""
    names: dict[str, str] = {}
    for run in runs:
        names.setdefault(run.card["model_sha256"], Path(run.config.model.checkpoint).name)
    shared = Counter(names.values())
    return {sha: name if shared[name] == 1 else f"{name} ({sha[:6]})" for sha, name in names.items()}


def _order(key: Key) -> tuple[str, int, Key]:
    what = key.combination
    return key.model, COMBINATIONS.index(what) if what in COMBINATIONS else len(COMBINATIONS), key
