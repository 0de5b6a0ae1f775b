"""Splits of data sets and a frozen model's features of their images, each computed once for all learners."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding import augmented_views, batching
from tunevlseg_jax.data.feeding.batch import Source, WithFeatures, gather
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.feeding.scratch import allocate, free, num_bytes, store
from tunevlseg_jax.data.settings import Data

Encoded = Literal["no", "alone", "beside"]
"""Whether features take the place of the images or go beside them."""
SHARE = 0.5
"""Largest share of the free space on the cache folder's disk that an epoch may take."""


class FeatureCache:
    """Splits, augmented views, and features from one frozen model, shared by the learners on it.

    A split or view is loaded at its first use, and its features are computed at the first use of its batches.

    Attributes:
      encode_images: from (batch, height, width, 3) uint8 to features, a tree of arrays with a row for each image,
        whose `len` is the number of images.
      image_size: (height, width) of the images.
      mesh: the devices.
      room: bytes of features of augmented epochs that may be stored.
      epochs: the stored features, by data set, batch size, seed and epoch.
    """

    def __init__(
        self, encode_images: Callable[[Array], Any], image_size: tuple[int, int], mesh: Mesh, room: float = 0.0
    ):
        self.encode_images, self.image_size, self.mesh, self.room = encode_images, image_size, mesh, room
        self.epochs: dict[tuple[Data, int, int, int], Any] = {}
        self._feeds: dict[tuple[Any, ...], Feed] = {}

    def feed(
        self, data: Data, split: str, *, view: int = 0, seed: int = 0, encoded: Encoded = "no", complete: bool = False
    ) -> Feed:
        """A split's images, or their features.

        Args:
          data: the data set.
          split: its name.
          view: number of an augmented view, from 1; 0 for the images as they are.
          seed: of the augmented view.
          encoded: "alone" puts features in the place of the images, not for a learner that changes the vision tower;
            "beside" gives `WithFeatures`.
          complete: see `registry.load`.

        Raises:
          UserError: there is no such data set or split, it is empty, or the cache folder's disk is full.
        """
        key = data, split, view, seed, encoded, complete
        if key not in self._feeds:
            if encoded != "no":
                images = self.feed(data, split, view=view, seed=seed, complete=complete)
                encode = self.encode_images if encoded == "alone" else self._beside
                self._feeds[key] = dataclasses.replace(images, encode_images=encode)
            elif view:
                images = self.feed(data, split, complete=complete)
                self._feeds[key] = dataclasses.replace(images, records=augmented_views.view(images.records, view, seed))
            else:
                records = registry.load(data, split, self.image_size, complete=complete)
                self._feeds[key] = Feed(records, self.mesh, data.placement, data.workers)
        return self._feeds[key]

    def augmented_epoch(self, data: Data, batch_size: int, seed: int, epoch: int) -> Iterator[Source]:
        """The augmented training batches of an epoch, with features in place of images; see `Feed.training`.

        Only whole epochs of one data set are stored, in unnamed files, in the order of use until the room is full.
        """
        feed, key = self.feed(data, "train"), (data, batch_size, seed, epoch)
        if key in self.epochs:
            yield from feed.training(batch_size, seed, epoch, augment=True, features=self.epochs[key])
            return
        self.epochs = {stored: features for stored, features in self.epochs.items() if stored[0] == data}
        steps, storing = batching.num_batches(feed.records, batch_size), None
        for number, source in enumerate(feed.training(batch_size, seed, epoch, augment=True)):
            features = self.encode_images(_images(source))
            yield source._replace(images=features, rows=source.rows._replace(image=None))
            # Stored after the step has been dispatched, so that the step doesn't wait for it.
            if number == 0 and self._fits(steps * num_bytes(features)):
                storing = allocate(steps * len(features), features)
            if storing is not None:
                store(features, storing, number * len(features))
        if storing is not None:
            self.epochs[key] = storing

    def evict_all_but(self, split: str) -> None:
        """Drops the other splits and all epochs, to free memory and disk space."""
        self._feeds = {key: feed for key, feed in self._feeds.items() if key[1] == split}
        self.epochs.clear()

    def _beside(self, images: Array) -> WithFeatures:
        return WithFeatures(images, self.encode_images(images))

    def _fits(self, size: int) -> bool:
        return num_bytes(list(self.epochs.values())) + size <= self.room and size <= SHARE * free()


_images = jax.jit(lambda source: gather(source).images)
