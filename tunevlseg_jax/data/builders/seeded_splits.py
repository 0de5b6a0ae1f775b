"""Seeded splits: groups stay together, and every stratum is split in the same proportions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Part(NamedTuple):
    """An item to assign to a split.

    Attributes:
      group: items of one group go into one split; "" for an item without a group.
      stratum: every stratum is split in the same proportions.
      splits: the splits that the item may go into.
      weight: weight of the item, such as its number of records.
    """

    group: str
    stratum: Hashable
    splits: tuple[str, ...]
    weight: int = 1


def seeded(parts: Sequence[Part], shares: Mapping[str, float], seed: int) -> list[str]:
    """The split of each part; parts of weight 1 without groups meet the shares to the nearest whole number.

    Args:
      parts: the items; the result depends on their order.
      shares: share of each split; only the proportions matter.
      seed: seed of the random order.
    """
    strata: dict[tuple[Hashable, tuple[str, ...]], dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, part in enumerate(parts):
        strata[part.stratum, part.splits][part.group or number].append(number)
    chosen = [""] * len(parts)
    for place, ((_, splits), groups) in enumerate(strata.items()):
        order = np.random.default_rng([seed, place]).permutation(len(groups))
        shuffled = [list(groups.values())[number] for number in order]
        weights = [sum(parts[number].weight for number in group) for group in shuffled]
        wanted = {name: shares[name] for name in splits if shares[name] > 0} or {splits[0]: 1.0}
        for group, split in zip(shuffled, _assign(weights, wanted), strict=True):
            for number in group:
                chosen[number] = split
    return chosen


def _assign(weights: Sequence[int], shares: Mapping[str, float]) -> list[str]:
    """The split of each group. The last splits are filled up to their shares first; the first one takes the rest.

    Every split gets at least one group if there are enough groups.
    """
    total, scale = sum(weights), sum(shares.values())
    first, *others = shares
    assigned: list[str] = []
    for waiting, split in zip(range(len(others), 0, -1), reversed(others), strict=True):
        goal, have = round(total * shares[split] / scale), 0
        while len(weights) - len(assigned) > waiting:
            weight = weights[len(assigned)]
            if have and have + weight - goal > goal - have:  # further from the goal than without it
                break
            have += weight
            assigned.append(split)
    return assigned + [first] * (len(weights) - len(assigned))
