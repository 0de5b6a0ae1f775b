"""Masks of volumes and DICOM series: predicted slice by slice, written with the geometry of the input."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.data.medical import slices, volume_files
from tunevlseg_jax.data.medical.inputs import ScanInput
from tunevlseg_jax.data.medical.scan import DEFAULT_AXIS, Scan
from tunevlseg_jax.data.medical.seg_files import write_seg
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.prediction import forward
from tunevlseg_jax.prediction.forward import Predictor
from tunevlseg_jax.prediction.names import Names, Owner, Question, image_key
from tunevlseg_jax.prediction.planning import Settings
from tunevlseg_jax.prediction.table import ABOUT, Row, Table
from tunevlseg_jax.runtime.errors import UserError

TABLE_FILE = "volumes.csv"
"""The table of the masks of volumes in a folder."""
COLUMNS = (*ABOUT, "mask", "axis", "window", "slices", "voxels", "marked", "volume_ml", "seg")
END = "_mask"


def table_of(folder: Path) -> Table:
    """The table of a folder's masks of volumes."""
    return Table(folder / TABLE_FILE, COLUMNS, ("mask",))


def files_of(folder: Path) -> set[Path]:
    """The resolved paths of the masks of volumes that earlier calls wrote into a folder."""
    rows = table_of(folder).rows.values()
    return {(folder / row[name]).resolve() for row in rows for name in ("mask", "seg") if row[name]}


def predict(
    inputs: Sequence[ScanInput],
    settings: Settings,
    predictor: Predictor,
    axis: Axis | None,
    window: Window | None,
    *,
    seg: bool,
) -> Iterator[Row]:
    """Predicts and writes a mask of each volume and prompt; yields their rows.

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
    for one in inputs:
        image = one.place if one.series is not None else image_key(one.place, "")
        questions = [settings.question(prompt) for prompt in settings.prompts]
        several = len(questions) > 1
        bases = [one.name, f"{one.name}{one.suffix}"]
        own = [names.of(image, bases, question, tagged=several) for question in questions]
        scan = one.load()
        used: Axis = (axis or DEFAULT_AXIS) if scan.placed else "axial"
        masks = _masks(scan, used, window, settings, predictor)
        for question, name, mask in zip(questions, own, masks, strict=True):
            row = _row(one, question, name, scan, mask, used, window, seg)
            table.add([row])  # before the mask: each mask is listed
            restored = slices.volume(mask, scan.image, used)
            volume_files.write(settings.output / row["mask"], restored, flat=scan.flat)
            if row["seg"] and one.series is not None:
                write_seg(settings.output / row["seg"], one.series, scan, restored, question.prompt)
            yield row
    table.close()


def _masks(scan: Scan, axis: Axis, window: Window | None, settings: Settings, predictor: Predictor) -> list[np.ndarray]:
    """(slice, height, width) uint8 of 0 and 1 for each prompt."""
    planes = scan.planes(axis, window)
    size = planes.values.shape[1:3]
    masks = [np.zeros((len(planes), *size), np.uint8) for _ in settings.prompts]
    least, every = forward.logit(settings.threshold), range(len(settings.prompts))
    asked = (forward.Question(index, planes.rgb(index), every) for index in range(len(planes)))
    for index, logits in predictor.logits(asked, settings.prompts):
        assert logits is not None, "every slice is asked for every prompt"
        for mask, small in zip(masks, logits, strict=True):
            mask[index] = forward.enlarge(small, size) > least
    return masks


def _row(
    one: ScanInput, question: Question, name: str, scan: Scan, mask: np.ndarray, axis: str, window: Any, seg: bool
) -> Row:
    low, high = scan.resolved(window)
    volume = float(np.prod(scan.image.GetSpacing())) / 1000
    return question._asdict() | {
        "image": one.place,
        "frame": None,
        "mask": f"{name}{END}{one.suffix}",
        "axis": axis,
        "window": f"{low:.6g} {high:.6g}" if scan.is_deep else None,
        "slices": len(mask),
        "voxels": int(mask.sum()),
        "marked": float(mask.mean()),
        "volume_ml": int(mask.sum()) * volume if scan.spaced else None,
        "seg": f"{name}{END}.dcm" if seg and one.series is not None else None,
    }


def _owners(rows: Any) -> dict[str, Owner]:
    owners = {}
    for row in rows:
        question = Question(row["prompt"], row["threshold"], row["run"], row["run_sha256"])
        place = row["image"] if volume_files.suffix(row["image"]) is None else image_key(row["image"], "")
        owners[str(row["mask"]).rpartition(END)[0]] = Owner(place, question)
    return owners


def _check(folder: Path, name: str, suffixes: set[str]) -> None:
    """Raises a UserError where a file that isn't in the table has the name of a mask."""
    for suffix in sorted(suffixes):
        if (folder / f"{name}{END}{suffix}").exists():
            raise UserError(f"{folder} holds another {name}{END}{suffix}; choose another --output", "other-folder")


def described(row: Mapping[str, Any]) -> str:
    """A line on a mask."""
    volume = "" if row["volume_ml"] is None else f", {row['volume_ml']:.4g} ml"
    return f"{row['image']}: {row['prompt']!r} in {row['slices']} {row['axis']} slices, {row['marked']:.1%}{volume}"
