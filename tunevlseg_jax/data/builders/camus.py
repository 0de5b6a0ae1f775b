"""CAMUS (Leclerc et al. 2019): ultrasound of 500 hearts, two views at two times each.

Source: CAMUS_public.zip, or its folder with database_nifti/ and database_split/ (NIfTI); or the older release's
training/ and testing/ (.mhd with .raw). By registration at humanheart-project.creatis.insa-lyon.fr;
CC BY-NC-SA 4.0. Values 1, 2 and 3 are the left ventricle, the myocardium and the left atrium; the newer release
stores them as floats. Patients have the newer release's numbers; the older one's test patients 1 to 50 are 451 to 500
there, which is checked against the patients' sex in the annotations and in the release. Without annotations the
release's own subgroups are the splits, else seeded ones by patient.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np

from tunevlseg_jax.data import mask_files
from tunevlseg_jax.data.builders import volumes
from tunevlseg_jax.data.builders.annotation_files import Annotation
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Content, Item
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.data.examples import LEVEL, SPLITS, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.runtime.errors import UserError

CLASSES = ("Left ventricular cavity", "Myocardium", "Left atrium cavity")
"""Names of the values 1, 2 and 3."""
OLD_TRAINING = 450
"""Number of patients in the older release's training part; its test patients start again at 1."""
SUBGROUPS = {"training": "train", "validation": "val", "testing": "test"}
SEX_LEVEL = 4
IMAGE = r"patient(\d{4})/patient\d{4}_([24]CH_E[DS])\.(nii|nii\.gz|mhd)"
POOLS = {"training": ("train", "val"), "testing": ("test",)}
"""The older release's folders and the splits that their images may be in."""


def items(source: SourceFiles) -> Iterator[Item]:
    """One item per image, with three records."""
    subgroups: dict[str, tuple[str, ...]] = {
        patient: (SUBGROUPS[match[1].lower()],)
        for name, match in source.find(r"subgroup_(training|validation|testing)\.txt")
        for patient in source.read(name).decode().split()
    }
    for image, match in source.find(IMAGE):
        mask = f"{image.removesuffix(f'.{match[3]}')}_gt.{match[3]}"
        if mask not in source:  # the older release came without the test patients' masks at first
            continue
        pool = next((part for part in image.split("/") if part in POOLS), "")
        patient = f"patient{int(match[1]) + OLD_TRAINING * (pool == 'testing'):04d}"
        key = f"{patient}_{match[2]}"
        splits = subgroups.get(patient) or POOLS.get(pool, SPLITS)
        yield Item(key, partial(_load, source, key, image, mask), patient, splits=splits, records=len(CLASSES))


def renamed(source: SourceFiles, split: str, rows: Iterable[Annotation]) -> Iterator[Annotation]:
    """The annotations with the paper's test patients under the newer release's numbers.

    Raises:
      UserError: a patient's sex in the annotations isn't that in the source.
    """
    sexes = dict(_sexes(source))
    for row in rows:
        moved = row
        if split == "test":
            image, mask = (
                re.sub(r"(?<=patient)\d+", lambda number: f"{int(number[0]) + OLD_TRAINING:04d}", name)
                for name in (row.image, row.mask)
            )
            moved = dataclasses.replace(row, image=image, mask=mask)
        _check_sex(moved, sexes)
        yield moved


def _check_sex(annotation: Annotation, sexes: Mapping[str, str]) -> None:
    patient = annotation.image.partition("_")[0]
    mentioned = re.search(r"\b(fe)?male\b", " ".join(annotation.prompts.get(SEX_LEVEL, ())))
    known = sexes.get(patient)
    if mentioned and known and (known == "F") != (mentioned[1] is not None):
        raise UserError(
            f"the annotations of {annotation.image} (in the newer release's numbers) speak of a {mentioned[0]}, "
            f"but the source's {patient} is {known}: the two number their patients in different ways",
            "patient-differs",
        )


def _sexes(source: SourceFiles) -> Iterator[tuple[str, str]]:
    """ "F" or "M" by patient, of the newer release."""
    for name, match in source.find(r"(patient\d{4})/Info_4CH\.cfg"):
        if "testing" not in name.split("/") and (sex := re.search(rb"^Sex:\s*([FM])", source.read(name), re.MULTILINE)):
            yield match[1], sex[1].decode()


def _load(source: SourceFiles, key: str, image: str, mask: str) -> Content:
    pixels = _grey(_read(source, image), image)
    classes = mask_files.whole_numbers(_read(source, mask), mask)  # the newer release stores them as float32
    mask_files.check_size(classes, (pixels.shape[0], pixels.shape[1]), mask, image)
    mask_files.check_values(classes, range(len(CLASSES) + 1), mask)
    records = tuple(
        Record(
            f"mask_{value}/{key}_gt",
            label,
            0,
            value,
            {LEVEL: (f"{label} of the heart.", f"{label} in the cardiac ultrasound.")},
        )
        for value, label in enumerate(CLASSES, 1)
    )
    return Content(encode_png(pixels), (encode_png(classes.astype(np.uint8)),), records)


def _grey(pixels: np.ndarray, name: str) -> np.ndarray:
    """uint8 of an image whose brightness, from 0 to 255, may be stored in another type.

    Raises:
      UserError: a value is below 0, above 255 or no number.
    """
    if not (pixels.min() >= 0 and pixels.max() <= 255):  # not a number fails both comparisons
        raise UserError(f"image {name} must be from 0 to 255, got {pixels.min():g} to {pixels.max():g}", "out-of-range")
    return np.rint(pixels).astype(np.uint8)


def _read(source: SourceFiles, name: str) -> np.ndarray:
    folder = name.rpartition("/")[0]
    if name.endswith(".mhd"):
        return volumes.metaimage(source.read(name), name, lambda file: source.read(f"{folder}/{file}"))
    return volumes.nifti(source.read(name), name)


CAMUS = PublicSet(
    name="camus",
    doc=__doc__,
    homepage="https://humanheart-project.creatis.insa-lyon.fr/database/",
    licence="CC BY-NC-SA 4.0",
    sizes=Sizes(4800, 600, 600),
    annotated="camus",
    items=items,
    renamed=renamed,
)
