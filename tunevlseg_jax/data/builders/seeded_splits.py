"""Seeded splits: groups stay together, strata are shared out in the same proportions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Part(NamedTuple):
    """What is known of a thing that is to be put in a split.

    Attributes:
      group: things of one group come into one split; "" for a thing on its own.
      stratum: things of one stratum are shared out among the splits in the same proportions.
      splits: those that the thing may come into.
      weight: how much it counts, such as its number of records.
    """

    group: str
    stratum: Hashable
    splits: tuple[str, ...]
    weight: int = 1


def seeded(parts: Sequence[Part], shares: Mapping[str, float], seed: int) -> list[str]:
    """The split of each part; of parts on their own with weight 1, the shares are met to the nearest whole number.

    Args:
      parts: in an order that doesn't change, since the split depends on it.
      shares: how much each split gets; only their proportions matter.
      seed: another one gives another split.
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
    """The split of each group. The last splits are filled first, up to their shares; the first one takes the rest.

    Every split gets a group, if there are as many.
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
