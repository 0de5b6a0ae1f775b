"""The clean protocol: the same images in splits without leaks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunevlseg_jax.data.audit import duplicates
from tunevlseg_jax.data.audit.findings import repeats, reveals_answer, unexpected
from tunevlseg_jax.data.audit.image_stats import ImageStats
from tunevlseg_jax.data.prepared import SPLITS

Splits = dict[str, list[dict[str, Any]]]


def splits(stats: Sequence[ImageStats]) -> Splits:
    """The splits of clean.json, whose format `data/prepared.py` describes.

    Images that are copies, look the same, or belong to one patient or video form a component, which goes into one
    split. Components within one split stay there. The others, the largest first, go to the split among their own that
    has the largest share of its prepared size left and room for them. Of equal files the one in test stays, or else
    the one in val. Broken images, repeated records and records whose prompt reveals the answer are left out.
    """
    kept = _kept(stats)
    usable = [image for image in stats if kept[image.place]]
    pairs = [
        *duplicates.same_content(usable),
        *duplicates.near_copies(usable),
        *duplicates.same_group(usable),
        *duplicates.neighbours(usable),
    ]
    goals = Counter[str]()
    for image in stats:
        goals[image.split] += len(image.asked)
    sizes = Counter[str]()
    chosen: dict[tuple[str, int], str] = {}
    parts = [[usable[number] for number in part] for part in duplicates.components(len(usable), pairs)]
    for part in sorted(parts, key=lambda part: (len({image.split for image in part}) > 1, -len(part))):
        weight = sum(len(kept[image.place]) for image in part)
        to = _emptiest({image.split for image in part}, weight, sizes, goals)
        sizes[to] += weight
        chosen |= {image.place: to for image in part}
    assigned: Splits = {split: [] for split in goals}
    for image in usable:
        row = {"split": image.split, "index": image.index, "id": image.id, "records": kept[image.place]}
        assigned[chosen[image.place]].append(row)
    return assigned


def stats_of(splits: Splits, stats: Sequence[ImageStats]) -> list[ImageStats]:
    """The image statistics of the splits of clean.json, taken from those of the set as prepared."""
    by_place = {image.place: image for image in stats}
    moved = []
    for split, rows in splits.items():
        for row in rows:
            image = by_place[row["split"], row["index"]]
            asked = tuple(asked for asked in image.asked if asked.record.id in row["records"])
            moved.append(dataclasses.replace(image, split=split, asked=asked))
    return moved


def _kept(stats: Sequence[ImageStats]) -> dict[tuple[str, int], list[str]]:
    """The ids of the records that stay, by split and index of the image."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    broken = {image.place for image, odd in zip(stats, unexpected(stats), strict=True) if odd or image.faults}
    for image in sorted(stats, key=lambda image: -SPLITS.index(image.split)):
        again = set(repeats(image))
        stay = []
        for place, asked in enumerate(image.asked):
            said = (image.content, asked.record.label, asked.pixels)
            if image.place not in broken and place not in again and not reveals_answer(asked) and said not in seen:
                stay.append(asked.record.id)
                seen.add(said)
        kept[image.place] = stay
    return kept


def _emptiest(allowed: set[str], weight: int, sizes: Mapping[str, int], goals: Mapping[str, int]) -> str:
    """Among splits with room, the one with the largest missing share of its goal; else the one missing most records."""
    room = [split for split in allowed if goals[split] - sizes[split] >= weight]
    if room:
        return max(sorted(room), key=lambda split: (goals[split] - sizes[split]) / goals[split])
    return max(sorted(allowed), key=lambda split: goals[split] - sizes[split])
