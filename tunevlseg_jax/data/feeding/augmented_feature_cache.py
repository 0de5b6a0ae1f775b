"""What a frozen model sees in training images that are augmented anew in each step, the same for all trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array

from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.data.feeding.batch import Source, gather
from tunevlseg_jax.data.feeding.feature_cache import keep, room_for
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.feeding.scratch import free

SHARE = 0.5
"""Of what is free on the cache folder's disk, the most that is used."""


class AugmentedFeatureCache:
    """A training split through the eyes of a frozen model, which looks at each batch once, and at none that is kept.

    Whole epochs are kept, in files without a name, the first ones that come as long as there is room.
    """

    def __init__(self, feed: Feed, see: Callable[[Array], Any], room: float):
        """Nothing is looked at yet.

        Args:
          feed: of the split, with its images as they are.
          see: from (batch, height, width, 3) to a tree of arrays with a row for each image, which is its length.
          room: bytes that may be kept.
        """
        self.feed, self.see, self.room = feed, see, room
        self.kept: dict[tuple[int, int, int], Any] = {}

    def training(self, batch_size: int, seed: int, epoch: int) -> Iterator[Source]:
        """The batches of `Feed.training`, augmented, with what is seen in them in the place of their images."""
        key = batch_size, seed, epoch
        if key in self.kept:
            yield from self.feed.training(*key, augment=True, seen=self.kept[key])
            return
        steps = batching.num_batches(self.feed.records, batch_size)
        keeping = None
        for number, source in enumerate(self.feed.training(*key, augment=True)):
            seen = self.see(_images(source))
            yield source._replace(images=seen, rows=source.rows._replace(image=None))
            # Kept after the step has been sent off, which doesn't wait for it.
            if number == 0 and steps * _bytes(seen) <= min(self.room, SHARE * free()):
                keeping = room_for(steps * len(seen), seen)
            if keeping is not None:
                keep(seen, keeping, number * len(seen))
        if keeping is not None:
            self.kept[key] = keeping
            self.room -= _bytes(keeping)


def _bytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


_images = jax.jit(lambda source: gather(source).images)
