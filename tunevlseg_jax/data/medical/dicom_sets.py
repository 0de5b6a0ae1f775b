"""Data sets of the slices of DICOM series with the masks of SEG files, RT structure sets and label volumes."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunevlseg_jax.data.builders import tables
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.examples import SPLITS
from tunevlseg_jax.data.medical import dicom_files, dicom_masks, dicom_series, label_volumes, labels
from tunevlseg_jax.data.medical.dicom_files import Series
from tunevlseg_jax.data.medical.labels import Labels, SliceChoice, Structure, Volume
from tunevlseg_jax.data.medical.scan import DEFAULT_AXIS
from tunevlseg_jax.data.preprocessing import Axis
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.runtime import progress_bar
from tunevlseg_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Dicom:
    """Slices of DICOM series with the masks of DICOM SEG and RT-STRUCT files, or of label volumes.

    Attributes:
      name: name of the set: letters, digits and underscores, a letter first.
      source: folders, zip or tar files with the images and the mask files, under any names. No name of a file or
        folder and no tag about the patient comes into the set. A NIfTI, NRRD or MetaImage label volume is called after
        its series' SeriesInstanceUID or folder, or lies in that folder.
      prompt: prompt for the only structure; several are phrasings of the same prompt. Without it and --classes, the
        structures' names are the prompts.
      classes: CSV or JSON with the columns class (a structure's name), optionally prompt, and value for label volumes;
        other structures are left out.
      axis: slices of the body. Radiographs and ultrasound are taken frame by frame.
      slices: "object" for slices that show any structure, "all", or a number n for every n-th slice.
      window: LOW HIGH, the values (such as Hounsfield units) that become black and white, "dicom" (the default): the
        series' own window, or else percentiles; or "percentile": of each series the percentiles 0.5 and 99.5.
      fractions: fractions of train, val and test; the slices of a patient stay together.
      seed: seed of the random split.
      output: the data folder; the set is written to OUTPUT/NAME.
    """

    name: str
    source: tuple[Path, ...]
    prompt: tuple[str, ...] = ()
    classes: Path | None = None
    axis: Axis = DEFAULT_AXIS
    slices: SliceChoice = "object"
    window: tuple[str, ...] = ()
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0
    output: Path = Path("data")


MaskReader = Callable[[Any], Iterator[tuple[str, Any]]]
"""Gives the name and the mask of each structure of a file, on the grid of an image."""


def items(options: Dicom, source: SourceFiles, folder: Path, window: Window) -> tuple[str, list[Item]]:
    """Lines on what was found, and the slices of the series that have masks; `folder` is for temporary files.

    Raises:
      UserError: options contradict each other, or there are no series with masks, or a file is broken.
    """
    labels.check_options(options.prompt, options.classes, options.slices)
    classes = None if options.classes is None else tables.classes(options.classes)
    readers = [partial(source.read, name) for name in source.names]
    files = dicom_files.find(progress_bar.track(readers, "reading"))
    series = dicom_files.image_series(files)
    if not series:
        message = f"the source has no DICOM images among its {len(source.names)} files"
        raise UserError(f"{message}: bytes 129 to 132 of a DICOM file are DICM; give another --source", "no-images")
    of_files = dicom_masks.of_series([file for file in files if dicom_files.is_mask(file)], series)
    masks: dict[str, list[MaskReader]] = {
        name: [partial(dicom_masks.read, file) for file in several] for name, several in of_files.items()
    }
    volumes = label_volumes.find(source)
    for volume in volumes:
        for one in label_volumes.owners(volume, series, source):
            read = partial(label_volumes.read, volume, one, source, folder, classes, options.prompt)
            masks.setdefault(one.name, []).append(read)
    if not masks:
        raise UserError(
            "the source has no DICOM SEG or RT-STRUCT file and no label volume; add them to --source", "mask-missing"
        )
    found: list[Item] = []
    for one in series:
        if one.name not in masks:
            continue
        grid = dicom_series.grid(one)
        marked = _labels(masks[one.name], grid.image, options.prompt, classes, one)
        if marked.structures:
            volume = Volume(one.name, one.patient, SPLITS, grid, marked, partial(dicom_series.read, one))
            found += labels.items(volume, grid.axis(options.axis), options.slices, window)
    if not found:
        raise UserError("no slice shows a structure; --slices all takes all, --classes names others", "no-images")
    left_out = f"; {len(series) - len(masks)} without masks left out" if len(series) > len(masks) else ""
    patients = len({one.patient for one in series if one.name in masks})
    others = len(source.names) - len(files) - len(volumes)
    skipped = f"\nleft out: {others} files that are neither DICOM nor label volumes" if others else ""
    return f"series: {len(masks)} of {patients} patients{left_out}{skipped}", found


def _labels(
    masks: Sequence[MaskReader], image: Any, prompt: tuple[str, ...], classes: Classes | None, series: Series
) -> Labels:
    """The structures of a series, each with a binary map; masks of one name are joined."""
    joined: dict[str, Any] = {}
    for read in masks:
        for name, mask in read(image):
            if classes is None or name in classes.named:
                joined[name] = (joined[name] | mask) if name in joined else mask
    if prompt and len(joined) > 1:
        named = ", ".join(sorted(joined))
        raise UserError(f"{series.name} has the structures {named}; name the ones to take in --classes", "class-count")
    structures = []
    for number, name in enumerate(joined):
        _check_label(name, series)
        label = prompt[0] if prompt else name
        prompts = prompt or (classes.named[name].prompts if classes else (name,))
        structures.append(Structure(label, prompts, number, 1))
    return Labels(tuple(joined.values()), tuple(structures))


def _check_label(label: str, series: Series) -> None:
    """Raises a UserError if a structure has no name, or the patient's name or number in it."""
    if not label.strip():
        raise UserError(f"a structure of {series.name} has no name; give --prompt", "empty-prompt")
    identity = " ".join(series.tag(name) for name in ("PatientName", "PatientID", "OtherPatientNames"))
    parts = {part.lower() for part in re.split(r"[\W_]+", identity) if len(part) > 2}
    if parts & {part.lower() for part in re.split(r"[\W_]+", label)}:
        raise UserError(
            f"a structure of {series.name} has the patient's name or number in its own name; rename it",
            "patient-named",
        )
