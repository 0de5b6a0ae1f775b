"""The clean protocol: the same images in splits that share nothing."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.data.audit import duplicates
from tunevlseg_jax.data.audit.findings import repeats, tells_the_answer, unexpected
from tunevlseg_jax.data.audit.image_stats import ImageStats
from tunevlseg_jax.data.prepared import CLEAN_FILE, SPLITS
from tunevlseg_jax.runtime.files import write_json

Splits = dict[str, list[dict[str, Any]]]


def splits(looks: Sequence[ImageStats]) -> Splits:
    """The splits of clean.json, as `data/prepared.py` tells.

    Images that are copies, look the same, or belong to one patient or video come into one split together. Those that
    hang together only within one split stay there. The others, the largest first, go to the one of their own splits
    that is emptiest against the set as it was prepared and has room for them. Of equal files the one in test stays, or
    else in val; broken images, repeated records and records whose prompt tells the answer are left out.
    """
    kept = _kept(looks)
    usable = [look for look in looks if kept[look.place]]
    pairs = [
        *duplicates.same_content(usable),
        *duplicates.near_copies(usable),
        *duplicates.same_group(usable),
        *duplicates.neighbours(usable),
    ]
    goals = Counter[str]()
    for look in looks:
        goals[look.split] += len(look.asked)
    sizes = Counter[str]()
    chosen: dict[tuple[str, int], str] = {}
    parts = [[usable[number] for number in part] for part in duplicates.components(len(usable), pairs)]
    for part in sorted(parts, key=lambda part: (len({look.split for look in part}) > 1, -len(part))):
        weight = sum(len(kept[look.place]) for look in part)
        to = _emptiest({look.split for look in part}, weight, sizes, goals)
        sizes[to] += weight
        chosen |= {look.place: to for look in part}
    made: Splits = {split: [] for split in goals}
    for look in usable:
        row = {"split": look.split, "index": look.index, "id": look.id, "records": kept[look.place]}
        made[chosen[look.place]].append(row)
    return made


def write(folder: Path, made: Splits) -> None:
    """Writes clean.json beside a set's splits."""
    write_json(folder / CLEAN_FILE, made)


def looks_of(made: Splits, looks: Sequence[ImageStats]) -> list[ImageStats]:
    """What the splits of clean.json look like, of the looks at the set as prepared."""
    by_place = {look.place: look for look in looks}
    found = []
    for split, rows in made.items():
        for row in rows:
            look = by_place[row["split"], row["index"]]
            asked = tuple(asked for asked in look.asked if asked.record.id in row["records"])
            found.append(dataclasses.replace(look, split=split, asked=asked))
    return found


def _kept(looks: Sequence[ImageStats]) -> dict[tuple[str, int], list[str]]:
    """The ids of the records that stay, by the place of the image."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    broken = {look.place for look, odd in zip(looks, unexpected(looks), strict=True) if odd or look.faults}
    for look in sorted(looks, key=lambda look: -SPLITS.index(look.split)):
        again = set(repeats(look))
        stay = []
        for place, asked in enumerate(look.asked):
            said = (look.content, asked.record.label, asked.pixels)
            if look.place not in broken and place not in again and not tells_the_answer(asked) and said not in seen:
                stay.append(asked.record.id)
                seen.add(said)
        kept[look.place] = stay
    return kept


def _emptiest(own: set[str], weight: int, sizes: Mapping[str, int], goals: Mapping[str, int]) -> str:
    """The split that lacks the largest part of its goal, of those with room; else the one that lacks most."""
    room = [split for split in own if goals[split] - sizes[split] >= weight]
    if room:
        return max(sorted(room), key=lambda split: (goals[split] - sizes[split]) / goals[split])
    return max(sorted(own), key=lambda split: goals[split] - sizes[split])
