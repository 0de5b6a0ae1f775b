"""Medical files among the files and folders that `predict` is given."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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


class Found(NamedTuple):
    """What was found.

    Attributes:
      scans: the volumes, and the series of the DICOM files.
      others: files, folders and patterns that hold images, or nothing known.
      left_out: number of files in folders of medical files that are neither medical files nor images.
    """

    scans: list[ScanInput]
    others: list[str]
    left_out: int


def find(given: Sequence[str], *, recursive: bool, ours: Collection[Path] = (), images: Collection[str] = ()) -> Found:
    """The medical files among what is given.

    Args:
      given: names of files and folders, and patterns.
      recursive: whether subfolders are walked.
      ours: resolved paths of earlier masks, which are left out of folders.
      images: endings of image files, such as ".png".

    Raises:
      UserError: a DICOM file is broken, or a package for it isn't installed.
    """
    volumes, dicoms, others, left_out = [], [], [], 0
    for name in given:
        path = Path(name)
        if path.is_file() and name != "-":
            kind = kind_of(path)
            (volumes if kind == "volume" else dicoms if kind == "dicom" else others).append(path if kind else name)
            continue
        if not path.is_dir():
            others.append(name)
            continue
        inside = {file: kind_of(file) for file in _files(path, recursive) if file.resolve() not in ours}
        volumes += [file for file, kind in inside.items() if kind == "volume"]
        dicoms += [file for file, kind in inside.items() if kind == "dicom"]
        unknown = [file for file, kind in inside.items() if kind is None]
        if len(unknown) == len(inside) or any(file.suffix.lower() in images for file in unknown):
            others.append(name)
        else:
            left_out += len(unknown)
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
    return Found(found, others, left_out)


def read_one(volume: Any) -> Scan:
    """The only volume or series of what is given.

    Args:
      volume: the path of a volume file, of a folder or of a DICOM file; several paths, such as the files of a series;
        or a SimpleITK image.

    Raises:
      UserError: as in `find`; or there is no volume, or several.
    """
    if not isinstance(volume, str | os.PathLike | list | tuple):
        return volume_files.checked(volume, "the volume")
    given = [os.fspath(path) for path in (volume if isinstance(volume, list | tuple) else [volume])]
    named = given[0] if len(given) == 1 else f"{len(given)} files"
    for path in given:
        if not Path(path).exists():
            raise UserError(f"there is no {path}", "no-such-file")
    found = find(given, recursive=True).scans
    if not found:
        raise UserError(f"{named}: no NIfTI, NRRD or MetaImage volume and no DICOM series", "no-images")
    if len(found) > 1:
        names = ", ".join(one.place for one in found[:3]) + ", ..." * (len(found) > 3)
        raise UserError(
            f"{named}: {len(found)} volumes and series ({names}); give one volume file, or the files of one series",
            "one-volume",
        )
    return found[0].load()


def kind_of(path: Path) -> str | None:
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
