"""Writes DICOM SEG files, by highdicom."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax import __version__
from tunevlseg_jax.data.medical.dicom_files import Series
from tunevlseg_jax.data.medical.scan import Scan
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file
from tunevlseg_jax.runtime.optional import import_highdicom, import_pydicom, import_simpleitk


def write_seg(path: Path, series: Series, scan: Scan, mask: Any, prompt: str) -> None:
    """Writes a mask as the SEG file of its series, with the series' patient and study, as DICOM asks for.

    Args:
      path: of the file.
      series: the images.
      scan: their volume.
      mask: SimpleITK image of 0 and 1 on its grid.
      prompt: names the segment.

    Raises:
      UserError: the series lacks what a SEG file must repeat.
    """
    highdicom, pydicom = import_highdicom("DICOM SEG"), import_pydicom("DICOM SEG")
    array = import_simpleitk("DICOM SEG").GetArrayFromImage(mask).astype(np.uint8)
    try:
        datasets = [pydicom.dcmread(io.BytesIO(file.read())) for file in series.files]
        if scan.sources:
            by_uid = {str(dataset.SOPInstanceUID): dataset for dataset in datasets}
            datasets = [by_uid[uid] for uid in scan.sources]
        other = pydicom.sr.codedict.codes.SCT
        description = highdicom.seg.SegmentDescription(
            segment_number=1,
            segment_label=prompt[:64],
            segmented_property_category=other.Tissue,
            segmented_property_type=other.Tissue,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name="tunevlseg_jax", version=__version__, family=pydicom.sr.codedict.codes.DCM.ArtificialIntelligence
            ),
        )
        segmentation = highdicom.seg.Segmentation(
            source_images=datasets,
            pixel_array=array,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[description],
            series_instance_uid=highdicom.UID(),
            series_number=1000,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="tunevlseg_jax",
            manufacturer_model_name="tunevlseg_jax",
            software_versions=__version__,
            device_serial_number="0",
        )
        with atomic_file(path) as temporary:
            segmentation.save_as(temporary)
    except UserError:
        raise
    except Exception as error:  # highdicom raises various errors for series that lack tags
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"can't write a DICOM SEG file for {series.name}: {reason}", "unwritable") from error
