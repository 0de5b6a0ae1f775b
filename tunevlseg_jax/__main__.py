"""The commands of the package under one name: `tunevlseg train ...` is `python -m tunevlseg_jax.train ...`."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated, Any, Union

COMMANDS = {
    "train": "trains prompts for a frozen model",
    "evaluate": "scores a trained run on a split",
    "predict": "draws masks of what a prompt names",
    "demo": "shows runs in a browser, and learns from corrected masks",
    "prepare": "makes data sets of your files, and checks them",
    "export": "writes a run as StableHLO, ONNX or a Hugging Face folder",
    "share": "writes a run as a folder for others, and uploads it to the Hugging Face hub",
    "sweep": "searches hyperparameters, many trials at a time",
    "study": "runs a grid of data sets, models and learners, and reports on it",
    "report": "makes tables, figures and a page of runs",
    "benchmark": "times training steps, and plans for absent TPU slices",
    "doctor": "says what is installed and what is missing, and tests the installation",
}
"""What each command does; the module of the same name is imported when the command is called."""
SHELLS = ("bash", "zsh", "tcsh")
HELP = ("-h", "--help")
USAGE = """usage: tunevlseg COMMAND [OPTIONS]

{}

tunevlseg COMMAND --help lists the command's options. tunevlseg --version prints the version.
tunevlseg --completion {} prints a script that completes commands and options in the shell.
"""


def main() -> None:
    """Runs the command that the first argument names, with the arguments after it.

    A command sees its own arguments alone, as under `python -m`. The process restarts with huge pages first, as there.
    """
    if not {*HELP, "--completion"} & {*sys.argv}:
        from tunevlseg_jax.runtime import huge_pages

        huge_pages.restart_command()
    from tunevlseg_jax import cli

    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in COMMANDS:
        cli.run(_about)
        return
    del sys.argv[1]
    cli.run(_command(name))


def _command(name: str) -> Any:
    """The function of a command."""
    return importlib.import_module(f"tunevlseg_jax.{name}").main


def _about() -> None:
    """Prints the help text, the version or a completion script; raises a UserError for an unknown command."""
    from tunevlseg_jax import __version__
    from tunevlseg_jax.runtime.errors import UserError, nearest

    match sys.argv[1:]:
        case [] | ["-h" | "--help"]:
            width = max(map(len, COMMANDS))
            lines = (f"  {name:{width}}  {about}" for name, about in COMMANDS.items())
            print(USAGE.format("\n".join(lines), "|".join(SHELLS)), end="")
        case ["--version"]:
            print(f"tunevlseg_jax {__version__}")
        case ["--completion", shell] if shell in SHELLS:
            _print_completion(shell)
        case ["--completion", *given]:
            choices = " or ".join((", ".join(SHELLS[:-1]), SHELLS[-1]))
            raise UserError(f"--completion must be {choices}, got {' '.join(given) or 'none'}", "invalid-option")
        case [name, *_]:
            raise UserError(f"tunevlseg has no command {name!r}{nearest(name, COMMANDS)}", "unknown-subcommand")


def _print_completion(shell: str) -> None:
    """Prints tyro's completion script for all commands and their options."""
    import tyro

    from tunevlseg_jax import cli

    choices = []
    for name in COMMANDS:
        options, default = cli.declaration(_command(name))
        settings: dict[str, Any] = {} if default is None else {"default": default}
        choices.append(Annotated[options, tyro.conf.subcommand(name=name, prefix_name=False, **settings)])
    commands: Any = Union[tuple(choices)]  # noqa: UP007
    tyro.cli(commands, prog="tunevlseg", args=["--tyro-print-completion", shell])


if __name__ == "__main__":
    main()
