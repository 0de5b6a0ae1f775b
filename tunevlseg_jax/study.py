"""Runs a whole study and reports on it: `python -m tunevlseg_jax.study --config configs/study_scenes.py`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rich
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.runtime import signals
from tunevlseg_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from tunevlseg_jax.studies.grid import Study

PROGRAM = "python -m tunevlseg_jax.study"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which study.

    Attributes:
      config: a Python file that defines `study`, such as configs/study_scenes.py.
      folder: of its runs and its report, instead of the file's; a study that exists is continued.
      shots: numbers of training records of each class for a learning curve, such as 1,2,4,8,16,32,all; the whole study
        runs with each of them, in folders of its folder. None for the file's.
      plan: whether to only print the runs that would be trained, and the data sets and models that they lack.
      rates: files of `benchmark --output` for the plan's estimate of hours, one for each device and model or TPU slice.
    """

    config: str
    folder: str | None = None
    shots: str | None = None
    plan: bool = False
    rates: tuple[str, ...] = ()


def main() -> None:
    """Runs or continues a study."""
    options = cli.options(Options, PROGRAM, __doc__ or "")
    if options.rates and not options.plan:
        raise UserError("--rates needs --plan, which estimates hours from them", "options-conflict")

    from tunevlseg_jax.studies import grid

    study = grid.load(options.config)
    if options.folder is not None:
        study = dataclasses.replace(study, folder=options.folder)
    studies = [study] if options.shots is None else [study.with_shots(number) for number in _shots(options.shots)]
    console = rich.get_console()  # progress bars show inside the live view of the global console
    if options.plan:
        from tunevlseg_jax.benchmarks import rates
        from tunevlseg_jax.studies.plan import plan

        measured = rates.read(options.rates)
        for each in studies:
            table, missing = plan(each, measured)
            console.print(table, *missing, sep="\n", soft_wrap=True)
        return
    again = shlex.join(["python", "-m", "tunevlseg_jax.study", *sys.argv[1:]])
    with signals.with_hint(f"what is finished is kept, and this goes on: {again}"):
        for each in studies:
            run(each, console)
        if options.shots is not None:
            _report(study, console)


def _shots(text: str) -> list[int | None]:
    """The numbers of an option such as "1,2,4,all"; None for all.

    Raises:
      UserError: one isn't a number of at least 1 or "all", or is there twice.
    """
    words = [word.strip() for word in text.split(",")]
    if wrong := [word for word in words if word != "all" and not (word.isdecimal() and int(word))]:
        raise UserError(
            f"--shots takes numbers from 1 on, or all, with commas between, got {wrong[0]!r}", "out-of-range"
        )
    if len({*words}) < len(words):
        raise UserError(f"--shots has a number twice: {text}", "duplicate-name")
    return [None if word == "all" else int(word) for word in words]


def run(study: Study, console: Console) -> None:
    """Trains and evaluates the unfinished cells of a study, and reports on all of it.

    Raises:
      UserError: the folder holds another study, another process works on it, or something is missing.
    """
    from tunevlseg_jax.reporting.output import write
    from tunevlseg_jax.studies import runner

    write.check_installed()  # missing packages are reported before the first cell begins
    with runner.open_progress(study) as progress:
        runner.run(study, progress, console)
        _report(study, console)


def _report(study: Study, console: Console) -> None:
    """Reports on all runs in the folder of a study."""
    from tunevlseg_jax.reporting.output import write

    write.report(write.Options(runs=study.folder, output=str(Path(study.folder) / "report")), console)


if __name__ == "__main__":
    cli.run(main)
