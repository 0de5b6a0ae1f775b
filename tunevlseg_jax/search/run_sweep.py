"""A sweep: one study for each data set and learner, from its options to its summaries."""

import contextlib
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tunevlseg_jax.config import Config
from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.learners import LEARNERS, learners_for
from tunevlseg_jax.runs import history
from tunevlseg_jax.runtime import exchange, multihost
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.search import repeats, summary
from tunevlseg_jax.search.options import Options
from tunevlseg_jax.search.resources import Resources
from tunevlseg_jax.search.summary import SweepDisplay
from tunevlseg_jax.search.worker import Worker, search_space

BY_NAME = {cls.__name__.lower(): cls for cls in LEARNERS}


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
    batching.import_library()
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


def studies(options: Options, resources: Resources) -> dict[str, Config]:
    """The configurations to search, by the name of their study."""
    config = options.config
    learners = [config.learner]
    fitting = {type(learner): learner for learner in learners_for(resources.base.spec)}
    if options.learners == "all":
        learners = list(fitting.values())
    elif options.learners is not None:
        names = [name.strip().replace("-", "").replace("_", "").lower() for name in options.learners.split(",")]
        for name in names:
            if name not in BY_NAME:
                raise UserError(f"there is no learner {name!r}{nearest(name, ['all', *BY_NAME])}", "unknown-learner")
        learners = [fitting.get(BY_NAME[name]) or BY_NAME[name]() for name in names]
    configs = {
        f"{options.study}/{data.replace('/', '-')}.{type(learner).__name__.lower()}": dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, name=data),
            learner=config.learner if type(config.learner) is type(learner) else learner,
        )
        for data in map(str.strip, config.data.name.split(","))
        for learner in learners
    }
    configs = configs if len(configs) > 1 else {options.study: configs.popitem()[1]}
    for name, each in configs.items():  # mistakes are reported before the first study begins
        registry.splits(each.data)
        if not (Path(options.folder) / name).exists():
            registry.check_prompt_kind(each.data)
    if len(configs) == 1:
        return configs
    for each in configs.values():
        search_space(options, each, resources)
    return configs
