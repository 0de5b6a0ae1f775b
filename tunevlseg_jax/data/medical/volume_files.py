"""NIfTI, NRRD and MetaImage files, by SimpleITK."""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.medical import nifti_length, slices
from tunevlseg_jax.data.medical.scan import Scan
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file
from tunevlseg_jax.runtime.optional import import_simpleitk

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
PIXELS_FILE = {".mhd": rb"^\s*ElementDataFile\s*=\s*(.+?)\s*$", ".nhdr": rb"^\s*data ?file\s*:\s*(.+?)\s*$"}
"""How a header names the file of its pixels."""
TOLERANCE = 1e-3
"""Of a pixel and of a direction's cosine, by which the geometries of an image and its labels may differ."""


def suffix(name: str) -> str | None:
    """The suffix of a volume file, such as ".nii.gz"; None for other files."""
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def read(path: Path, name: str) -> Scan:
    """A volume file.

    Raises:
      UserError: SimpleITK isn't installed, the file is broken, or it isn't one volume.
    """
    sitk = import_simpleitk(name)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError(f"can't decode {name}: {_reason(error)}", "undecodable") from error
    if suffix(str(path)) in (".nii", ".nii.gz"):
        nifti_length.check(path, image, name)
    return checked(image, name)


def checked(image: Any, name: str) -> Scan:
    """A SimpleITK image as a volume.

    Raises:
      UserError: it isn't a SimpleITK image, or not of one volume.
    """
    sitk = import_simpleitk(name)
    if not isinstance(image, sitk.Image):
        raise UserError(f"{name} must be a path or a SimpleITK image, got a {type(image).__name__}", "wrong-type")
    size, flat = image.GetSize(), image.GetDimension() == 2
    if len(size) == 4 and size[3] == 1:
        image = image[..., 0]
    elif flat:
        image = sitk.JoinSeries([image])
    elif len(size) != 3:
        raise UserError(
            f"{name} must hold one volume, got the size {'x'.join(map(str, size))}; save each time as a file",
            "wrong-shape",
        )
    if image.GetNumberOfComponentsPerPixel() not in (1, 3):
        channels = image.GetNumberOfComponentsPerPixel()
        raise UserError(f"{name} must be grey or RGB, got {channels} channels a pixel", "wrong-shape")
    return Scan(image, flat=flat)


def read_source(source: SourceFiles, name: str, folder: Path) -> Scan:
    """A volume file of a source, by way of a temporary folder, since SimpleITK reads only files.

    Raises:
      UserError: as in `read`, or the file of a header's pixels is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = source.read(name)
    path = folder / f"volume{suffix(name)}"
    written = [path]
    if pattern := PIXELS_FILE.get(path.suffix):
        match = re.search(pattern, content, re.MULTILINE | re.IGNORECASE)
        if match and match[1] not in (b"LOCAL", b"LIST"):
            pixels = PurePosixPath(match[1].decode("utf-8", "replace").replace("\\", "/")).name
            written.append(folder / pixels)
            written[1].write_bytes(source.read(str(PurePosixPath(name).with_name(pixels))))
    path.write_bytes(content)
    try:
        return read(path, name)
    finally:
        for file in written:
            file.unlink()


def write(path: Path, image: Any) -> None:
    """Writes a SimpleITK image, compressed and atomically."""
    with atomic_file(path) as temporary:
        whole = temporary.with_name(f"{temporary.name}{suffix(path.name)}")  # SimpleITK goes by the whole suffix
        try:
            import_simpleitk(str(path)).WriteImage(image, str(whole), useCompression=True)
            whole.replace(temporary)
        except RuntimeError as error:
            raise UserError(f"can't write {path}: is the disk full?", "unwritable") from error
        finally:
            whole.unlink(missing_ok=True)


def check_geometry(labels: Any, image: Any, labels_name: str, image_name: str) -> Any:
    """The labels on the grid of their image: as they are, or with their axes swapped and turned.

    Raises:
      UserError: they lie elsewhere, or have another size or spacing.
    """
    sitk = import_simpleitk(labels_name)
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    turned = sitk.DICOMOrient(labels, code)
    if turned.GetSize() != image.GetSize():
        sizes = ["x".join(map(str, one.GetSize())) for one in (turned, image)]
        raise UserError(f"mask {labels_name} is {sizes[0]}, its volume {image_name} {sizes[1]}", "mask-size")
    spacing = np.array(image.GetSpacing())
    corner = np.subtract(turned.GetOrigin(), image.GetOrigin())
    differences = {
        "spacing": np.subtract(turned.GetSpacing(), spacing) / spacing,
        "direction": np.subtract(turned.GetDirection(), image.GetDirection()),
        "origin": corner / spacing.min(),
    }
    for what, difference in differences.items():
        if np.abs(difference).max() > TOLERANCE * (10 if what == "origin" else 1):
            ours, theirs = (getattr(one, f"Get{what.title()}")() for one in (turned, image))
            shown = [" ".join(f"{value:.6g}" for value in values) for values in (ours, theirs)]
            raise UserError(
                f"mask {labels_name} has the {what} {shown[0]}, its volume {image_name} {shown[1]}; "
                "copy the header of the volume, or resample the mask",
                "mask-geometry",
            )
    turned.CopyInformation(image)
    return turned


def labels(image: Any, name: str) -> np.ndarray:
    """(z, y, x) whole numbers from 0 to 65535 of a label volume.

    Raises:
      UserError: it has colours, fractions, or values beyond.
    """
    array = slices.values(image)
    if array.ndim != 3:
        raise UserError(f"mask {name} has colours, not one value a pixel", "mask-not-grey")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise UserError(f"mask {name} must hold whole numbers, got fractions", "wrong-type")
    if array.min() < 0 or array.max() > 65535:
        raise UserError(f"mask {name} must be from 0 to 65535, got {array.min()} to {array.max()}", "out-of-range")
    return array.astype(np.uint16)


def _reason(error: RuntimeError) -> str:
    """What ITK says in the end."""
    text = str(error)
    if "orthonormal" in text:
        return "its axes aren't at right angles; resample it"
    return "it is not a volume file that SimpleITK reads, or a broken one; copy or save it again, or leave it out"
