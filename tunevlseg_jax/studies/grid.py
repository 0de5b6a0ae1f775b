"""A study: data sets x combinations of model and learner x ablations, defined by a short Python file."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.learners import ZeroShot
from tunevlseg_jax.learners.space import Value
from tunevlseg_jax.runs.card import NON_IDENTITY_FIELDS
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search import trial_config
from tunevlseg_jax.search.options import Search

Kind = Literal["zero-shot", "fine-tuned", "searched"]


@dataclass(frozen=True, kw_only=True)
class Combination:
    """A model and a way to adapt it: a row of the paper's Table 3.

    Attributes:
      config: of its runs, or of its search. The study sets the data set and the folder.
      space: additions to and replacements of the study's space, see `Search.space`.
    """

    config: Config = field(default_factory=Config)
    space: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The model as it is; fine-tuned, or with an upsampler, as the configuration says; prompts after a search."""
        if not isinstance(self.config.learner, ZeroShot):
            return "searched"
        frozen = self.config.train.tune == "prompts" and self.config.upsampling == "none"
        return "zero-shot" if frozen else "fine-tuned"

    @property
    def name(self) -> str:
        """The displayed name, such as "VPT on clipseg-tiny"."""
        tuned = {"prompts": "upsampler", "decoder": "fine-tuned decoder", "all": "fine-tuned model"}
        names = {"searched": self.config.learner.name, "fine-tuned": tuned[self.config.train.tune]}
        return f"{names.get(self.kind, self.kind)} on {Path(self.config.model.checkpoint).name}"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The best trials of searches again, with one field of their configuration changed and no new search.

    Attributes:
      name: of its folders.
      field: of the configuration, such as "upsampling" or "learner.init_phrase"; one of learner or optim, upsampling,
        or of train: epochs, batch_size, patience or min_delta.
      value: that the field gets.
      learners: names of the classes to which it applies; () for all that are searched.
    """

    name: str
    field: str
    value: Value
    learners: tuple[str, ...] = ()

    def applies(self, combination: Combination) -> bool:
        """Whether it changes this combination's best trials."""
        learner = combination.config.learner.name
        return combination.kind == "searched" and (not self.learners or learner in self.learners)

    def of(self, config: Config) -> Config:
        """A configuration with the field changed.

        Raises:
          UserError: a study's runs can't differ in the field, or the value is invalid.
        """
        where, known = f"the ablation {self.name!r}", trial_config.variable(config)
        field = schema.current_name(self.field)
        if field not in known:
            details = f"{self.field!r} of {config.learner.name}; it can change {', '.join(sorted(known))}"
            raise UserError(f"{where} can't change {details}", "unknown-field")
        changed = trial_config.apply(config, {}, {field: self.value}, where)
        try:
            configuration.check(changed)
        except UserError as error:
            raise UserError(f"{where}: {error}", error.code) from None
        return changed


@dataclass(frozen=True)
class GridCell:
    """One data set's runs of a combination, or of an ablation of it, on each of these folds; () for no folds."""

    data: str
    combination: Combination
    ablation: Ablation | None = None
    folds: tuple[int, ...] = ()

    @property
    def way(self) -> str:
        """The displayed name of the model's adaptation, the same for every data set."""
        return self.combination.name + ("" if self.ablation is None else f", {self.ablation.name}")

    @property
    def name(self) -> str:
        """The displayed name."""
        return f"{self.data}, {self.way}"

    @property
    def folder(self) -> Path:
        """The folder of the run, the search, or the search's ablation, within the study's."""
        folder = Path(_slug(self.data), _slug(self.combination.name))
        return folder if self.ablation is None else folder / "ablations" / _slug(self.ablation.name)

    @property
    def config(self) -> Config:
        """The configuration of its runs, on the first fold, without the changes by a search or an ablation."""
        data = dataclasses.replace(self.combination.config.data, name=self.data)
        if self.folds:
            data = dataclasses.replace(data, fold=self.folds[0])
        return dataclasses.replace(self.combination.config, data=data)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study.

    Attributes:
      folder: of all its runs and of its report.
      data: names of the data sets.
      combinations: each on every data set.
      ablations: of the searches' best trials.
      search: options of the searches; the sampler's seed is for the first data set, and grows by one with each.
      across: groups of data sets; a run on one is evaluated on the group's others as well.
      folds: numbers of the data sets' folds. Each combination is trained on each of them: the searches are on the
        first, and their best trials are trained again on the others, as with other seeds. () for train and val as
        prepared.
    """

    folder: str
    data: tuple[str, ...]
    combinations: tuple[Combination, ...]
    ablations: tuple[Ablation, ...] = ()
    search: Search = field(default_factory=Search)
    across: tuple[tuple[str, ...], ...] = ()
    folds: tuple[int, ...] = schema.added(())

    def cells(self) -> list[GridCell]:
        """All cells, in the order in which they are run: a search comes before its ablations."""
        cells = []
        for data in self.data:
            for combination in self.combinations:
                ablations = (ablation for ablation in self.ablations if ablation.applies(combination))
                cells += [GridCell(data, combination, ablation, self.folds) for ablation in (None, *ablations)]
        return cells

    def options(self, cell: GridCell) -> Search:
        """The options of a cell's search."""
        space = (*self.search.space, *cell.combination.space)
        seed = self.search.sampler_seed + self.data.index(cell.data)
        return dataclasses.replace(self.search, space=space, sampler_seed=seed, test_all=True)

    def tested(self, cell: GridCell) -> list[Data]:
        """The data sets that a cell's runs are evaluated on, first the cell's."""
        others = {name: None for group in self.across if cell.data in group for name in group if name != cell.data}
        elsewhere = (cell.config.data.for_scoring(name=name, fold=None) for name in others)
        return [cell.config.data.for_scoring(), *elsewhere]

    def with_shots(self, shots: int | None) -> "Study":
        """The study on this many training records of each class, None for all, in a folder of its own in its folder."""
        combinations = tuple(
            dataclasses.replace(
                each, config=dataclasses.replace(each.config, data=dataclasses.replace(each.config.data, shots=shots))
            )
            for each in self.combinations
        )
        name = f"shots-{'all' if shots is None else shots}"
        return dataclasses.replace(self, folder=str(Path(self.folder) / name), combinations=combinations)

    def identity(self) -> dict[str, Any]:
        """The settings that determine its results, as JSON."""
        details = schema.to_json(self)
        del details["folder"], details["search"]["storage"], details["search"]["scratch"]
        for name in ("data", "ablations"):
            details[name] = {item if name == "data" else item["name"]: item for item in details[name]}
        details["combinations"] = {combination.name: _identity(combination) for combination in self.combinations}
        return details

    def check(self) -> None:
        """Raises a UserError if it is invalid."""
        self.search.check()
        if not self.data or not self.combinations:
            raise UserError("a study needs at least one data set and one combination", "empty-study")
        if len({*self.folds}) < len(self.folds):
            raise UserError(f"the study has a fold twice: {', '.join(map(str, self.folds))}", "duplicate-name")
        if self.folds and any(combination.config.data.fold is not None for combination in self.combinations):
            raise UserError("the study has folds, so that its combinations' data.fold must be None", "options-conflict")
        folders = Counter(cell.folder for cell in self.cells())
        for cell in self.cells():
            if folders[cell.folder] > 1:
                raise UserError(f"the study has {cell.name} twice", "duplicate-name")
            configuration.check(cell.config)
            configuration.check_fresh(cell.config, "each run of a study")
        for name in {name for group in self.across for name in group} - set(self.data):
            raise UserError(f"across names {name}, which is not among the study's data sets", "no-such-data-set")
        for ablation in self.ablations:
            changed = [ablation.of(each.config) for each in self.combinations if ablation.applies(each)]
            if not changed:
                raise UserError(f"the ablation {ablation.name!r} applies to no learner of the study", "unknown-learner")


def load(path: str) -> Study:
    """The `study` that a Python file defines.

    Raises:
      UserError: as in `config.defined`, or the study is invalid.
    """
    study = configuration.defined(path, "study", Study, Combination, Ablation, Search)
    study.check()
    return study


def _identity(combination: Combination) -> dict[str, Any]:
    flat = schema.flat(schema.to_json(combination.config))
    kept = {name: value for name, value in flat.items() if name not in (*NON_IDENTITY_FIELDS, "data.name")}
    return kept | {"space": list(combination.space)}


def _slug(name: str) -> str:
    """The folder's name for a displayed name: "vpt-on-clipseg-tiny" for "VPT on clipseg-tiny"."""
    return "-".join(name.replace("/", " ").lower().split())
