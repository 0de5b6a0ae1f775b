"""CVC-ClinicDB (Bernal et al. 2015): 612 frames of colonoscopy videos with polyps.

Source: the download, or its folder CVC-ClinicDB with Original/1.tif ... 612.tif and "Ground Truth"/1.tif ...; the
copy with PNG/, TIF/ and a metadata.csv is read from its PNG files, and each frame's sequence from metadata.csv. For
research, to be cited. The TIFF files declare their colours as grey. They are read as colours, which equal the PNG
files. The paper splits by frame: by its number, nearly every test frame has a neighbour of the same video in train, as
`check` reports. Without annotations, sequences stay together if metadata.csv is there.
"""

import csv
import io

from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import Item, paired_items
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.runtime.errors import UserError


def items(source: SourceFiles) -> list[Item]:
    """One item per frame, in the order of the videos."""
    suffix = "png" if any(source.find(r"Original/\d+\.png")) else "tif"
    images, masks = rf"Original/(\d+)\.{suffix}", rf"Ground Truth/(\d+)\.{suffix}"
    frames = paired_items(source, images, masks, "polyp", groups=_sequences(source))
    return sorted(frames, key=lambda item: int(item.key))


def _sequences(source: SourceFiles) -> dict[str, str]:
    """The video sequence of each frame, if there is a metadata.csv."""
    sequences = {}
    for name, _ in source.find(r"metadata\.csv"):
        for number, row in enumerate(csv.DictReader(io.StringIO(source.read(name).decode("utf-8-sig"))), 2):
            if not row.get("frame_id") or not row.get("sequence_id"):
                raise UserError(f"row {number} of {name} lacks frame_id or sequence_id", "missing-field")
            sequences[row["frame_id"].strip()] = f"sequence {row['sequence_id'].strip()}"
    return sequences


CLINICDB = PublicSet(
    name="clinicdb",
    doc=__doc__,
    homepage="https://polyp.grand-challenge.org/CVCClinicDB/",
    licence="research, with citation",
    sizes=Sizes(490, 61, 61),
    annotated="clinicdb_polyp",
    items=items,
)
