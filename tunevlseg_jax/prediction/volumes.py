"""Files of the masks and probabilities of volumes and DICOM series, with the geometry of the input, and their table."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.data.medical import slices, volume_files
from tunevlseg_jax.data.medical.inputs import ScanInput
from tunevlseg_jax.data.medical.scan import Scan
from tunevlseg_jax.data.medical.seg_files import write_seg
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.prediction import shared, volume_answers
from tunevlseg_jax.prediction.forward import Predictor
from tunevlseg_jax.prediction.names import Names, Owner, Question, image_key
from tunevlseg_jax.prediction.planning import Settings
from tunevlseg_jax.prediction.table import ABOUT, Row, Table
from tunevlseg_jax.prediction.volume_answers import VolumeAnswer
from tunevlseg_jax.runtime import exchange, multihost
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import as_user_error

TABLE_FILE = "volumes.csv"
"""The table of the masks of volumes in a folder."""
FILES = ("mask", "probability", "seg")
COLUMNS = (*ABOUT, *FILES, "axis", "window", "slices", "voxels", "marked", "volume_ml")
END, PROBABILITY_END = "_mask", "_probability"


def table_of(folder: Path) -> Table:
    """The table of a folder's masks of volumes."""
    return Table(folder / TABLE_FILE, COLUMNS, ("mask",))


def files_of(folder: Path) -> set[Path]:
    """The resolved paths of the masks and probabilities of volumes that earlier calls wrote into a folder."""
    rows = table_of(folder).rows.values()
    return {(folder / row[name]).resolve() for row in rows for name in FILES if row[name]}


def predict(
    inputs: Sequence[ScanInput],
    settings: Settings,
    predictor: Predictor,
    axis: Axis | None,
    window: Window | None,
    *,
    seg: bool,
) -> Iterator[Row]:
    """Predicts and writes a mask of each volume and prompt, and yields their rows. Several processes share the volumes.

    The probabilities and the SEG file that an earlier call wrote with a mask are written again.

    Args:
      inputs: the volumes.
      settings: of the call.
      predictor: the model.
      axis: of the slices, None for axial ones.
      window: of the values, None for the series' own one or percentiles.
      seg: whether a DICOM SEG file is written as well for DICOM series.

    Raises:
      UserError: a file is broken, or a file of another program has the name of a mask.
    """
    table = table_of(settings.output)
    suffixes = {one.suffix for one in inputs} | {".dcm"}
    names = Names(_owners(table.rows.values()), lambda name: _check(settings.output, name, suffixes))
    questions = [settings.question(prompt) for prompt in settings.prompts]
    named = []
    with multihost.sync_errors():  # no process writes before all have found their names
        for one in inputs:
            image = one.place if one.series is not None else image_key(one.place, "")
            bases = [one.name, f"{one.name}{one.suffix}"]
            named.append((one, [names.of(image, bases, each, tagged=len(questions) > 1) for each in questions]))
    part = table.part()

    def rows() -> Iterator[Row]:
        for one, own in exchange.block(named):
            earlier = [part.get(f"{name}{END}{one.suffix}") or {} for name in own]
            scan = one.load()
            answers = volume_answers.ask(
                scan,
                settings.prompts,
                predictor,
                axis=scan.axis(axis),
                window=window,
                threshold=settings.threshold,
                probabilities=bool(settings.probabilities) or any(row.get("probability") for row in earlier),
            )
            for question, name, before, answer in zip(questions, own, earlier, answers, strict=True):
                row = question._asdict() | _row(one, name, scan, answer, scan.axis(axis), window)
                row["seg"] = f"{name}{END}.dcm" if one.series is not None and (seg or before.get("seg")) else None
                _remove(settings.output, before)
                part.add([row])  # before the mask: each mask is listed
                _write(settings.output, row, one, scan, answer)
                yield row
        part.close()

    yield from shared.joined(rows(), [table])


def _remove(folder: Path, row: Mapping[str, Any]) -> None:
    """Removes the files of an earlier row, so that a mask never stands beside the row of another."""
    for name in FILES:
        if row.get(name):
            path = folder / str(row[name])
            with as_user_error(path):
                path.unlink(missing_ok=True)


def _write(folder: Path, row: Row, one: ScanInput, scan: Scan, answer: VolumeAnswer) -> None:
    """Writes the files that a row lists."""
    volume_files.write(folder / row["mask"], answer.mask)
    if answer.probability is not None:
        volume_files.write(folder / row["probability"], answer.probability)
    if row["seg"] and one.series is not None:
        write_seg(folder / row["seg"], one.series, scan, answer.mask, row["prompt"])


def _row(one: ScanInput, name: str, scan: Scan, answer: VolumeAnswer, axis: Axis, window: Window | None) -> Row:
    """The columns of a mask but its question and its DICOM SEG file."""
    low, high = scan.resolved(window)
    volume = float(np.prod(scan.image.GetSpacing())) / 1000
    mask = slices.values(answer.mask)
    voxels = int(np.count_nonzero(mask))
    return {
        "image": one.place,
        "frame": None,
        "mask": f"{name}{END}{one.suffix}",
        "probability": None if answer.probability is None else f"{name}{PROBABILITY_END}{one.suffix}",
        "axis": axis,
        "window": f"{low:.6g} {high:.6g}" if scan.is_deep else None,
        "slices": slices.count(scan.image, axis),
        "voxels": voxels,
        "marked": voxels / mask.size,
        "volume_ml": voxels * volume if scan.spaced else None,
    }


def _owners(rows: Any) -> dict[str, Owner]:
    owners = {}
    for row in rows:
        question = Question(row["prompt"], row["threshold"], row["run"], row["run_sha256"])
        place = row["image"] if volume_files.suffix(row["image"]) is None else image_key(row["image"], "")
        owners[str(row["mask"]).rpartition(END)[0]] = Owner(place, question)
    return owners


def _check(folder: Path, name: str, suffixes: set[str]) -> None:
    """Raises a UserError where a file that isn't in the table has the name of a mask's file."""
    for file in (f"{name}{end}{suffix}" for suffix in sorted(suffixes) for end in (END, PROBABILITY_END)):
        if (folder / file).exists():
            raise UserError(f"{folder} holds another {file}; choose another --output", "other-folder")


def described(row: Mapping[str, Any]) -> str:
    """A line on a mask."""
    volume = "" if row["volume_ml"] is None else f", {row['volume_ml']:.4g} ml"
    return f"{row['image']}: {row['prompt']!r} in {row['slices']} {row['axis']} slices, {row['marked']:.1%}{volume}"
