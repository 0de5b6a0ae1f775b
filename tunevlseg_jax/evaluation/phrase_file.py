"""Reads the paraphrases of prompts for `evaluate --phrases`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.runtime.files import read_json

PLACE = "{}"
"""Where a template holds the class's name."""


def read(path: Path, classes: Sequence[str]) -> dict[str, list[str]]:
    """The paraphrases of each class, two or more.

    Args:
      path: JSON: a list of templates such as "a photo of a {}", or an object with a list of phrases for each class.
      classes: of the data set.

    Raises:
      UserError: the file is missing, broken, or lacks a class.
    """
    stored = read_json(path)
    if isinstance(stored, list):
        templates = _checked(stored, str(path))
        if lacking := [template for template in templates if PLACE not in template]:
            details = f"{path}: a template needs {PLACE} in place of the class's name, and {lacking[0]!r} has none"
            raise UserError(f"{details}; or give an object with the phrases of each class", "bad-phrases")
        return {name: [template.replace(PLACE, name) for template in templates] for name in classes}
    if not isinstance(stored, dict):
        raise UserError(
            f"{path} must hold a JSON list of templates, or an object with a list of phrases for each class",
            "bad-phrases",
        )
    for name in stored:
        if name not in classes:
            raise UserError(f"{path}: the data set has no class {name!r}{nearest(name, classes)}", "bad-phrases")
    if missing := [name for name in classes if name not in stored]:
        raise UserError(f"{path} has no phrases for the class {missing[0]!r}; add them", "bad-phrases")
    return {name: _checked(stored[name], f"{path}: {name!r}") for name in classes}


def _checked(phrases: Any, where: str) -> list[str]:
    """Two different phrases or more, without repetitions."""
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) and phrase.strip() for phrase in phrases):
        raise UserError(f"{where} must be a list of phrases that aren't empty, got {phrases!r}", "bad-phrases")
    distinct = list(dict.fromkeys(phrases))
    if len(distinct) < 2:
        raise UserError(f"{where} must have two different phrases or more, got {len(distinct)}", "bad-phrases")
    return distinct
