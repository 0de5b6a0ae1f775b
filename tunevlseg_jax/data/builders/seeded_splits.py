"""Seeded splits: groups stay together, and every stratum is split in the same proportions."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np

from tunevlseg_jax.data.builders.items import Item, read
from tunevlseg_jax.data.examples import SPLITS, Example


def assign_splits(items: Sequence[Item], shares: Mapping[str, float], seed: int) -> dict[str, Iterator[Example]]:
    """The examples of each split that gets any, within the splits that each item allows; files are read in iteration.

    Items with one record and without groups meet the shares to the nearest whole number.

    Args:
      items: the images; the result depends on their order.
      shares: share of each split; only the proportions matter.
      seed: seed of the random order.
    """
    strata: dict[tuple[str, tuple[str, ...]], dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, item in enumerate(items):
        strata[item.stratum, item.splits][item.group or number].append(number)
    chosen = [""] * len(items)
    for place, ((_, splits), groups) in enumerate(strata.items()):
        order = np.random.default_rng([seed, place]).permutation(len(groups))
        shuffled = [list(groups.values())[number] for number in order]
        weights = [sum(items[number].records for number in group) for group in shuffled]
        wanted = {name: shares[name] for name in splits if shares[name] > 0} or {splits[0]: 1.0}
        for group, split in zip(shuffled, _assign(weights, wanted), strict=True):
            for number in group:
                chosen[number] = split
    return {
        split: read(split, [item for item, to in zip(items, chosen, strict=True) if to == split])
        for split in SPLITS
        if split in chosen
    }


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
