"""Selects the runs that represent each cell of a table.

A cell is a model, a combination, an ablation and a data set. Three rules fill it, and everything that a table or a
figure shows comes from them:

1. Like with like. The runs of a data set differ in nothing that decides what a score means: protocol, shots and kind of
   prompts throughout the data set, and for each model also image size and the fingerprints of the records. Where there
   are several such conditions, the one that most cells have stands, and the runs of the others are left out, by name.
2. Selection by validation. A study is represented by its selected trial. Of a cell's configurations (seed and
   whereabouts aside) the one with the highest validation Dice of the best epoch stands, as a mean over its runs.
   Repetitions of a sweep's best trial with other seeds don't vote: they would count against the trial that was chosen
   because its own seed was lucky.
3. Every seed counts. The cell's scores are means over the seeds of that configuration, on the test split: from each
   run's own evaluation of its records at the model's size, or where there is none from the card.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
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
COMBINATIONS = (ZERO_SHOT, DECODER, MODEL, *(learner.__name__ for learner in LEARNERS))
"""In the order of the tables; what a user may make beyond these comes after them."""
NONE, GAUSSIAN, NO_UPSAMPLER = "", "Gaussian context", "no upsampler"
"""Ablations; several are joined with commas."""

APART = (*NON_IDENTITY_FIELDS, "train.seed", "model.checkpoint")
"""Fields in which runs of one configuration may differ; the model's hash says which model it is."""


class RowKey(NamedTuple):
    """What a row of a table is of: a model, a combination and an ablation, as in `Key`."""

    model: str
    combination: str
    ablation: str


class Key(NamedTuple):
    """A cell's place.

    Attributes:
      model: name of the base model.
      combination: one of COMBINATIONS, or another learner's name.
      ablation: what is changed from the paper's way, or NONE.
      data: name of the data set.
    """

    model: str
    combination: str
    ablation: str
    data: str


class Score(NamedTuple):
    """A metric over the runs of a cell: mean, standard deviation (of a sample; None for one run), number of runs."""

    mean: float
    std: float | None
    runs: int


@dataclass(frozen=True)
class Cell:
    """The runs that represent a cell.

    Attributes:
      key: its place.
      runs: of one configuration, by seed.
      configurations: how many there were to choose from.
      condition: what all runs compared here share, see `condition`.
    """

    key: Key
    runs: tuple[Run, ...]
    configurations: int
    condition: Mapping[str, Hashable]

    @property
    def row(self) -> RowKey:
        """The row that it is in."""
        return RowKey(*self.key[:3])

    def score(self, metric: str) -> Score | None:
        """A test score, such as "dice", "iou" or "hd95_both_nonempty"; None where no run has it."""
        scores = [score[metric] for score in map(tested, self.runs) if score is not None]
        return summary([score for score in scores if score is not None])

    @property
    def untested(self) -> list[Run]:
        """The runs without a test score."""
        return [run for run in self.runs if tested(run) is None]

    @property
    def from_card(self) -> bool:
        """Whether a run's scores are those of its card, for want of its own evaluation."""
        return any(run.own_test is None for run in self.runs if tested(run) is not None)

    @property
    def records(self) -> int | None:
        """Number of test records, where an evaluation tells."""
        return next((run.own_test.records for run in self.runs if run.own_test), None)


@dataclass(frozen=True)
class Cells:
    """Every cell, and the runs that represent none because they can't be compared.

    Attributes:
      by_key: the cells.
      left_out: runs of another condition, and copies, with the reason.
    """

    by_key: Mapping[Key, Cell]
    left_out: Sequence[Skipped]

    @cached_property
    def rows(self) -> list[RowKey]:
        """The cells without their data sets, each once, in the order of the tables."""
        return sorted({RowKey(*key[:3]) for key in self.by_key}, key=_order)

    def of(self, row: RowKey) -> list[Cell]:
        """The cells of a row, by data set."""
        return [cell for key, cell in sorted(self.by_key.items()) if key[:3] == row]

    @cached_property
    def data(self) -> list[str]:
        """The data sets by name."""
        return sorted({key.data for key in self.by_key})


def choose(runs: Iterable[Run]) -> Cells:
    """Sorts runs into cells, and picks those that represent each."""
    runs = list(runs)
    names = _model_names(runs)
    searched = {run.study: ablation(run.config) for run in runs if run.role in ("trial", "seed")}
    keys = {run.folder: _place(run, names[run.card["model_sha256"]], searched.get(run.study)) for run in runs}
    runs, others = _comparable(runs, keys)
    cells: dict[Key, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        cells[keys[run.folder]][configuration(run.config)].append(run)
    by_key, copies = {}, []
    for place, configurations in cells.items():
        for members in configurations.values():
            copies += _without_copies(members)
        standing = [members for members in configurations.values() if not all(run.passed_over for run in members)]
        best = max(standing or configurations.values(), key=_validation)
        by_seed = sorted(best, key=lambda run: run.config.train.seed)
        by_key[place] = Cell(place, tuple(by_seed), len(configurations), condition(by_seed[0]))
    return Cells(by_key, [*others, *copies])


def key(config: Config, model: str) -> Key:
    """The cell that a run belongs to."""
    return Key(model, combination(config), ablation(config), config.data.name)


def _place(run: Run, model: str, searched: str | None) -> Key:
    """The cell that a run belongs to; an ablation of a study that is none of the paper's is called as its folder is.

    Args:
      run: the run.
      model: name of its base model.
      searched: the ablation that the trials of its study are of.
    """
    found = key(run.config, model)
    if run.role == "ablation" and found.ablation == (searched or NONE):
        return found._replace(ablation=", ".join(filter(None, (found.ablation, run.folder.parent.name))))
    return found


def combination(config: Config) -> str:
    """What trains."""
    learner, tune = config.learner, config.train.tune
    parts = [] if isinstance(learner, ZeroShot) else [type(learner).__name__]
    parts += {"prompts": [], "decoder": [DECODER], "all": [MODEL]}[tune]
    if isinstance(learner, ZeroShot) and config.upsampling != "none":
        parts.append("upsampler")
    return " + ".join(parts) or ZERO_SHOT


def ablation(config: Config) -> str:
    """What is changed from the paper's way: words to start from where the learner has words, and an upsampler."""
    learner = config.learner
    parts = [GAUSSIAN] * (isinstance(learner, TextContextLearner) and learner.init_phrase is None)
    parts += [NO_UPSAMPLER] * (not isinstance(learner, ZeroShot) and config.upsampling == "none")
    return ", ".join(parts)


def configuration(config: Config) -> str:
    """What runs must agree in to be one configuration with several seeds."""
    flat = schema.flat(schema.to_json(config))
    return repr([(name, value) for name, value in flat.items() if name not in APART])


def condition(run: Run) -> dict[str, Hashable]:
    """What decides what a run's scores mean, by what to call it; a zero-shot run has seen no training records."""
    data, recorded = run.config.data, run.card["data"]
    height, width = run.card["protocol"]["image_size"]
    details: dict[str, Hashable] = {"protocol": data.protocol, "kind of prompts": data.prompt_index}
    details |= {} if run.zero_shot else {"shots": data.shots or "all"}
    details |= {"image size": f"{height}x{width}", "test records": recorded.get("test")}
    return details | ({} if run.zero_shot else {f"{part} records": recorded[short] for part, short in SPLITS.items()})


SPLITS = {"training": "train", "validation": "val"}
TERMS = ("protocol", "kind of prompts", "shots")
"""The parts of a condition that all models share on a data set."""


def tested(run: Run) -> Mapping[str, Any] | None:
    """A run's scores on its test split: those of its evaluation, or of its card, which knows nothing of outlines."""
    if run.own_test is not None:
        return run.own_test.scores
    if "test" not in run.scores:
        return None
    return {"hd95_both_nonempty": None, "surface_dice_2px": None, **run.scores["test"]}


def summary(values: Sequence[float]) -> Score | None:
    """Of some runs' scores; None for none."""
    if not values:
        return None
    return Score(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def _comparable(runs: Sequence[Run], keys: Mapping[Path, Key]) -> tuple[list[Run], list[Skipped]]:
    """The runs of the condition that most cells have, by data set and then by model, and the others."""
    kept, left_out = list(runs), []
    for parts, group in ((TERMS, lambda place: place.data), (None, lambda place: (place.data, place.model))):
        details = {run.folder: _part(condition(run), parts) for run in kept}
        groups = defaultdict(list)
        for run in kept:
            groups[group(keys[run.folder])].append(run)
        standing = {}
        for place, members in groups.items():
            standing[place] = _most_common([(keys[run.folder], details[run.folder]) for run in members])
        for run in list(kept):
            chosen = standing[group(keys[run.folder])]
            differs = [name for name, value in details[run.folder].items() if chosen.get(name, value) != value]
            if differs:
                kept.remove(run)
                left_out.append(Skipped(run.folder, _details(differs[0], details[run.folder], chosen)))
    return kept, left_out


def _part(details: Mapping[str, Hashable], names: Sequence[str] | None) -> dict[str, Hashable]:
    return {name: value for name, value in details.items() if names is None or name in names}


def _most_common(conditions: Sequence[tuple[Key, Mapping[str, Hashable]]]) -> Mapping[str, Hashable]:
    """The condition that most cells have; of equals the one with more runs, then the one that comes first."""
    cells: dict[tuple, set[Key]] = defaultdict(set)
    runs: Counter[tuple] = Counter()
    for place, details in conditions:
        cells[tuple(details.items())].add(place)
        runs[tuple(details.items())] += 1
    # A zero-shot run tells of fewer things, and fits any condition that agrees in those.
    widest = max(map(len, cells))
    best = max(
        (details for details in cells if len(details) == widest),
        key=lambda details: (len(cells[details]), runs[details]),
    )
    return dict(best)


def _details(name: str, own: Mapping[str, Hashable], chosen: Mapping[str, Hashable]) -> str:
    """Why a run is left out."""
    if name.endswith("records"):
        return f"left out: its {name} are others than those of most cells of this data set and model"
    return f"left out: its {name} is {own[name]}, and that of most cells of this data set {chosen[name]}"


def _without_copies(members: list[Run]) -> list[Skipped]:
    """Removes all runs but one of each seed, and names them: the first that its study chose, if it is of a study."""
    first: dict[int, Run] = {}
    copies = []
    for run in sorted(members, key=lambda run: run.passed_over):
        before = first.setdefault(run.config.train.seed, run)
        if before is not run:
            members.remove(run)
            copies.append(Skipped(run.folder, f"left out: of the same configuration and seed as {before.folder}"))
    return copies


def _validation(members: Sequence[Run]) -> float:
    """The validation Dice that a configuration is chosen by."""
    voting = [run for run in members if run.role != "seed"] or members
    return statistics.fmean(run.validation for run in voting)


def _model_names(runs: Iterable[Run]) -> dict[str, str]:
    """A name for each base model by its hash: its folder's, with a part of the hash where two share it."""
    called: dict[str, str] = {}
    for run in runs:
        called.setdefault(run.card["model_sha256"], Path(run.config.model.checkpoint).name)
    shared = Counter(called.values())
    return {sha: name if shared[name] == 1 else f"{name} ({sha[:6]})" for sha, name in called.items()}


def _order(row: RowKey) -> tuple[str, int, RowKey]:
    what = row.combination
    return row.model, COMBINATIONS.index(what) if what in COMBINATIONS else len(COMBINATIONS), row
