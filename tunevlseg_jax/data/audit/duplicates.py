"""Pairs of images that show the same: equal files, re-encoded copies, neighbouring frames of a video."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tunevlseg_jax.data.audit import likeness
from tunevlseg_jax.data.audit.image_stats import ImageStats

FLIPPED = 12
"""Bits of 256 in which the hashes of copies may differ."""
FLIPPED_BY_LIGHT = 20
"""Bits in which the hashes of one frame in two lights may differ, such as two modes of an endoscope: 5 to 18."""
GREY_LEVELS = 10.0
"""How much the thumbnails of copies may differ, root mean square."""
OF_RANDOM = 0.7
"""Consecutive frames differ by less than this share of what two images of the set usually differ by."""
ROWS = 256


class Pair(NamedTuple):
    """Two indices in a list of image statistics."""

    first: int
    second: int


def same_content(stats: Sequence[ImageStats]) -> list[Pair]:
    """Images whose files are equal; of more than two, each with the first."""
    first: dict[str, int] = {}
    return [
        Pair(first[image.content], number)
        for number, image in enumerate(stats)
        if first.setdefault(image.content, number) != number
    ]


def same_group(stats: Sequence[ImageStats]) -> list[Pair]:
    """Images of one patient or video, each with the first of every split."""
    pairs = []
    first: dict[str, dict[str, int]] = defaultdict(dict)
    for number, image in enumerate(stats):
        if image.group:
            pairs += [Pair(other, number) for other in first[image.group].values()]
            first[image.group].setdefault(image.split, number)
    return pairs


def near_copies(stats: Sequence[ImageStats]) -> list[Pair]:
    """Images that look the same, or the same in another light, though their files differ.

    Of many, each with the first of every split, and with another where only that pair connects them: the `components`
    are those of all pairs, and thousands of frames of one scene are thousands of pairs rather than millions.
    """
    from scipy.cluster.hierarchy import DisjointSet  # loads late: a help text needs no SciPy

    if not stats:
        return []
    groups = DisjointSet(range(len(stats)))
    known: set[tuple[str, int]] = set()
    least_details = likeness.common_details(stats)
    bits = np.stack([image.bits for image in stats])
    pairs = []
    for start in range(0, len(stats), ROWS):
        flipped = np.bitwise_count(bits[start : start + ROWS, None] ^ bits[None, start:]).sum(-1, dtype=np.int32)
        for row, column in zip(*np.nonzero(flipped <= FLIPPED_BY_LIGHT), strict=True):
            first, second = start + int(row), start + int(column)
            image, other = stats[first], stats[second]
            if first >= second or image.content == other.content:
                continue
            if (image.split, second) in known and groups.connected(first, second):
                continue
            copy = flipped[row, column] <= FLIPPED and likeness.difference(image, other) < GREY_LEVELS
            if copy or likeness.same_shapes(image, other, least_details):
                pairs.append(Pair(first, second))
                known.add((image.split, second))
                groups.merge(first, second)
    return pairs


def neighbours(stats: Sequence[ImageStats]) -> list[Pair]:
    """Consecutive frames of videos, by the numbers at the end of the images' names, where no groups are known.

    Numbers alone don't make a video. Only if at least half of the pairs of images with consecutive numbers differ
    clearly less than two images of the set usually do, those pairs are neighbours.
    """
    numbered: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, image in enumerate(stats):
        if (
            not image.group
            and image.thumbnail is not None
            and (match := re.fullmatch(r"(.*?)(\d+)(?:\.\w+)?", image.id))
        ):
            numbered[match[1], int(match[2])].append(number)
    following = [
        Pair(first, second)
        for (prefix, number), indices in numbered.items()
        for first in indices
        for second in numbered.get((prefix, number + 1), ())
    ]
    if len(following) < 4:
        return []
    usual = likeness.usual_difference([stats[number] for numbers in numbered.values() for number in numbers])
    close = [
        pair for pair in following if likeness.difference(stats[pair.first], stats[pair.second]) < OF_RANDOM * usual
    ]
    return close if 2 * len(close) >= len(following) else []


def components(count: int, pairs: Sequence[Pair]) -> list[np.ndarray]:
    """The connected components of `count` nodes, in the order of their first members."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.asarray(pairs, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), (count, count))
    _, labels = connected_components(graph, directed=False)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
