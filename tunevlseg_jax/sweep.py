"""Searches hyperparameters, many trials in one program: `python -m tunevlseg_jax.sweep --config FILE --study NAME`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
import tyro
from optuna.pruners import BasePruner
from rich.console import Console

from tunevlseg_jax import artefacts, command, devices, experiment, repeats, schema, search, standings
from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.data import sets
from tunevlseg_jax.errors import UserError, nearest
from tunevlseg_jax.experiment import Experiment
from tunevlseg_jax.learners import LEARNERS
from tunevlseg_jax.ledger import Ledger
from tunevlseg_jax.loop import Fit, Split
from tunevlseg_jax.sampler import START_UP, Sampler
from tunevlseg_jax.space import Space
from tunevlseg_jax.standings import Standings
from tunevlseg_jax.sweeper import Objective, Sweeper
from tunevlseg_jax.train import train

PROGRAM = "python -m tunevlseg_jax.sweep"
STUDIES = "runs/studies"

PRUNERS: dict[str, type[BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
}
BY_NAME = {cls.__name__.lower(): cls for cls in LEARNERS}


@dataclass(frozen=True, kw_only=True)
class Options:
    """A sweep: the options of the search, and those of every trial.

    Attributes:
      study: name of the study; one that exists is continued.
      trials: how many trials the study is to have, those that it has already included.
      parallel: trials to train at once, or "auto" for up to 10 as memory allows. A trial that is asked for while
        others run doesn't know their scores: the first 10 are random anyway, later ones are a little less informed
        than one after the other.
      seeds: runs of the best trial, with its own seed and those that follow.
      space: what to search besides or instead of the paper's Table 2, such as depth=1..5 learning_rate=1e-4..1e-3
        projector.kind=mlp,low_rank optim.warmup_steps=0..20 num_context=4.
      pruner: "median" gives up a trial that is worse than half of the finished ones were at the same epoch, "halving"
        all but the best quarter at epochs 1, 4, 16 and so on.
      objective: "dice", the validation Dice of the trial's best epoch, or "loss", that epoch's validation loss.
      sampler_seed: of the search.
      storage: URL of a database for the studies, such as postgresql://host/name; None for a journal file.
      folder: of all studies.
      learners: "all", or names such as coop,vpt: a study for each; None for the configuration's own.
      config: of every trial; data.name may list several data sets, a study for each.
    """

    study: str
    trials: int = 20
    parallel: Literal["auto"] | int = "auto"
    seeds: int = 1
    space: tuple[str, ...] = ()
    pruner: Literal["none", "median", "halving"] = "none"
    objective: Objective = "dice"
    sampler_seed: int = 0
    storage: str | None = None
    folder: str = STUDIES
    learners: str | None = None
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A trial to train alone.

    Attributes:
      study: name of the study.
      trial: number of the trial.
      folder: of all studies.
      workdir: folder of the new run; None for one in the study's folder.
    """

    study: tyro.conf.Positional[str]
    trial: tyro.conf.Positional[int]
    folder: str = STUDIES
    workdir: str | None = None


def main() -> None:
    """Searches, or with `replay STUDY TRIAL` trains one trial alone."""
    if sys.argv[1:2] == ["replay"]:
        del sys.argv[1]
        replay(command.options(Replay, f"{PROGRAM} replay", "Trains one trial of a study alone."), Console())
        return

    def over(config: Config) -> Options:
        return Options(study=tyro.MISSING, config=config)

    sweep(command.options_over_config(Options, over, PROGRAM, __doc__ or ""), Console())


def sweep(options: Options, console: Console) -> list[dict[str, Any]]:
    """Runs every study that the options ask for, and returns their summaries.

    Raises:
      UserError: an option or the search space can't be, or a study of that name is of another configuration.
    """
    _check(options)
    studies = _studies(options)
    table = Standings(console, list(studies), options.trials)
    summaries = []
    with table.live:
        for name, config in studies.items():
            summaries.append(_search(options, name, config, table))
        table.tell("")
    console.print(standings.results(summaries))
    for name in studies:
        folder = Path(options.folder) / name
        console.print(f"{name}: {folder / standings.SUMMARY_FILE}, {folder / standings.TRIALS_FILE}", soft_wrap=True)
    return summaries


def replay(options: Replay, console: Console) -> None:
    """Trains one trial alone, in a run folder of its own.

    Raises:
      UserError: there is no such trial here.
    """
    study = Path(options.folder) / options.study
    folder = study / "trials" / f"{options.trial:03d}"
    if not folder.is_dir():
        kept = [path.name.lstrip("0") or "0" for path in sorted(study.glob("trials/*"))]
        told = f"there are {', '.join(kept)}" if kept else f"there is no finished trial in {study}"
        raise UserError(f"the study {options.study!r} keeps no trial {options.trial}; {told}")
    config, _, card = artefacts.load_learnt(folder)
    again = options.workdir or str(study / "replays" / folder.name)
    results = train(dataclasses.replace(config, workdir=again), console)
    if card["scores"]:
        before, now = card["scores"]["tuned"]["val"]["dice"], results["tuned"]["val"]["dice"]
        console.print(f"val Dice {now:.6f} alone, {before:.6f} in the sweep")


def _check(options: Options) -> None:
    """Raises a UserError that names the first option that can't be."""
    for name in ("trials", "seeds", "parallel"):
        value = getattr(options, name)
        if value != "auto" and value < 1:
            raise UserError(f"{name} can't be {value}")
    if not options.study or Path(options.study).is_absolute() or ".." in Path(options.study).parts:
        raise UserError(f"study can't be {options.study!r}: it is the name of a folder in {options.folder}")
    configuration.check(options.config)
    if options.seeds > 1 and options.config.model.fresh:
        raise UserError("model.fresh makes another model for every seed; seeds can't be more than 1 with it")


def _studies(options: Options) -> dict[str, Config]:
    """The configurations to search, by the name of their study."""
    config = options.config
    learners = [type(config.learner)]
    if options.learners == "all":
        vision = experiment.build(search.shallow(config)).towers.vision_width is not None
        learners = [cls for cls in LEARNERS if vision or not cls.vision_prompts]
    elif options.learners is not None:
        names = [name.strip().replace("-", "").replace("_", "").lower() for name in options.learners.split(",")]
        for name in names:
            if name not in BY_NAME:
                raise UserError(f"there is no learner {name!r}{nearest(name, ['all', *BY_NAME])}")
        learners = [BY_NAME[name] for name in names]
    configs = search.expand(config, [name.strip() for name in config.data.name.split(",")], learners)
    for one in configs:
        sets.splits(one.data)  # what is misspelt is said before the first study begins
    if len(configs) == 1:
        return {options.study: configs[0]}
    return {
        f"{options.study}/{one.data.name.replace('/', '-')}.{type(one.learner).__name__.lower()}": one
        for one in configs
    }


def _search(options: Options, name: str, config: Config, table: Standings) -> dict[str, Any]:
    """One study, from its first trial or where it stopped to its summary."""
    table.tell(f"preparing {name}")
    made, splits, fit = _prepare(config, options)
    space = search.space(config, made, options.space)
    folder = Path(options.folder) / name
    data = {"name": config.data.name} | {part: split.records.fingerprint() for part, split in splits.items()}
    ledger = Ledger(
        folder,
        name,
        options.storage,
        _identity(options, config, space, made, data),
        Sampler(space, options.sampler_seed),
        "maximize" if options.objective == "dice" else "minimize",
        PRUNERS[options.pruner](),
    )

    def ended(number: int, state: optuna.trial.TrialState, told: Mapping[str, Any]) -> None:
        table.trial(ledger, number, state, told)
        table.update(name, ledger)

    with contextlib.closing(ledger):
        sweeper = Sweeper(
            config=config,
            space=space,
            made=made,
            fit=fit,
            ledger=ledger,
            folder=folder,
            data=data,
            wanted=options.trials,
            parallel=_at_once(options),
            automatic=options.parallel == "auto",
            objective=options.objective,
            tell=table.tell,
            ended=ended,
        )
        table.update(name, ledger)
        sweeper.run()
        best = standings.best_of(ledger.finished(), ledger)
        scored = {part: split for part, split in splits.items() if part != "train"}
        runs = [] if best is None else repeats.repeat(sweeper, best.number, options.seeds, scored)
        return standings.write(folder, name, ledger, best, runs)


def _prepare(config: Config, options: Options) -> tuple[Experiment, dict[str, Split], Fit]:
    """The model and the data of a study."""
    made = experiment.build(search.shallow(config))
    mesh = devices.mesh(_at_once(options))
    splits = made.splits(mesh)
    frozen = devices.replicated(made.frozen, mesh)
    return made, splits, Fit(config, made.network, frozen, splits["train"], splits["val"], mesh)


def _at_once(options: Options) -> int:
    """How many trials to train at once, as far as they fit in memory."""
    return START_UP if options.parallel == "auto" else options.parallel


def _identity(
    options: Options, config: Config, space: Space, made: Experiment, data: Mapping[str, Any]
) -> dict[str, Any]:
    """What all trials of a study share, as JSON."""
    whereabouts = (*artefacts.WHEREABOUTS, "model.checkpoint")  # the model's hash says what it is
    told = {name: value for name, value in schema.flat(schema.to_json(config)).items() if name not in whereabouts}
    return {
        **told,
        "space": {name: schema.to_json(distribution) for name, distribution in space.items()},
        "objective": options.objective,
        "sampler_seed": options.sampler_seed,
        "model_sha256": made.pretrained.sha256,
        "records": dict(data),
    }


if __name__ == "__main__":
    command.run(main)
