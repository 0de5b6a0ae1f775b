"""Shared parts of all commands: typed options, one-line errors and exit statuses.

A command imports what computes after its options are parsed, so that help texts and wrong options come at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import re
import signal
import sys
import traceback
import types
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from tunevlseg_jax.runtime import cache, memory, multihost, repeated_options, schema, signals, supervisor
from tunevlseg_jax.runtime.errors import EverywhereError, UserError, nearest

if TYPE_CHECKING:
    from tunevlseg_jax.config import Config

T = TypeVar("T")

UNREAD, MISTAKEN = 1, 2
RULE = {"─", "-"}
"""Characters of the horizontal lines in tyro's error box."""
_DECLARES: ContextVar[bool] = ContextVar("declares", default=False)
"""Whether a command ends before its options are parsed, see `declaration`."""


class _Declared(Exception):
    """Ends a command in `declaration`: holds the class of its options and their default values."""


def run(command: Callable[[], None]) -> None:
    """Runs a command and exits.

    The exit status is 0; 1 if nobody reads stdout any more, as behind `| head`; 2 after a user's mistake; 130 after
    Ctrl-C; 143 after SIGTERM. The last three print one line on stderr. An error that all processes share is printed by
    process 0 alone.
    """
    try:
        try:
            _run(command)
        finally:
            if sys.stdout is not None:  # the shell's >&- closes it
                sys.stdout.flush()  # an error of the flush at Python's end can't be caught
    except BrokenPipeError:
        assert sys.stdout is not None
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would try to write the rest
        multihost.exit_process(UNREAD, alone=True)


def _run(command: Callable[[], None]) -> None:
    cache.enable_compilation_cache()
    memory.tune_malloc()
    try:
        with signals.at_once():
            command()
    except EverywhereError as error:
        _print_error(f"error: {error.line}", alone=False)
        multihost.exit_process(MISTAKEN, alone=False)
    except UserError as error:
        _print_error(f"error: {error.line}", alone=True)
        multihost.exit_process(MISTAKEN, alone=True)
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, signals.Stopped) else signal.SIGINT
        alone = not isinstance(stop, signals.Interrupted)
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        _print_error(f"{word}: {stop}" if str(stop) else word, alone=alone)
        multihost.exit_process(128 + number, alone=alone)
    except BrokenPipeError:
        raise
    except Exception as error:
        if multihost.is_multiprocess():  # the others wait for this process, so it must not wait for them
            if supervisor.is_loss(str(error)):
                _print_error(f"error: {supervisor.loss().line}", alone=True)
            else:
                traceback.print_exc()
            multihost.exit_process(1, alone=True)
        raise


def make_callable(name: str, load: Callable[[], Callable[..., Any]]) -> None:
    """Lets a command's module be called: `tunevlseg_jax.train` is both the command and the function of the package.

    Args:
      name: of the module.
      load: imports the function, when the module is called.
    """
    members = {
        "__call__": lambda module, *given, **named: load()(*given, **named),
        "__signature__": property(lambda module: inspect.signature(load())),
    }
    sys.modules[name].__class__ = type("CallableModule", (types.ModuleType,), members)


def _print_error(line: str, *, alone: bool) -> None:
    """Prints one line on stderr, in process 0 or in a process that ends alone."""
    if alone and multihost.is_multiprocess():
        line = f"process {multihost.process_number()}: {line}"
    if alone or multihost.is_primary():
        print(" ".join(line.split()), file=sys.stderr)


def options(cls: type[T], program: str, description: str, default: T | None = None) -> T:
    """The command line as a dataclass.

    Args:
      cls: the dataclass, one option for each field.
      program: how the command is called, for the usage line.
      description: one line on what the command does.
      default: default values; None for the class's own.

    Raises:
      UserError: an option is unknown (the message names the most similar one), a value has another type, or an option
        that takes no list is given twice.
    """
    return _parse(cls, _arguments(sys.argv[1:], cls), program, description, default)


def subcommand(defaults: Mapping[str, T], descriptions: Mapping[str, str], program: str, description: str) -> T:
    """The command line as one of several dataclasses, chosen by the subcommand.

    Args:
      defaults: default values by subcommand; `tyro.MISSING` marks required options.
      descriptions: what each subcommand does.
      program: how the command is called, for the usage line.
      description: one line on what the command does.

    Raises:
      UserError: as in `options`, or the subcommand is missing or unknown.
    """
    first = next(iter(sys.argv[1:]), "")
    if first not in defaults and first not in ("-h", "--help"):
        given = repr(first) if first else "none"
        raise UserError(f"{program} expects a subcommand, got {given}{nearest(first, defaults)}", "unknown-subcommand")
    if first not in defaults:  # the help text lists all subcommands
        descriptions = {name: text.partition("\n")[0] for name, text in descriptions.items()}
    choices = tyro.extras.subcommand_type_from_defaults(defaults, descriptions, prefix_names=False)
    arguments = _arguments(sys.argv[1:], type(defaults.get(first)))
    return _parse(choices, arguments, program, description, None)


def options_over_config(cls: type[T], default: Callable[[Config], T], program: str, description: str) -> T:
    """The command line as a dataclass whose default values come from the configuration in `--config FILE`.

    Raises:
      UserError: as in `options`, or the file holds no configuration.
    """
    from tunevlseg_jax import config as configuration  # the learners, which most commands' help texts don't need

    arguments = list(sys.argv[1:])
    repeated_options.check(arguments, "--config")
    config = configuration.Config()
    for number, argument in enumerate(arguments):
        if argument == "--config" or argument.startswith("--config="):
            if argument == "--config" and number + 1 == len(arguments):
                raise UserError("--config needs the name of a file", "missing-option")
            path = argument.partition("=")[2] or arguments[number + 1]
            config = configuration.load(path)
            del arguments[number : number + (1 if "=" in argument else 2)]
            break
    else:
        if not {"-h", "--help"} & set(arguments):
            raise UserError(f"{program} needs --config FILE, such as configs/quickstart.py", "missing-option")
    description = (
        f"{description}\n\n--config FILE gives the defaults: a Python file that defines `config`, the name of one "
        "that comes with the package, such as quickstart, or the config.json of a run."
    )
    program = f"{program} --config FILE"
    if _DECLARES.get():
        fields = [("config", str), ("options", Annotated[tyro.conf.AvoidSubcommands[cls], tyro.conf.arg(name="")])]
        both = dataclasses.make_dataclass("WithConfig", fields)
        raise _Declared(both, both(tyro.MISSING, default(config)))
    arguments = _arguments(arguments, cls)
    return _parse(tyro.conf.AvoidSubcommands[cls], arguments, program, description, default(config))


def declaration(command: Callable[[], None]) -> tuple[Any, Any]:
    """The class of a command's options, and their default values or None for the class's own, without running it."""
    token, arguments = _DECLARES.set(True), sys.argv
    sys.argv = ["", "--help"]
    try:
        command()
    except _Declared as declared:
        return declared.args
    finally:
        sys.argv = arguments
        _DECLARES.reset(token)
    raise AssertionError("the command has parsed no options")


def _arguments(given: list[str], cls: type) -> list[str]:
    """The arguments with options' current names, and with repeated lists joined."""
    renamed = [re.sub("^--[^=]+", lambda option: "--" + schema.current_name(option[0][2:]), one) for one in given]
    return repeated_options.join(renamed, cls)


def _parse(cls: Any, arguments: list[str], program: str, description: str, default: Any) -> Any:
    if _DECLARES.get():
        raise _Declared(cls, default)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            given = {} if default is None else {"default": default}
            return tyro.cli(cls, args=arguments, prog=program, description=description, **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        message = _one_line(stderr.getvalue())
        for argument in arguments:
            if argument.partition("=")[0] in multihost.OPTIONS and "nrecognized" in message:
                option = argument.partition("=")[0]
                takers = "train, evaluate, predict, sweep and benchmark"
                raise UserError(f"{option} is for {takers}, not {program}", "one-process") from None
        raise UserError(message, "invalid-option") from None


def _one_line(box: str) -> str:
    """The message in tyro's error box: its first paragraph and the first option that it suggests."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│╭╮╰╯ ") for line in plain.splitlines()[1:]]
    if lines and set(lines[0]) <= RULE:  # the top of a box without UTF-8
        del lines[0]
    paragraph = []
    for line in lines:
        if set(line) <= RULE:
            break
        paragraph.append(line)
    message = " ".join(paragraph)
    options = (line for line in lines if line.startswith("--") and not set(line) <= RULE)
    proposed = next((line.split()[0].rstrip(",") for line in options), None)
    if proposed is not None and "nrecognized" in message:
        return f"{message}; did you mean {proposed}?"
    return _plain(message)


def _plain(message: str) -> str:
    """A message on a value that can't be read: what the option takes, in place of Python's words."""
    if found := re.fullmatch(
        r"Error parsing (\S+): no type matching (.+) could be instantiated from \[(.*)\]\.", message
    ):
        option, types, given = found.groups()
        return f"{option} takes {re.sub('[{}]', '', types).replace('|', ' or ')}, got {given or 'nothing'}"
    for kind, words in (
        ("INT", r"invalid literal for int\(\) with base 10"),
        ("FLOAT", "could not convert string to float"),
    ):
        if found := re.fullmatch(rf"Error parsing (\S+): {words}: (.+)", message):
            return f"{found[1]} takes {kind}, got {found[2]}"
    if found := re.fullmatch(r"Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]", message):
        return f"{found[1]} can't take {found[2]}; --help says what it takes"
    return message
