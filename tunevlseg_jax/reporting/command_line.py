"""The command that repeats a run: a configuration that comes with the project, and the run's changes to it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import CONFIGS, Config
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError


def command(config: Config) -> str | None:
    """One line for a shell in the project's folder; None where nothing trains, or no configuration is near enough.

    The configuration with the same learner and the fewest other values is the one that is named.
    """
    wanted = schema.flat(schema.to_json(config)) | {"workdir": f"{config.workdir}-again"}  # what is there stays
    found = {path: _changed(base, wanted) for path, base in _bases().items() if _kind(base) == _kind(wanted)}
    learns = wanted["learner.class"] != "ZeroShot" or wanted["train.tune"] != "prompts"
    if not (found and learns):
        return None
    path = min(found, key=lambda path: (len(found[path]), path))
    words = ["python", "-m", "tunevlseg_jax.train", "--config", f"{CONFIGS.name}/{path}"]
    for name, value in found[path].items():
        words += _option(name, value)
    return shlex.join(words)


def changes(config: Config) -> dict[str, Any]:
    """The fields of a run that differ from what `Config` and its classes have as defaults, by their names."""
    defaults = schema.flat(schema.to_json(Config(learner=type(config.learner)())))
    return _changed(defaults, schema.flat(schema.to_json(config)))


def _changed(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if base.get(name) != value}


def _kind(fields: Mapping[str, Any]) -> list[Any]:
    """What an option can't change: which fields there are, and their classes."""
    return sorted((name, value if name.endswith(schema.CLASS) else "") for name, value in fields.items())


@cache
def _bases() -> dict[str, dict[str, Any]]:
    """The fields of each configuration of the project, by its file's name; one that can't be loaded is passed over."""
    found = {}
    for path in sorted(CONFIGS.glob("*.py")):
        if _defines_run(path):
            with contextlib.suppress(UserError):
                found[path.name] = schema.flat(schema.to_json(configuration.load(str(path))))
    return found


def _defines_run(path: Path) -> bool:
    """Whether a file defines a run, and not a study of many."""
    return "config = Config(" in path.read_text(encoding="utf-8")


def _option(name: str, value: Any) -> list[str]:
    """A field as words of a command line."""
    *parents, last = name.replace("_", "-").split(".")
    if isinstance(value, bool):
        return ["--" + ".".join([*parents, last if value else f"no-{last}"])]
    option = f"--{'.'.join([*parents, last])}"
    if isinstance(value, list):
        return [option, *map(str, value)]
    text = str(value)
    return [f"{option}={text}"] if text.startswith("-") else [option, text]
