"""What is wrong with a set, and how bad it is.

An error makes scores wrong: a file that can't be used, or a test image that training has seen. A warning may be meant.

  error    unreadable          an image or label map can't be decoded
  error    another size        a label map isn't as large as its image
  error    unexpected values   a label map has values that no record of the set asks for
  error    copies across       the same file in two splits
  error    group across        images of one patient or video sequence in two splits
  error    frames across       neighbouring video frames in two splits, by their numbers and looks (without groups)
  error    tells the answer    a prompt such as "no tumor" for an empty mask
  warning  near copies across  images in two splits that look the same
  warning  copies              the same file twice in a split
  warning  near copies         images of a split that look the same
  warning  repeated record     the same mask of an image with the same prompt twice
  warning  empty mask          nothing of what a record asks for is in the image
  warning  full mask           the whole image is what a record asks for
  warning  denies the mask     a prompt such as "no polyp" for a mask that isn't empty
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tunevlseg_jax.data.audit import duplicates
from tunevlseg_jax.data.audit.duplicates import Pair
from tunevlseg_jax.data.audit.image_stats import Asked, ImageStats
from tunevlseg_jax.data.prepared import LEVEL, VOID

KINDS = {
    "unreadable": "error",
    "another size": "error",
    "unexpected values": "error",
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
    "denies the mask": "warning",
}
NEGATION = re.compile(r"\b(no|not|none|without|absent|absence|free of|negative for)\b", re.IGNORECASE)


class Finding(NamedTuple):
    """One fault: its kind, a row of this file's table; what it is about; more about it."""

    kind: str
    where: str
    details: str


def findings(looks: Sequence[ImageStats]) -> list[Finding]:
    """All faults of a set, kind by kind."""
    found = [Finding(kind, str(look), details) for look in looks for kind, details in look.faults]
    found += [
        Finding("unexpected values", str(look), ", ".join(map(str, sorted(odd))))
        for look, odd in zip(looks, unexpected(looks), strict=True)
        if odd
    ]
    found += _pairs("copies", duplicates.same_content(looks), looks)
    found += _pairs("near copies", duplicates.near_copies(looks), looks)
    found += [Finding("group across", *pair) for pair in _across(duplicates.same_group(looks), looks)]
    found += [Finding("frames across", *pair) for pair in _across(duplicates.neighbours(looks), looks)]
    found += [finding for look in looks for finding in _records(look)]
    return sorted(found, key=lambda finding: list(KINDS).index(finding.kind))


def unexpected(looks: Sequence[ImageStats]) -> list[frozenset[int]]:
    """The values of each image's label maps that no record of the set asks for."""
    known = {0, VOID} | {asked.record.value for look in looks for asked in look.asked}
    return [look.values - known for look in looks]


def tells_the_answer(asked: Asked) -> bool:
    """Whether a record's prompt says that there is nothing to find, and there isn't."""
    return not asked.pixels and _denies(asked)


def repeats(look: ImageStats) -> Iterator[int]:
    """The places of the records of an image that say what an earlier one says."""
    seen = set()
    for place, asked in enumerate(look.asked):
        record = asked.record
        said = (record.mask, record.value, record.prompts.get(LEVEL))
        if said in seen:
            yield place
        seen.add(said)


def _pairs(kind: str, pairs: Sequence[Pair], looks: Sequence[ImageStats]) -> Iterator[Finding]:
    for first, second in pairs:
        across = looks[first].split != looks[second].split
        yield Finding(f"{kind} across" if across else kind, str(looks[second]), f"as {looks[first]}")


def _across(pairs: Sequence[Pair], looks: Sequence[ImageStats]) -> Iterator[tuple[str, str]]:
    for first, second in pairs:
        one, other = looks[first], looks[second]
        if one.split != other.split:
            yield str(other), f"with {one}" + (f", {one.group}" if one.group else "")


def _records(look: ImageStats) -> Iterator[Finding]:
    for place in repeats(look):
        yield Finding("repeated record", str(look), look.asked[place].record.id)
    for asked in look.asked:
        said = f"{asked.record.id}: {' | '.join(asked.record.prompts.get(LEVEL, ()))!r}"
        if tells_the_answer(asked):
            yield Finding("tells the answer", str(look), said)
        elif _denies(asked):
            yield Finding("denies the mask", str(look), said)
        elif not asked.pixels:
            yield Finding("empty mask", str(look), said)
        elif asked.pixels == asked.of:
            yield Finding("full mask", str(look), said)


def _denies(asked: Asked) -> bool:
    return any(NEGATION.search(text) for text in asked.record.prompts.get(LEVEL, ()))
