"""The clean protocol: the same images in splits without leaks."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunevlseg_jax.data.audit import duplicates
from tunevlseg_jax.data.audit.findings import not_turned, repeats, reveals_answer, unexpected
from tunevlseg_jax.data.audit.image_stats import ImageStats
from tunevlseg_jax.data.examples import SPLITS
from tunevlseg_jax.runtime.errors import UserError

Splits = dict[str, list[dict[str, Any]]]


def splits(stats: Sequence[ImageStats]) -> Splits:
    """The splits of clean.json, whose format `data/prepared.py` describes.

    Images that are copies, look the same, or belong to one patient or video form a component, which goes into one
    split. Components within one split stay there. The rest, the largest first, go to the split, among those of their
    images, that has room for them and the largest share of its prepared size left. Of equal files, the file in test
    stays, or else the file in val. Broken images, repeated records and records whose prompt reveals the answer are left
    out.

    Raises:
      UserError: no image is left.
    """
    kept = _kept(stats)
    usable = [image for image in stats if kept[image.key]]
    if not usable:
        raise UserError(
            f"the clean protocol leaves out all {len(stats)} images of the set, as unreadable, without records or "
            "telling the answer; --protocol paper lists the findings",
            "no-images",
        )
    pairs = [
        *duplicates.same_content(usable),
        *duplicates.near_copies(usable),
        *duplicates.same_group(usable),
        *duplicates.neighbours(usable),
    ]
    goals = Counter[str]()
    for image in stats:
        goals[image.split] += len(image.records)
    sizes = Counter[str]()
    chosen: dict[tuple[str, int], str] = {}
    parts = [[usable[number] for number in part] for part in duplicates.components(len(usable), pairs)]
    for part in sorted(parts, key=lambda part: (len({image.split for image in part}) > 1, -len(part))):
        weight = sum(len(kept[image.key]) for image in part)
        to = _emptiest({image.split for image in part}, weight, sizes, goals)
        sizes[to] += weight
        chosen |= {image.key: to for image in part}
    assigned: Splits = {split: [] for split in goals}
    for image in usable:
        row = {"split": image.split, "index": image.index, "id": image.id, "records": kept[image.key]}
        assigned[chosen[image.key]].append(row)
    return assigned


def stats_of(splits: Splits, stats: Sequence[ImageStats]) -> list[ImageStats]:
    """The image statistics of the splits of clean.json, taken from those of the set as prepared."""
    by_key = {image.key: image for image in stats}
    moved = []
    for split, rows in splits.items():
        for row in rows:
            image = by_key[row["split"], row["index"]]
            records = tuple(stats for stats in image.records if stats.record.id in row["records"])
            moved.append(dataclasses.replace(image, split=split, records=records))
    return moved


def _kept(stats: Sequence[ImageStats]) -> dict[tuple[str, int], list[str]]:
    """The ids of the records that stay, by split and index of the image."""
    used: set[tuple[Any, ...]] = set()
    kept = {}
    broken = {image.key for image, values in zip(stats, unexpected(stats), strict=True) if values or image.faults}
    broken |= {image.key for image in not_turned(stats)}
    for image in sorted(stats, key=lambda image: -SPLITS.index(image.split)):
        repeated = set(repeats(image))
        kept[image.key] = []
        for number, record_stats in enumerate(image.records):
            record = record_stats.record
            content = (image.content, record.label, record_stats.pixels)
            usable = image.key not in broken and number not in repeated and not reveals_answer(record_stats)
            if usable and content not in used:
                kept[image.key].append(record.id)
                used.add(content)
    return kept


def _emptiest(allowed: set[str], weight: int, sizes: Mapping[str, int], goals: Mapping[str, int]) -> str:
    """Among splits with room, the one with the largest missing share of its goal; else the one missing most records."""
    room = [split for split in allowed if goals[split] - sizes[split] >= weight]
    if room:
        return max(sorted(room), key=lambda split: (goals[split] - sizes[split]) / goals[split])
    return max(sorted(allowed), key=lambda split: goals[split] - sizes[split])
