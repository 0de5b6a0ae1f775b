"""DICOM files by series and patient, under names that say nothing about the patient.

Names of folders and files, and the tags that identify a patient, may hold the patient's name. So none of them is
kept: a series is called after a hash of its SeriesInstanceUID, a patient after a hash of a study's UID, and messages
count files in the order of their names.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_pydicom

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4",)
STRUCTURE_SETS = ("1.2.840.10008.5.1.4.1.1.481.3",)
"""SOPClassUID of files that hold masks."""


class DicomFile(NamedTuple):
    """A DICOM file: its content, its tags without the pixels, and its number in messages."""

    read: Callable[[], bytes]
    header: Any
    number: int


@dataclass(frozen=True)
class Series:
    """The images of a series that form one volume, or a file of several frames.

    Attributes:
      name: says nothing about the patient.
      patient: likewise, the same for all series of a patient.
      uid: SeriesInstanceUID.
      files: in no order.
    """

    name: str
    patient: str
    uid: str
    files: tuple[DicomFile, ...]

    def tag(self, name: str) -> str:
        """A tag of the first file, "" if it lacks it."""
        return str(self.files[0].header.get(name, "") or "")


def is_dicom(start: bytes) -> bool:
    """Whether a file begins as DICOM files do."""
    return start[128:132] == b"DICM"


def find(readers: Iterable[Callable[[], bytes]]) -> list[DicomFile]:
    """The DICOM files among the files; others are left out, and so are those of a disk's index.

    Raises:
      UserError: pydicom isn't installed, or a file is broken.
    """
    found = []
    for number, read in enumerate(readers, 1):
        data = read()
        if not is_dicom(data):
            continue
        pydicom = import_pydicom("DICOM")
        try:
            header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
            if "SOPInstanceUID" in header:  # an index such as DICOMDIR has none
                found.append(DicomFile(read, header, number))
        except Exception as error:  # pydicom raises various errors for broken files
            raise UserError(f"can't read the DICOM file {place(number)}: it is broken", "undecodable") from error
    return found


def place(number: int) -> str:
    """How messages name a file, without its name."""
    return f"number {number} in the order of the names in its source"


def pseudonym(kind: str, uid: str) -> str:
    """A name such as series_0123456789ab, the same each time for the same identifier."""
    return f"{kind}_{hashlib.sha256(uid.encode()).hexdigest()[:12]}"


def image_series(files: Sequence[DicomFile]) -> list[Series]:
    """The series of images, in the order of their names.

    Images of a series that have another size or direction, or lie where another image lies, as those of other times do,
    form series of their own.
    """
    images = [file for file in files if "Rows" in file.header and not is_mask(file)]
    patients = _patients(images)
    stacks: dict[tuple[Any, ...], list[dict[tuple[Any, ...], DicomFile]]] = defaultdict(list)
    for file in sorted(images, key=lambda file: (int(file.header.get("InstanceNumber") or 0), file.number)):
        header = file.header
        direction = tuple(round(float(value), 3) for value in header.get("ImageOrientationPatient") or ())
        place = tuple(round(float(value), 3) for value in header.get("ImagePositionPatient") or ()) or (file.number,)
        alone = file.number if int(header.get("NumberOfFrames") or 1) > 1 else None
        same = stacks[str(header.get("SeriesInstanceUID", "")), direction, header.Rows, header.Columns, alone]
        free = next((stack for stack in same if place not in stack), None)
        if free is None:
            same.append(free := {})
        free[place] = file
    counts: dict[str, int] = defaultdict(int)
    series = []
    for (uid, *_), several in stacks.items():
        for stack in several:
            counts[uid] += 1
            name = pseudonym("series", uid) + (f"_{counts[uid]}" if counts[uid] > 1 else "")
            files_of_stack = tuple(stack.values())
            series.append(Series(name, patients[_patient_key(files_of_stack[0])], uid, files_of_stack))
    return sorted(series, key=lambda one: one.name)


def is_mask(file: DicomFile) -> bool:
    """Whether a file holds masks."""
    return str(file.header.get("SOPClassUID", "")) in (*SEGMENTATIONS, *STRUCTURE_SETS)


def _patient_key(file: DicomFile) -> tuple[str, ...]:
    header = file.header
    if identifier := str(header.get("PatientID") or "").strip():
        return (identifier, str(header.get("IssuerOfPatientID") or ""))
    named = str(header.get("PatientName") or "").strip()
    return (named, str(header.get("PatientBirthDate") or "")) if named else (str(header.get("StudyInstanceUID") or ""),)


def _patients(files: Sequence[DicomFile]) -> dict[tuple[str, ...], str]:
    """The pseudonym of each patient: of a study, since short numbers and names could be found by trying."""
    studies: dict[tuple[str, ...], str] = {}
    for file in files:
        key = _patient_key(file)
        study = str(file.header.get("StudyInstanceUID") or file.header.get("SeriesInstanceUID") or "")
        studies[key] = min(study, studies.get(key, study))
    return {key: pseudonym("patient", study) for key, study in studies.items()}
