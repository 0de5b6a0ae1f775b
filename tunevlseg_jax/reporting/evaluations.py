"""Reads the evaluations that `evaluate` wrote."""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunevlseg_jax.evaluation.record_scores import POLICIES
from tunevlseg_jax.evaluation.settings import TOLERANCE
from tunevlseg_jax.reporting import reliability_bins
from tunevlseg_jax.reporting.reliability_bins import Bins
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, sha256

THRESHOLD = 0.5
DETAILS = {"data": str, "protocol": str, "split": str, "threshold": float, "records": int, "scores": dict}
"""The required values of an evaluation's JSON, with their types."""


@dataclass(frozen=True)
class StoredEvaluation:
    """A run's scores on a split of a data set.

    Attributes:
      data: name of the data set.
      protocol: "paper" or "clean".
      split: "train", "val" or "test".
      resolution: "model" at the model's input size, "original" at each image's size.
      every_class: whether every image was asked for every class, absent classes included.
      data_sha256: fingerprint of the records.
      records: how many there are.
      scores: dice, iou, sample_iou, hd95_both_nonempty and so on; see `record_scores.POLICIES`.
      data_changed: whether the data set of this name had changed since training, None where that couldn't be seen.
      trained_on: how many of the images trained the run; None where that is unknown.
      computed: in which precision, and why; None in files of earlier versions.
      reliability: the bins of pixels' probabilities at each temperature; none in files of earlier versions.
      samples: the CSV with a row for each record, with the fields of `record_scores.Sample`.
    """

    data: str
    protocol: str
    split: str
    resolution: str
    every_class: bool
    data_sha256: str
    records: int
    scores: Mapping[str, Any]
    data_changed: bool | None
    trained_on: int | None
    computed: Mapping[str, Any] | None
    reliability: tuple[Bins, ...]
    samples: Path

    @property
    def is_plain_test(self) -> bool:
        """Whether this scores a test split at the model's size, with the prompts of its records."""
        return self.split == "test" and self.resolution == "model" and not self.every_class


def read(path: Path) -> StoredEvaluation:
    """Reads the JSON of an evaluation, and checks that the CSV beside it is complete.

    Raises:
      UserError: a file is missing, cut off, another program's, or has changed; the message says which.
    """
    details = read_object(path)
    for name, kind in DETAILS.items():
        if type(details.get(name)) is not kind:
            raise UserError(f"{path.name} is no evaluation: its {name!r} is {details.get(name)!r}", "bad-evaluation")
    if not is_sha256(details.get("data_sha256")):
        raise UserError(f"{path.name} lacks the fingerprint of its records", "bad-evaluation")
    if details["threshold"] != THRESHOLD:
        raise UserError(f"{path.name} has the threshold {details['threshold']}, not {THRESHOLD}", "bad-evaluation")
    if (tolerance := details.get("nsd_tolerance", TOLERANCE)) != TOLERANCE:
        raise UserError(f"{path.name} has the tolerance {tolerance}, not {TOLERANCE}", "bad-evaluation")
    if (masks := details.get("masks", "semantic")) != "semantic":
        raise UserError(f"{path.name} has masks of {masks}, not semantic ones", "bad-evaluation")
    scores = details["scores"]
    for name in POLICIES:
        if not (is_finite(scores.get(name)) or (name == "hd95_both_nonempty" and scores.get(name, 0) is None)):
            raise UserError(f"the {name} of {path.name} is {scores.get(name)}", "bad-evaluation")
    samples = path.with_suffix(".csv")
    if "samples_sha256" not in details:  # as in files of version 0.1.0
        data, split = details["data"], details["split"]
        resolution = path.stem.removeprefix(f"{data.replace('/', '_')}_{split}_").split("_")[0]
        if resolution not in ("model", "original"):
            raise UserError(f"{path.name} tells of {data}, {split}, which is not what it is called", "bad-evaluation")
        details |= {"resolution": resolution, "every_class": "miou" in scores}
        if (rows := len(read_dice(samples))) != details["records"]:
            raise UserError(f"{samples.name} has {rows} rows, {path.name} says {details['records']}", "bad-evaluation")
    elif not samples.is_file():
        raise UserError(f"there is no {samples.name}", "no-such-file")
    elif sha256(samples) != details["samples_sha256"]:
        raise UserError(
            f"{samples.name} is cut off, or isn't the one that was written with {path.name}", "bad-evaluation"
        )
    values: dict[str, Any] = {field.name: details.get(field.name) for field in dataclasses.fields(StoredEvaluation)}
    values |= {"samples": samples, "reliability": reliability_bins.read(details.get("reliability"), path.name)}
    return StoredEvaluation(**values)


def read_dice(path: Path) -> dict[str, float]:
    """The Dice of each record, by its id, from a CSV that `evaluate` wrote; errors as in `read_units`."""
    return {id: dice for id, (dice, _) in read_units(path).items()}


def read_units(path: Path) -> dict[str, tuple[float, str]]:
    """The Dice and the independent unit of each record, by its id, from a CSV that `evaluate` wrote.

    In files of earlier versions each record is a unit.

    Raises:
      UserError: the file is missing, cut off, or another program's.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        found = {row["id"]: (float(row["dice"]), row.get("unit") or row["id"]) for row in rows}
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.name}", "no-such-file") from error
    except (KeyError, TypeError) as error:
        raise UserError(f"{path.name} must have the columns that evaluate writes", "bad-evaluation") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"can't read {path.name}: {error}", "unreadable") from error
    if not text.endswith("\n"):
        raise UserError(f"{path.name} is cut off in its last line", "cut-off")
    if any(None in (*row, *row.values()) for row in rows):
        raise UserError(f"{path.name} has a row with more or fewer columns than evaluate's", "bad-evaluation")
    if not all(is_finite(dice) for dice, _ in found.values()):
        raise UserError(f"{path.name} has a Dice that isn't finite", "bad-evaluation")
    return found


def is_sha256(value: Any) -> bool:
    """Whether this is the hexadecimal of a sha256."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_finite(value: Any) -> bool:
    """Whether this is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)
