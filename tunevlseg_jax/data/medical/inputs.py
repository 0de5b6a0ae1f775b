"""Medical files among the files and folders that `predict` is given."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunevlseg_jax.data.images import read_bytes
from tunevlseg_jax.data.medical import dicom_files, dicom_series, volume_files
from tunevlseg_jax.data.medical.dicom_files import Series
from tunevlseg_jax.data.medical.scan import Scan
from tunevlseg_jax.runtime.errors import UserError


@dataclass(frozen=True)
class ScanInput:
    """A volume file or a DICOM series.

    Attributes:
      place: the path of a volume file; the name of a series, which says nothing about the patient.
      name: of its masks, before "_mask".
      suffix: of its masks.
      load: reads it.
      series: of DICOM files.
    """

    place: str
    name: str
    suffix: str
    load: Callable[[], Scan]
    series: Series | None = None


def find(given: Sequence[str], *, recursive: bool, ours: Collection[Path] = ()) -> tuple[list[ScanInput], list[str]]:
    """The medical files among what is given, and the files, folders and patterns that hold other ones.

    A folder's DICOM files are sorted into series. A folder of medical files alone isn't among the others. `ours` are
    the resolved paths of earlier masks, which are left out of folders.

    Raises:
      UserError: a DICOM file is broken, or a package for it isn't installed.
    """
    volumes, dicoms, others = [], [], []
    for name in given:
        path = Path(name)
        if path.is_file() and name != "-":
            kind = _kind(path)
            (volumes if kind == "volume" else dicoms if kind == "dicom" else others).append(path if kind else name)
            continue
        if not path.is_dir():
            others.append(name)
            continue
        inside = {file: _kind(file) for file in _files(path, recursive) if file.resolve() not in ours}
        volumes += [file for file, kind in inside.items() if kind == "volume"]
        dicoms += [file for file, kind in inside.items() if kind == "dicom"]
        if not any(inside.values()) or not all(inside.values()):
            others.append(name)
    found = []
    for path in dict.fromkeys(volumes):
        suffix = volume_files.suffix(path.name) or ""
        suffix = {".mhd": ".mha", ".nhdr": ".nrrd"}.get(suffix, suffix)  # one file
        name = path.name[: -len(volume_files.suffix(path.name) or "")]
        found.append(ScanInput(str(path), name, suffix, partial(volume_files.read, path, str(path))))
    series = dicom_files.image_series(dicom_files.find(partial(read_bytes, path) for path in dict.fromkeys(dicoms)))
    if dicoms and not series:
        raise UserError("the DICOM files that are given hold no images", "no-images")
    found += [ScanInput(one.name, one.name, ".nii.gz", partial(dicom_series.read, one), one) for one in series]
    return found, others


def _kind(path: Path) -> str | None:
    """Whether a file is a volume or DICOM; None for others."""
    if volume_files.suffix(path.name):
        return "volume"
    if path.suffix.lower() not in ("", ".dcm", ".dicom", ".ima") and not path.suffix[1:].isdigit():
        return None
    try:
        with path.open("rb") as file:
            return "dicom" if dicom_files.is_dicom(file.read(132)) else None
    except OSError:
        return None  # reported where it is read


def _files(folder: Path, recursive: bool) -> list[Path]:
    """The files of a folder; a DICOM series may lie in folders below it, which `recursive` allows."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        found += [Path(place) / name for name in sorted(files) if not name.startswith(".")]
    return found
