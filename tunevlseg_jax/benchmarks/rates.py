"""Training speed of devices from the files of `benchmark --output`: measured, or a bound for absent chips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.config import Config
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_json

Rates = Mapping[tuple[str, ...], float]
"""Training images per second of one device, by model, learner, train.tune and program."""


SETTINGS = ("precision", "image_size", "upsampling", "recompute", "shard_frozen", "learner_fields")
"""Other settings that change a program; files of earlier versions lack them."""


def identity(config: Config, model: str) -> dict[str, str]:
    """The parts of a configuration that a rate is found by; `model` is a path or a name."""
    return {"model": Path(model).name, "learner": config.learner.name, "tune": config.train.tune}


def settings(config: Config, image_size: tuple[int, int], precision: str) -> dict[str, Any]:
    """The values of `SETTINGS`."""
    train, fields = config.train, schema.to_json(config.learner)
    values = precision, list(image_size), config.upsampling, train.recompute, train.shard_frozen, fields
    return dict(zip(SETTINGS, values, strict=True))


def read(paths: Sequence[str]) -> Mapping[str, Rates]:
    """The rates of each device in benchmark files; if several files have the same rate, the last one counts.

    Raises:
      UserError: a file doesn't exist or isn't a benchmark's.
    """
    rates: dict[str, dict[tuple[str, ...], float]] = {}
    for path in paths:
        try:
            for row in read_json(Path(path)):
                key = *_key(row), row["program"]
                rates.setdefault(row["device"], {})[key] = float(row["images_per_second_per_device"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} isn't a file of `benchmark --output`: {_reason(error)}", "not-rates") from error
    return rates


def hours(rates: Rates, config: Config, at_once: int, images: int) -> float | None:
    """Hours that one device needs to train on so many images; None if there is no rate.

    Args:
      rates: rates of the device.
      config: configuration of the run or search.
      at_once: trials that a search trains in one program, whose rate is used if it was measured.
      images: number of training images over all epochs and trials.
    """
    key = _key(identity(config, config.model.checkpoint))
    ways = ["training, cached"] if config.features_cacheable("train") else [f"training x {at_once}", "training"]
    rate = next((rates[*key, way] for way in ways if (*key, way) in rates), None)
    return None if rate is None else images / rate / 3600


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    """The key of an `identity`, or of a benchmark row, which contains one."""
    return row["model"], row["learner"], row["tune"]


def _reason(error: Exception) -> Any:
    return f"a row has no {error}" if isinstance(error, KeyError) else error
