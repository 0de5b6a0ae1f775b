"""How fast devices train, as `benchmark --output` wrote it: measured, or a bound for chips that aren't there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.config import Config
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json

Rates = Mapping[tuple[str, ...], float]
"""Images a second that one device trains on, by model, learner, what is tuned, and program."""


def identity(config: Config, model: str) -> dict[str, str]:
    """What of a configuration decides how fast it trains, for a benchmark's numbers; `model` is a path or a name."""
    return {"model": Path(model).name, "learner": type(config.learner).__name__, "tune": config.train.tune}


def read(paths: Sequence[str]) -> Mapping[str, Rates]:
    """The rates of each device in benchmarks' files; of what is in several, the last one counts.

    Raises:
      UserError: a file isn't there, or isn't a benchmark's.
    """
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for path in paths:
        try:
            for row in read_json(Path(path)):
                key = *_key(row), row["program"]
                found.setdefault(row["device"], {})[key] = float(row["images_per_second_per_device"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} isn't what `benchmark --output` writes: {_told(error)}") from error
    return found


def hours(rates: Rates, config: Config, at_once: int, images: int) -> float | None:
    """Hours of one device to train on so many images; None where there is no rate for that.

    Args:
      rates: of the device.
      config: of the run, or of a search.
      at_once: trials that a search trains side by side, which counts where it was measured.
      images: trained on, of all trials together.
    """
    own = _key(identity(config, config.model.checkpoint))
    ways = ["training, cached"] if config.features_cacheable("train") else [f"training x {at_once}", "training"]
    rate = next((rates[*own, way] for way in ways if (*own, way) in rates), None)
    return None if rate is None else images / rate / 3600


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    """Of an `identity`, or of a benchmark's row, which has one."""
    return row["model"], row["learner"], row["tune"]


def _told(error: Exception) -> Any:
    return f"a row has no {error}" if isinstance(error, KeyError) else error
