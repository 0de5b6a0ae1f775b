"""The clean protocol: the same images in splits without leaks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.data.audit import duplicates
from tunevlseg_jax.data.audit.findings import repeats, reveals_answer, unexpected
from tunevlseg_jax.data.audit.image_stats import ImageStats
from tunevlseg_jax.data.prepared import CLEAN_FILE, SPLITS
from tunevlseg_jax.runtime.files import write_json

Splits = dict[str, list[dict[str, Any]]]


def splits(stats: Sequence[ImageStats]) -> Splits:
    """The splits of clean.json, whose format `data/prepared.py` describes.

    Images that are copies, look the same, or belong to one patient or video form a component, which goes into one
    split. Components within one split stay there. The others, the largest first, go to the split among their own that
    has the largest share of its prepared size left and room for them. Of equal files the one in test stays, or else
    the one in val. Broken images, repeated records and records whose prompt reveals the answer are left out.
    """
    kept = _kept(stats)
    usable = [look for look in stats if kept[look.place]]
    pairs = [
        *duplicates.same_content(usable),
        *duplicates.near_copies(usable),
        *duplicates.same_group(usable),
        *duplicates.neighbours(usable),
    ]
    goals = Counter[str]()
    for look in stats:
        goals[look.split] += len(look.asked)
    sizes = Counter[str]()
    chosen: dict[tuple[str, int], str] = {}
    parts = [[usable[number] for number in part] for part in duplicates.components(len(usable), pairs)]
    for part in sorted(parts, key=lambda part: (len({look.split for look in part}) > 1, -len(part))):
        weight = sum(len(kept[look.place]) for look in part)
        to = _emptiest({look.split for look in part}, weight, sizes, goals)
        sizes[to] += weight
        chosen |= {look.place: to for look in part}
    assigned: Splits = {split: [] for split in goals}
    for look in usable:
        row = {"split": look.split, "index": look.index, "id": look.id, "records": kept[look.place]}
        assigned[chosen[look.place]].append(row)
    return assigned


def write(folder: Path, splits: Splits) -> None:
    """Writes clean.json beside a set's splits."""
    write_json(folder / CLEAN_FILE, splits)


def stats_of(splits: Splits, stats: Sequence[ImageStats]) -> list[ImageStats]:
    """The image statistics of the splits of clean.json, taken from those of the set as prepared."""
    by_place = {look.place: look for look in stats}
    moved = []
    for split, rows in splits.items():
        for row in rows:
            look = by_place[row["split"], row["index"]]
            asked = tuple(asked for asked in look.asked if asked.record.id in row["records"])
            moved.append(dataclasses.replace(look, split=split, asked=asked))
    return moved


def _kept(stats: Sequence[ImageStats]) -> dict[tuple[str, int], list[str]]:
    """The ids of the records that stay, by split and index of the image."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    broken = {look.place for look, odd in zip(stats, unexpected(stats), strict=True) if odd or look.faults}
    for look in sorted(stats, key=lambda look: -SPLITS.index(look.split)):
        again = set(repeats(look))
        stay = []
        for place, asked in enumerate(look.asked):
            said = (look.content, asked.record.label, asked.pixels)
            if look.place not in broken and place not in again and not reveals_answer(asked) and said not in seen:
                stay.append(asked.record.id)
                seen.add(said)
        kept[look.place] = stay
    return kept


def _emptiest(allowed: set[str], weight: int, sizes: Mapping[str, int], goals: Mapping[str, int]) -> str:
    """Among splits with room, the one with the largest missing share of its goal; else the one missing most records."""
    room = [split for split in allowed if goals[split] - sizes[split] >= weight]
    if room:
        return max(sorted(room), key=lambda split: (goals[split] - sizes[split]) / goals[split])
    return max(sorted(allowed), key=lambda split: goals[split] - sizes[split])
