"""Trains prompts for a frozen model: `python -m tunevlseg_jax.train --config configs/quickstart.py`."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.runtime import exchange, multihost, signals
from tunevlseg_jax.runtime.multihost import Cluster

PROGRAM = "python -m tunevlseg_jax.train"


@dataclass(frozen=True, kw_only=True)
class Options:
    """A run, and the processes that train it.

    Attributes:
      config: the run's configuration.
      cluster: how several processes find each other.
      force_data: whether to go on with a run although its data set has changed since; the card then says so.
    """

    config: Annotated[Config, tyro.conf.arg(name="")]
    cluster: Annotated[Cluster, tyro.conf.arg(name="")] = field(default_factory=Cluster)
    force_data: bool = False


def main() -> None:
    """Trains, and closes with a table of zero-shot against tuned."""
    options = cli.options_over_config(Options, lambda config: Options(config=config), PROGRAM, __doc__ or "")
    configuration.check(options.config)
    multihost.join(options.cluster)
    exchange.check_same(options)

    from tunevlseg_jax.runs.run_folder import check_new
    from tunevlseg_jax.runs.trainer import GOES_ON, train

    with multihost.sync_errors():
        check_new(options.config)
    command = shlex.join([*PROGRAM.split(), *sys.argv[1:]])
    with signals.with_hint(GOES_ON):
        console = Console(quiet=not multihost.is_primary())
        train(options.config, console, command=command, force_data=options.force_data)


def _function() -> Callable[..., Any]:
    from tunevlseg_jax import api

    return api.train


cli.make_callable(__name__, _function)

if __name__ == "__main__":
    cli.run(main)
