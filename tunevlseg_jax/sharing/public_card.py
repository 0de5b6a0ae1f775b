"""The card of a run without what is only of use, or only the business, of the machine that trained it."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from tunevlseg_jax.config import Config
from tunevlseg_jax.data.preprocessing import CARD_KEY
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.pretrained.load import local_folder
from tunevlseg_jax.runtime import hub, schema
from tunevlseg_jax.runtime.errors import UserError

KEPT = ("made_by", "model_sha256", "protocol", "data", "computed", CARD_KEY, "epochs", "best_epoch", "scores")
KEPT_IF_ANY = ("calibration", "earlier_epochs", "earlier_data")
"""Entries that are copied. The command line is left out: it may hold any path."""
SHARED_AS = "shared_as"
"""The card's entry with the hub id; it tells a shared folder from a run's."""
PATH = re.compile(r"^~?/|[\s\"'=(\[,]~?/[^\s/]+/|(?:^|[\s\"'=(\[,])(?:[A-Za-z]:[\\/]|\\\\)")
"""The beginning of an absolute path in a text."""


def public_card(card: Mapping[str, Any], config: Config, name: str) -> dict[str, Any]:
    """The entries of a card that others need.

    Args:
      card: of the run.
      config: of the run, with the present place of its base model.
      name: hub id under which the run is shared.

    Raises:
      UserError: an entry would hold an absolute path.
    """
    kept = {key: card[key] for key in KEPT if key in card} | {key: card[key] for key in KEPT_IF_ANY if card.get(key)}
    if isinstance(start := card.get("start_from"), Mapping):
        kept["start_from"] = {key: value for key, value in start.items() if key != "run"}
    shared = {**kept, "config": schema.to_json(public_config(config, name)), SHARED_AS: name}
    check_private(shared, "card.json")
    return shared


def public_config(config: Config, name: str) -> Config:
    """The configuration without places on this machine."""
    data = dataclasses.replace(config.data, root=Data.root, cache=None)
    model = dataclasses.replace(config.model, checkpoint=public_checkpoint(config.model.checkpoint))
    train = dataclasses.replace(config.train, start_from=None)
    workdir = f"runs/{name.rpartition('/')[2]}"
    return dataclasses.replace(config, data=data, model=model, train=train, workdir=workdir)


def public_checkpoint(checkpoint: str) -> str:
    """A hub id as it is, and of a folder or an embedded model the last part of its name."""
    if hub.is_id(checkpoint) and local_folder(checkpoint) is None:
        return checkpoint
    return PurePosixPath(PureWindowsPath(checkpoint).as_posix()).name


def check_private(value: Any, where: str) -> None:
    """Raises a UserError if a text in a value begins with an absolute path or holds one."""
    for place, text in _texts(value, where):
        if PATH.search(text):
            message = f"{place} would show a path of this machine, {text[:200]!r}; nothing was written"
            raise UserError(message, "private")


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, keys included, with its place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(str(key), where)
            yield from _texts(item, f"{where}, {key}")
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item, where)
