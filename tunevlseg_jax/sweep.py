"""Searches hyperparameters, many trials at a time: `python -m tunevlseg_jax.sweep --config FILE --study NAME`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.learners import LEARNERS
from tunevlseg_jax.runs.card import CARD_FILE, load_learnt
from tunevlseg_jax.runs.trainer import train
from tunevlseg_jax.runtime import signals
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.search import session, summary, trial_config
from tunevlseg_jax.search.replay import STUDIES, Replay, places, train_again
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.session import Search
from tunevlseg_jax.search.summary import SweepDisplay

PROGRAM = "python -m tunevlseg_jax.sweep"

BY_NAME = {cls.__name__.lower(): cls for cls in LEARNERS}


@dataclass(frozen=True, kw_only=True)
class Options(Search):
    """A sweep: how to search, and the configuration of every trial.

    Attributes:
      study: name of the study; one that exists is continued.
      folder: of all studies.
      learners: "all", or names such as coop,vpt: a study for each; None for the configuration's own.
      config: of every trial; data.name may list several data sets, a study for each.
    """

    study: str
    folder: str = STUDIES
    learners: str | None = None
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main() -> None:
    """Searches, or with `replay STUDY TRIAL` trains one trial again."""
    if sys.argv[1:2] == ["replay"]:
        del sys.argv[1]
        replay(cli.options(Replay, f"{PROGRAM} replay", "Trains one trial of a study again, by itself."), Console())
        return

    def over(config: Config) -> Options:
        return Options(study=tyro.MISSING, config=config)

    options = cli.options_over_config(Options, over, PROGRAM, __doc__ or "")
    with signals.with_hint("finished trials are kept, and the same command goes on with the study"):
        sweep(options, Console())


def sweep(options: Options, console: Console) -> list[dict[str, Any]]:
    """Runs every study that the options ask for, and returns their summaries.

    Raises:
      UserError: an option or the search space can't be, or a study of that name is of another configuration.
    """
    _check(options)
    resources = Resources(options.config, options.at_once, options.scratch)
    studies = _studies(options, resources)
    table = SweepDisplay(console, list(studies), options.trials)
    summaries = []
    with table.live, contextlib.ExitStack() as stack:
        stack.callback(table.tell, "")  # also before an error's line
        for name, config in studies.items():
            with session.opened(options, name, Path(options.folder) / name, config, resources, table) as worker:
                summaries.append(session.run(worker, options, name))
    console.print(summary.results(summaries))
    for name in studies:
        folder = Path(options.folder) / name
        console.print(f"{name}: {folder / summary.SUMMARY_FILE}, {folder / summary.TRIALS_FILE}", soft_wrap=True)
    return summaries


def replay(options: Replay, console: Console) -> None:
    """Trains one trial again, in a run folder of its own.

    Raises:
      UserError: there is no such trial here, or it can't be trained again as it was.
    """
    folder, again = places(options)
    if not options.as_train:
        with console.status("preparing") as status:
            same = train_again(folder, again, status.update)
        told = "the same to the bit" if same else "not the same to the bit, as with other devices or other versions"
        console.print(f"trial {options.trial} again: {told}; run folder: {again}", soft_wrap=True)
        return
    config, _, card = load_learnt(folder)
    configuration.check(config)
    try:
        before = float(card["scores"]["tuned"]["val"]["dice"]) if card["scores"] else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CARD_FILE}: its scores lack the validation Dice") from error
    results = train(dataclasses.replace(config, workdir=str(again)), console)
    if before is not None:
        now = results["tuned"]["val"]["dice"]
        console.print(f"val Dice {now:.6f} in a program of its own, {before:.6f} in the sweep")


def _check(options: Options) -> None:
    """Raises a UserError that names the first option that can't be."""
    options.check()
    if not options.study or Path(options.study).is_absolute() or ".." in Path(options.study).parts:
        raise UserError(f"study can't be {options.study!r}: it is the name of a folder in {options.folder}")
    configuration.check(options.config)
    if options.seeds > 1 and options.config.model.fresh:
        raise UserError("model.fresh makes another model for every seed; seeds can't be more than 1 with it")


def _studies(options: Options, resources: Resources) -> dict[str, Config]:
    """The configurations to search, by the name of their study."""
    config = options.config
    learners = [type(config.learner)]
    if options.learners == "all":
        vision = resources.base.spec.vision_width is not None
        learners = [cls for cls in LEARNERS if vision or "vision" not in cls.changes]
    elif options.learners is not None:
        names = [name.strip().replace("-", "").replace("_", "").lower() for name in options.learners.split(",")]
        for name in names:
            if name not in BY_NAME:
                raise UserError(f"there is no learner {name!r}{nearest(name, ['all', *BY_NAME])}")
        learners = [BY_NAME[name] for name in names]
    configs = trial_config.expand(config, [name.strip() for name in config.data.name.split(",")], learners)
    for one in configs:  # what can't be is said before the first study begins
        registry.splits(one.data)
    if len(configs) == 1:
        return {options.study: configs[0]}
    for one in configs:
        session.searched(options, one, resources)
    return {
        f"{options.study}/{one.data.name.replace('/', '-')}.{type(one.learner).__name__.lower()}": one
        for one in configs
    }


if __name__ == "__main__":
    cli.run(main)
