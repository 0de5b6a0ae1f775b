"""CheXlocalize (Saporta et al. 2022): ten findings in 686 chest X-rays of CheXpert's validation and test parts.

Source: a folder with CheXpert/{val,test}/patientN/studyN/viewN_*.jpg (or CheXpert-v1.0/valid) and
CheXlocalize/gt_segmentations_{val,test}.json, or the downloads that hold them; Stanford AIMI's research use
agreement, not to be passed on. Masks are COCO run lengths; findings that an image doesn't show have empty ones and
are left out, and so are images without a finding. The paper splits both parts together by patient.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tunevlseg_jax.data.builders import rle
from tunevlseg_jax.data.builders.archives import SourceFiles
from tunevlseg_jax.data.builders.items import BinaryMask, Content, Item, binary_masks
from tunevlseg_jax.data.builders.public import PublicSet, Sizes
from tunevlseg_jax.data.examples import LEVEL
from tunevlseg_jax.runtime.errors import UserError

RENAMED = {"Lung Opacity": "Airspace Opacity"}
"""CheXpert's name and the name in the paper's annotations."""


def items(source: SourceFiles) -> Iterator[Item]:
    """One item per image with findings, with a record for each finding."""
    images = {
        f"{match[1]}_{match[2]}_{match[3]}": name
        for name, match in source.find(r"(patient\d+)/(study\d+)/(view\d+_\w+)\.jpg")
    }
    for file, _ in source.find(r"gt_segmentations_(?:val|test)\.json"):
        for key, masks in _parse(source, file).items():
            shown = {name: runs for name, runs in masks.items() if any(runs[1][1::2])}
            if not shown:
                continue
            if key not in images:
                raise UserError(
                    f"{file} names {key}, but {source} has no {key.replace('_', '/', 2)}.jpg", "image-missing"
                )
            yield Item(key, partial(_load, source, key, images[key], shown), key.partition("_")[0], records=len(shown))


Runs = tuple[tuple[int, int], list[int]]
"""(height, width) and run lengths."""


def _parse(source: SourceFiles, file: str) -> dict[str, dict[str, Runs]]:
    """Run lengths by image and finding."""
    try:
        images: Mapping[str, Mapping[str, Any]] = json.loads(source.read(file))
        return {
            key: {
                RENAMED.get(name, name): (
                    (int(mask["size"][0]), int(mask["size"][1])),
                    rle.counts(mask["counts"]) if isinstance(mask["counts"], str) else list(mask["counts"]),
                )
                for name, mask in masks.items()
            }
            for key, masks in images.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} must hold run lengths by image and finding: {error}", "wrong-json") from error


def _load(source: SourceFiles, key: str, image: str, shown: Mapping[str, Runs]) -> Content:
    return binary_masks(source, image, _masks(key, shown))


def _masks(key: str, shown: Mapping[str, Runs]) -> Iterator[BinaryMask]:
    for name, (size, runs) in shown.items():
        try:
            pixels = rle.decode(runs, size)
        except ValueError as error:
            raise UserError(f"the mask of {name} for {key} is broken: {error}", "undecodable") from error
        id = f"{key}_{name.lower().replace(' ', '_')}"
        yield BinaryMask(f"of {name} for {key}", pixels, id, name, {LEVEL: (f"{name} in a chest Xray.",)})


CHEXLOCALIZE = PublicSet(
    name="chexlocalize",
    doc=__doc__,
    homepage="https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c",
    licence="Stanford AIMI research use agreement, no redistribution",
    sizes=Sizes(1279, 446, 452),
    annotated="chexlocalize",
    items=items,
)
