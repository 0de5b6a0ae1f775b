"""Findings of an audit: errors and warnings of a prepared set.

An error makes scores wrong: an unusable file, or a test image that is in train too. A warning may be intended.

  error    unreadable          an image or label map can't be decoded
  error    another size        a label map isn't as large as its image
  error    unexpected values   a label map has values that no record of the set asks for
  error    mask not turned     masks fit a photo as it is stored better than as its EXIF orientation turns it
  error    copies across       the same file in two splits
  error    group across        images of one patient or video sequence in two splits
  error    frames across       neighbouring video frames in two splits, by their numbers and appearance (without groups)
  error    tells the answer    a prompt such as "no tumor" for an empty mask
  warning  near copies across  images in two splits that look the same
  warning  copies              the same file twice in a split
  warning  near copies         images of a split that look the same
  warning  repeated record     the same mask of an image with the same prompt twice
  warning  empty mask          nothing of what a record asks for is in the image
  warning  full mask           the whole image is what a record asks for
  warning  marks background    masks mark the image and its border around what looks like the object
  warning  mixed values        the mask files of a class differ in their values, such as 0 and 1 beside 0 and 255
  warning  vanishes            nothing of an object is left when it is resized to the model's 352x352 pixels
  warning  denies the mask     a prompt such as "no polyp" for a mask that isn't empty
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from tunevlseg_jax.data.audit import coverage, duplicates, orientation
from tunevlseg_jax.data.audit.duplicates import Pair
from tunevlseg_jax.data.audit.image_stats import ImageStats
from tunevlseg_jax.data.audit.map_stats import RecordStats
from tunevlseg_jax.data.examples import LEVEL, VOID

KINDS = {
    "unreadable": "error",
    "another size": "error",
    "unexpected values": "error",
    "mask not turned": "error",
    "copies across": "error",
    "group across": "error",
    "frames across": "error",
    "tells the answer": "error",
    "near copies across": "warning",
    "copies": "warning",
    "near copies": "warning",
    "repeated record": "warning",
    "empty mask": "warning",
    "full mask": "warning",
    "marks background": "warning",
    "mixed values": "warning",
    "vanishes": "warning",
    "denies the mask": "warning",
}
NEGATION = re.compile(r"\b(no|not|none|without|absent|absence|free of|negative for)\b", re.IGNORECASE)


class Finding(NamedTuple):
    """One finding: its kind (a key of KINDS), the image it is about, and details."""

    kind: str
    where: str
    details: str


def findings(stats: Sequence[ImageStats], mixed: Mapping[str, str] = MappingProxyType({})) -> list[Finding]:
    """All findings of a set, sorted by kind; `mixed` is as in `seen_encodings.read`."""
    results = [Finding(kind, str(image), details) for image in stats for kind, details in image.faults]
    results += [
        Finding("unexpected values", str(image), ", ".join(map(str, sorted(values))))
        for image, values in zip(stats, unexpected(stats), strict=True)
        if values
    ]
    results += [
        Finding("mask not turned", str(image), "its masks fit the photo as it is stored, without its EXIF orientation")
        for image in not_turned(stats)
    ]
    results += _pairs("copies", duplicates.same_content(stats), stats)
    results += _pairs("near copies", duplicates.near_copies(stats), stats)
    results += [Finding("group across", *pair) for pair in _across(duplicates.same_group(stats), stats)]
    results += [Finding("frames across", *pair) for pair in _across(duplicates.neighbours(stats), stats)]
    results += [finding for image in stats for finding in _records(image)]
    results += _background(stats)
    results += [Finding("mixed values", label, values) for label, values in mixed.items()]
    return sorted(results, key=lambda finding: list(KINDS).index(finding.kind))


def unexpected(stats: Sequence[ImageStats]) -> list[frozenset[int]]:
    """The values of each image's label maps that no record of the set uses."""
    known = {0, VOID} | {record.record.value for image in stats for record in image.records}
    return [image.values - known for image in stats]


def not_turned(stats: Sequence[ImageStats]) -> list[ImageStats]:
    """The images whose masks fit the photo as it is stored, not as its EXIF orientation turns it."""
    return [stats[number] for number in orientation.unturned([image.vote for image in stats])]


def reveals_answer(stats: RecordStats) -> bool:
    """Whether a record's mask is empty and its prompt says so."""
    return not stats.pixels and _denies(stats)


def repeats(image: ImageStats) -> Iterator[int]:
    """The positions of an image's records that have the mask and prompt of an earlier one."""
    earlier = set()
    for number, stats in enumerate(image.records):
        record = stats.record
        content = (record.mask, record.value, record.prompts.get(LEVEL))
        if content in earlier:
            yield number
        earlier.add(content)


def _pairs(kind: str, pairs: Sequence[Pair], stats: Sequence[ImageStats]) -> Iterator[Finding]:
    for first, second in pairs:
        across = stats[first].split != stats[second].split
        yield Finding(f"{kind} across" if across else kind, str(stats[second]), f"as {stats[first]}")


def _across(pairs: Sequence[Pair], stats: Sequence[ImageStats]) -> Iterator[tuple[str, str]]:
    for first, second in pairs:
        image, other = stats[first], stats[second]
        if image.split != other.split:
            yield str(other), f"with {image}" + (f", {image.group}" if image.group else "")


def _records(image: ImageStats) -> Iterator[Finding]:
    for number in repeats(image):
        yield Finding("repeated record", str(image), image.records[number].record.id)
    for stats in image.records:
        details = f"{stats.record.id}: {' | '.join(stats.record.prompts.get(LEVEL, ()))!r}"
        if reveals_answer(stats):
            yield Finding("tells the answer", str(image), details)
        elif _denies(stats):
            yield Finding("denies the mask", str(image), details)
        elif not stats.pixels:
            yield Finding("empty mask", str(image), details)
        elif stats.pixels == stats.map_pixels:
            yield Finding("full mask", str(image), details)
        if stats.vanishes:
            yield Finding("vanishes", str(image), f"{stats.record.id}: {stats.pixels} pixels of {stats.map_pixels}")


def _background(stats: Sequence[ImageStats]) -> Iterator[Finding]:
    """The classes whose masks are likely inverted, and such masks of other classes."""
    shapes = coverage.by_class(record for image in stats for record in image.records)
    whole = dict(coverage.inverted(shapes))
    yield from (Finding("marks background", label, details) for label, details in whole.items())
    for image in stats:
        for record in image.records:
            if record.like_background and record.record.label not in whole:
                details = f"{record.record.id}: {record.coverage:.1%} of the image and its border"
                yield Finding("marks background", str(image), details)


def _denies(stats: RecordStats) -> bool:
    return any(NEGATION.search(text) for text in stats.record.prompts.get(LEVEL, ()))
