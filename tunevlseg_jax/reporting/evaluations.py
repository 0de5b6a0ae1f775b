"""Reads an evaluation that `evaluate` wrote, and raises an error unless its two files are complete and consistent."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunevlseg_jax.evaluation import record_scores
from tunevlseg_jax.evaluation.record_scores import Sample
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object

THRESHOLD = 0.5
ROUNDING = 1e-6
"""How far numbers may be apart that should be equal: files of records have eight digits."""
FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Sample)}
"""The columns of a file of records, and what stands in each."""
DETAILS = {"data": str, "protocol": str, "split": str, "size": str, "threshold": float, "records": int, "scores": dict}
"""What the JSON of an evaluation must tell, and in which type."""


@dataclass(frozen=True)
class StoredEvaluation:
    """A run's scores on a split of a data set.

    Attributes:
      data: name of the data set.
      protocol: "paper" or "clean".
      split: "train", "val" or "test".
      resolution: "model" at the size that the model sees, "original" at each image's own.
      every_class: whether every image was asked for every class, those that it doesn't show as well.
      size: of the masks, such as "352x352", or the least and the greatest.
      data_sha256: fingerprint of the records.
      records: how many there are.
      scores: dice, iou, sample_iou, hd95_both_nonempty and so on; see `samples.POLICIES`.
      samples: the CSV with a row for each record, with the fields of `samples.Sample`.
    """

    data: str
    protocol: str
    split: str
    resolution: Literal["model", "original"]
    every_class: bool
    size: str
    data_sha256: str
    records: int
    scores: Mapping[str, Any]
    samples: Path


def read(path: Path) -> StoredEvaluation:
    """Reads the JSON of an evaluation, and checks it against the CSV beside it.

    Raises:
      UserError: a file is missing, cut off, another program's, or doesn't agree with the other; the message says which.
    """
    details = read_object(path)
    for name, kind in DETAILS.items():
        if type(details.get(name)) is not kind:
            raise UserError(f"{path.name} is no evaluation: its {name!r} is {details.get(name)!r}", "bad-evaluation")
    if not is_sha256(details.get("data_sha256")):
        raise UserError(f"{path.name} lacks the fingerprint of its records", "bad-evaluation")
    if details["threshold"] != THRESHOLD:
        raise UserError(f"{path.name} has the threshold {details['threshold']}, not {THRESHOLD}", "bad-evaluation")
    beside = path.with_suffix(".csv")
    rows = read_samples(beside)
    if len(rows) != details["records"]:
        raise UserError(f"{beside.name} has {len(rows)} rows, {path.name} says {details['records']}", "bad-evaluation")
    for name, value in record_scores.summary(rows).items():
        score = details["scores"].get(name)
        if not _agree(score, value):
            raise UserError(f"the {name} of {path.name} is {score}, but {beside.name} gives {value}", "bad-evaluation")
    every_class = "miou" in details["scores"]
    return StoredEvaluation(
        data=details["data"],
        protocol=details["protocol"],
        split=details["split"],
        resolution=_resolution(path, details, every_class),
        every_class=every_class,
        size=details["size"],
        data_sha256=details["data_sha256"],
        records=details["records"],
        scores=details["scores"],
        samples=beside,
    )


def read_samples(path: Path) -> list[Sample]:
    """The records of a CSV that `evaluate` wrote.

    Raises:
      UserError: it is missing, cut off, or another program's; the message names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.name}", "no-such-file") from error
    except (OSError, ValueError) as error:
        raise UserError(f"can't read {path.name}: {error}", "unreadable") from error
    if not text.endswith("\n"):
        raise UserError(f"{path.name} is cut off in its last line", "cut-off")
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise UserError(f"can't read {path.name}: {error}", "unreadable") from error
    if table[0] != list(FIELDS):
        raise UserError(f"{path.name} must have the columns that evaluate writes", "bad-evaluation")
    rows = [_sample(cells, f"{path.name}, record {number}") for number, cells in enumerate(table[1:], 1)]
    if not rows or len({row.id for row in rows}) < len(rows):
        raise UserError(f"{path.name} holds {'a record twice' if rows else 'no records'}", "bad-evaluation")
    return rows


def is_sha256(value: Any) -> bool:
    """Whether this is the hexadecimal of a sha256."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _sample(cells: list[str], where: str) -> Sample:
    """A row as a record whose scores and numbers of pixels agree."""
    if len(cells) != len(FIELDS):
        raise UserError(f"{where} must have {len(FIELDS)} columns, got {len(cells)}", "bad-evaluation")
    values: dict[str, Any] = {}
    for (name, kind), cell in zip(FIELDS.items(), cells, strict=True):
        try:
            if kind == "str":
                values[name] = cell
            elif kind == "int":
                values[name] = int(cell)
            else:
                values[name] = None if kind == "float | None" and not cell else float(cell)
        except ValueError:
            raise UserError(f"{where}: {name} is {cell!r}", "bad-evaluation") from None
    sample = Sample(**values)
    if not _is_consistent(sample):
        raise UserError(f"{where}: its scores and its numbers of pixels don't agree", "bad-evaluation")
    return sample


def _is_consistent(sample: Sample) -> bool:
    """Whether a record's scores can be those of its numbers of pixels."""
    sizes, both = sample.target + sample.predicted, sample.target > 0 and sample.predicted > 0
    distance = sample.hd95_both_nonempty
    return (
        0 <= sample.intersection <= min(sample.target, sample.predicted)
        and sample.union == sizes - sample.intersection
        and _agree(sample.dice, 2 * sample.intersection / sizes if sizes else 1.0)
        and _agree(sample.iou, sample.intersection / sample.union if sizes else 1.0)
        and 0 <= sample.surface_dice_2px <= 1
        and (0 <= distance < math.inf if distance is not None else True)
        and (distance is not None) == both
    )


def _agree(details: Any, value: float | None) -> bool:
    """Whether a number in a file is the one that it should be, and finite; None is None."""
    if details is None or value is None:
        return details is value
    finite = type(details) in (int, float) and math.isfinite(details)
    return finite and math.isclose(details, value, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _resolution(path: Path, details: Mapping[str, Any], every_class: bool) -> Literal["model", "original"]:
    """At which size it scored, which the file's name alone tells."""
    start = f"{details['data'].replace('/', '_')}_{details['split']}_"
    protocol = f"_{details['protocol']}" * (details["protocol"] != "paper")
    for resolution in ("model", "original"):
        for prompts in ("", f"_prompt{details.get('prompt_index')}"):  # the run's own, or another kind
            if path.stem == f"{start}{resolution}{protocol}{prompts}{'_every_class' * every_class}":
                return resolution
    raise UserError(f"{path.name} is named unlike its data, {details['data']}, {details['split']}", "bad-evaluation")
