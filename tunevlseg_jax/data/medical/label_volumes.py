"""Label volumes of DICOM series: NIfTI, NRRD and MetaImage files that belong to a series by their name or folder.

Names of files may hold the patient's name, so no message has them.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.tables import Classes
from tunevlseg_jax.data.examples import VOID
from tunevlseg_jax.data.mask_files import distinct
from tunevlseg_jax.data.medical import labels, volume_files
from tunevlseg_jax.data.medical.dicom_files import Series, place
from tunevlseg_jax.runtime.errors import UserError

ENDING = re.compile(r"(?<=.)[-_. ]?(seg|segmentation|labels?|masks?)$", re.IGNORECASE)
"""What tools append to the name of a series."""


class LabelVolume(NamedTuple):
    """A label volume: its path in the source, which no message shows, and its number in messages."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"label volume {place(self.number)}"


def find(source: SourceFiles) -> list[LabelVolume]:
    """The volume files of a source."""
    numbered = enumerate(source.names, 1)
    return [LabelVolume(name, number) for number, name in numbered if volume_files.suffix(name)]


def owners(volume: LabelVolume, series: Sequence[Series], source: SourceFiles) -> list[Series]:
    """The series of a label volume, several only if they have the same SeriesInstanceUID.

    It is the series whose SeriesInstanceUID is in the volume's path; or else the one that lies in a folder of the
    volume's name, with or without an ending such as "_seg"; or else the only one in the volume's own folder or below.

    Raises:
      UserError: there is none, or several.
    """
    places = {one.name: {PurePosixPath(source.names[file.number - 1]) for file in one.files} for one in series}
    whole = PurePosixPath(volume.name)
    stem = whole.name[: -len(volume_files.suffix(whole.name) or "")]
    titles = {stem.casefold(), ENDING.sub("", stem).casefold()}
    by_uid = [one for one in series if re.search(rf"(?<![\d.]){re.escape(one.uid)}(?!\.?\d)", volume.name)]
    by_name = [
        one
        for one in series
        if any(part.casefold() in titles for path in places[one.name] for part in path.parent.parts)
    ]
    by_folder = [one for one in series if any(path.is_relative_to(whole.parent) for path in places[one.name])]
    found = by_uid or by_name or by_folder
    if len({one.uid for one in found}) == 1:
        return found
    remedy = "call it after its series' SeriesInstanceUID or folder, or put it into the folder of its series alone"
    if found:
        raise UserError(f"the {volume} belongs to several series of the source; {remedy}", "label-unclear")
    raise UserError(f"the {volume} belongs to no series of the source; {remedy}", "image-missing")


def read(
    volume: LabelVolume,
    series: Series,
    source: SourceFiles,
    folder: Path,
    classes: Classes | None,
    prompt: tuple[str, ...],
    image: Any,
) -> Iterator[tuple[str, Any]]:
    """The name and the mask of each class, a SimpleITK image of 0, 1 and VOID on the grid of `image`.

    Args:
      volume: the label volume.
      series: that it belongs to.
      source: of its file.
      folder: for temporary files.
      classes: of its values; None for one class.
      prompt: of the only class, without a table of classes.
      image: on the grid of the series.

    Raises:
      UserError: the file is broken, lies elsewhere than its series, or has values that aren't among the classes.
    """
    try:
        stored = volume_files.read_source(source, volume.name, folder).image
    except UserError as error:
        raise UserError(f"can't read the {volume}: it is broken, incomplete, or not one volume", error.code) from error
    values = volume_files.labels(volume_files.check_geometry(stored, image, str(volume), series.name), str(volume))
    if classes is not None and classes.values:
        numbers = labels.recoded(values, classes.values, str(volume))
        for one in classes.named.values():
            marked = np.where(numbers == VOID, VOID, numbers == one.number)
            yield one.label, labels.like(marked.astype(np.uint8), image)
        return
    if len(levels := distinct(values[values > 0])) > 1:
        shown = ", ".join(map(str, levels[:5]))
        raise UserError(f"the {volume} has the values {shown}; give --classes with a column value", "mask-not-binary")
    names = list(classes.named) if classes is not None else list(prompt[:1])
    if len(names) != 1:
        raise UserError(f"the {volume} needs --prompt, or --classes with a column value", "missing-option")
    yield names[0], labels.like((values > 0).astype(np.uint8), image)
