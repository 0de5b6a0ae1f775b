"""A sweep: one study for each data set and learner, from its options to its summaries."""

import contextlib
import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.learners import LEARNERS, learners_for
from tunevlseg_jax.runs import history
from tunevlseg_jax.runtime import exchange, multihost
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.runtime.multihost import Cluster
from tunevlseg_jax.search import repeats, summary
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.search.replay import STUDIES
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.summary import SweepDisplay
from tunevlseg_jax.search.worker import Worker, search_space

BY_NAME = {cls.__name__.lower(): cls for cls in LEARNERS}


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


def sweep(options: Options, console: Console) -> list[dict[str, Any]]:
    """Runs every study of options that `check` has passed, and returns their summaries.

    Raises:
      UserError: the search space is invalid, or a study of that name has another configuration.
    """
    kept = exchange.from_primary(partial(history.precision_of_runs, Path(options.folder) / options.study))
    with multihost.sync_errors():
        resources = Resources(options.config, options.at_once, options.scratch, kept)
        configs = studies(options, resources)
    console.print(f"computed in {resources.base.computed}", soft_wrap=True)
    table = SweepDisplay(console, list(configs), options.trials)
    summaries = []
    with table.live, contextlib.ExitStack() as stack:
        stack.callback(table.notify, "")  # also before an error's line
        for name, config in configs.items():
            worker = Worker(options, name, Path(options.folder) / name, config, resources, table)
            with contextlib.closing(worker):
                summaries.append(repeats.search(worker))
    console.print(summary.results(summaries))
    for name in configs:
        folder = Path(options.folder) / name
        console.print(f"{name}: {folder / summary.SUMMARY_FILE}, {folder / summary.TRIALS_FILE}", soft_wrap=True)
    return summaries


def check(options: Options) -> None:
    """Raises a UserError that names the first invalid option."""
    options.check()
    if not options.study or Path(options.study).is_absolute() or ".." in Path(options.study).parts:
        raise UserError(f"study must be a folder's name in {options.folder}, got {options.study!r}", "invalid-name")
    configuration.check(options.config)
    configuration.check_fresh(options.config, "each trial of a sweep")
    if options.seeds > 1 and options.config.model.fresh:
        raise UserError(f"seeds must be 1 with model.fresh, got {options.seeds}", "options-conflict")


def studies(options: Options, resources: Resources) -> dict[str, Config]:
    """The configurations to search, by the name of their study."""
    config = options.config
    learners = [type(config.learner)]
    if options.learners == "all":
        learners = learners_for(resources.base.spec)
    elif options.learners is not None:
        names = [name.strip().replace("-", "").replace("_", "").lower() for name in options.learners.split(",")]
        for name in names:
            if name not in BY_NAME:
                raise UserError(f"there is no learner {name!r}{nearest(name, ['all', *BY_NAME])}", "unknown-learner")
        learners = [BY_NAME[name] for name in names]
    configs = {
        f"{options.study}/{data.replace('/', '-')}.{learner.__name__.lower()}": dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, name=data),
            learner=config.learner if type(config.learner) is learner else learner(),
        )
        for data in map(str.strip, config.data.name.split(","))
        for learner in learners
    }
    for each in configs.values():  # mistakes are reported before the first study begins
        registry.splits(each.data)
    if len(configs) == 1:
        return {options.study: configs.popitem()[1]}
    for each in configs.values():
        search_space(options, each, resources)
    return configs
