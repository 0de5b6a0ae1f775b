"""Searches hyperparameters, many trials at a time: `python -m tunevlseg_jax.sweep --config FILE --study NAME`."""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import tyro
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config
from tunevlseg_jax.runtime import exchange, multihost, signals
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.search.options import Options, Replay

PROGRAM = "python -m tunevlseg_jax.sweep"


def main() -> None:
    """Searches, or with `replay STUDY TRIAL` trains one trial again."""
    if sys.argv[1:2] == ["replay"]:
        del sys.argv[1]
        replay(cli.options(Replay, f"{PROGRAM} replay", "Trains one trial of a study again, by itself."), Console())
        return

    files: list[Config] = []

    def over(config: Config) -> Options:
        files.append(config)
        return Options(study=tyro.MISSING, config=config)

    options = cli.options_over_config(Options, over, PROGRAM, __doc__ or "")
    options.check()
    if options.config.workdir != files[0].workdir:
        place = "a sweep's runs lie in the folder of its study; --folder is that of all studies"
        raise UserError(f"--workdir {options.config.workdir}: {place}", "options-conflict")
    multihost.join(options.cluster)
    exchange.check_same(options, but=("folder", "storage"))

    from tunevlseg_jax.search.run_sweep import sweep

    with signals.with_hint("finished trials are kept, and the same command goes on with the study"):
        sweep(options, Console(quiet=not multihost.is_primary()))


def replay(options: Replay, console: Console) -> None:
    """Trains one trial again, in a new run folder.

    Raises:
      UserError: there is no such trial here, or it can't be trained again in the same way.
    """
    from tunevlseg_jax.runs.card import CARD_FILE, load_learnt
    from tunevlseg_jax.runs.trainer import train
    from tunevlseg_jax.search.replay import places, train_again

    folder, again = places(options)
    if not options.as_train:
        with console.status("preparing") as status:
            same = train_again(folder, again, status.update)
        details = "the same to the bit" if same else "not the same to the bit, as with other devices or other versions"
        console.print(f"trial {options.trial} again: {details}; run folder: {again}", soft_wrap=True)
        return
    config, _, card = load_learnt(folder)
    configuration.check(config)
    try:
        before = float(card["scores"]["tuned"]["val"]["dice"]) if card["scores"] else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CARD_FILE}: its scores lack the validation Dice", "bad-card") from error
    results = train(dataclasses.replace(config, workdir=str(again)), console)
    if before is not None:
        now = results["tuned"]["val"]["dice"]
        console.print(f"val Dice {now:.6f} in a program of its own, {before:.6f} in the sweep")


def _function() -> Callable[..., Any]:
    from tunevlseg_jax import api

    return api.sweep


cli.make_callable(__name__, _function)

if __name__ == "__main__":
    cli.run(main)
