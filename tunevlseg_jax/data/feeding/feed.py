"""How batches reach the devices: gathered on the host and sent, or by indices into a set that lives on the devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import grain
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.data.feeding.batch import Batch, Rows, Source, gather
from tunevlseg_jax.data.feeding.feature_cache import bytes_of_one, seen_once
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.settings import Placement
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError

RESIDENT_SHARE = 0.25
"""Of a device's free memory, what one split may take for "auto" to keep it there."""


@dataclass(frozen=True)
class Feed:
    """A split and the way its batches go; either way gives the same batches.

    Attributes:
      records: the split, at the model's size.
      mesh: the devices.
      placement: "resident" keeps images and label maps on every device; "streaming" sends each batch; "auto" is
        resident where a device has memory of its own and the split fits in RESIDENT_SHARE of what is free.
      see: what a frozen model makes of a batch of images, a tree of arrays with a row for each; it takes the place of
        the images, and is computed once. None for images as they are.
      workers: threads that gather batches ahead of the step, in streaming; 0 for none.
    """

    records: Records
    mesh: Mesh
    placement: Placement = "auto"
    workers: int = 1
    see: Callable[[Array], Any] | None = None

    @cached_property
    def resident(self) -> bool:
        """Whether the split is kept on the devices.

        Raises:
          UserError: it should be, and doesn't fit.
        """
        if self.placement == "streaming":
            return False
        free = sharding.free_memory(self.mesh)
        if free is None:  # the host's memory is the device's
            return self.placement == "resident"
        if self.placement == "auto":
            return self._bytes <= RESIDENT_SHARE * free
        if self._bytes > free:
            raise UserError(
                f"{self.records.name}, {self.records.split} takes {self._bytes / 2**30:.1f} GiB, and a device has "
                f"{free / 2**30:.1f} GiB free; choose --data.placement streaming"
            )
        return True

    @property
    def _bytes(self) -> int:
        """What the split takes on a device."""
        images = self.records.images
        if self.see is None:
            return images.nbytes + self.records.maps.nbytes
        return bytes_of_one(images, self.see) * len(images) + self.records.maps.nbytes

    def place(self) -> None:
        """Looks at the images, where that is done once, and puts a resident split on the devices, as a batch would."""
        _ = self._on_devices if self.resident else self._images

    def rows(self, batch_size: int) -> int:
        """How many rows a batch of `batch_size` records has, so that the devices share it evenly."""
        return sharding.round_up(batch_size, self.mesh, self.records.prompts_per_image)

    def training(
        self, batch_size: int, seed: int, epoch: int, *, augment: bool, skip: int = 0, seen: Any = None
    ) -> Iterator[Source]:
        """The batches of one epoch but for the first `skip`; see `loader.training`.

        What augmentation draws depends on `seed`, epoch and step alone: all trials of a sweep see one batch, so that
        what doesn't depend on the trial is computed once for all.

        Args:
          batch_size: records in a batch.
          seed: of order and augmentation.
          epoch: from 1.
          augment: whether images and masks are augmented.
          skip: batches to leave out at its start.
          seen: what was seen in the epoch's augmented images, a tree of arrays with a row for each image of each
            batch, in their order; it takes the place of the images.
        """
        batches = batching.training(self._placed, batch_size, self.rows(batch_size), seed, epoch)
        before = (epoch - 1) * len(batches)
        if seen is not None:
            batches = [_in_order(rows, number) for number, rows in enumerate(batches)]
        for number, source in enumerate(self._sources(batches[skip:], seen), start=skip):
            if augment:
                key = jax.random.fold_in(jax.random.key(seed), before + number)
                source = source._replace(draw=sharding.replicate(jax.random.key_data(key), self.mesh))
            yield source

    def evaluation(self, batch_size: int) -> Iterator[Batch]:
        """Every record once, in the split's order; the last rows of a batch may be padding."""
        # Gathered outside the evaluation step, so that one program of it serves splits of any number of images.
        for source in self._sources(batching.evaluation(self._placed, batch_size, self.rows(batch_size))):
            yield _gathered(source)

    def _sources(self, batches: Sequence[Rows], seen: Any = None) -> Iterator[Source]:
        if self.resident and seen is None:
            images, maps = self._on_devices
            return (Source(images, maps, sharding.shard_batch(rows, self.mesh)) for rows in batches)
        ahead = grain.ReadOptions(num_threads=self.workers, prefetch_buffer_size=2 * max(1, self.workers))
        numbers = grain.MapDataset.range(len(batches))
        if seen is None:
            seen = self._images  # here: looking at images is a matter of all processes, and not of a thread
        return iter(numbers.map(lambda number: self._sent(batches[number], seen)).to_iter_dataset(ahead))

    def _sent(self, rows: Rows, seen: Any) -> Source:
        """A batch whose images are its own, and its maps where they aren't on the devices."""
        images = jax.tree.map(lambda array: self._read(array, np.asarray(rows.image)), seen)
        if self.resident:
            return Source(images, self._on_devices[1], sharding.shard_batch(rows._replace(image=None), self.mesh))
        maps = self._read(self.records.maps, np.asarray(rows.map))
        return Source(images, maps, sharding.shard_batch(rows._replace(image=None, map=None), self.mesh))

    def _read(self, pixels: np.ndarray, places: np.ndarray) -> Array:
        """These rows of the split's pixels, of which each host reads its own devices' part."""
        shape = (len(places), *pixels.shape[1:])
        return sharding.make_sharded(shape, lambda part: pixels[places[part[0]]], self.mesh)

    @cached_property
    def _placed(self) -> Records:
        """The records as rows of what is placed: of a resident set only what some record looks at."""
        return self.records.compact() if self.resident else self.records

    @cached_property
    def _on_devices(self) -> tuple[Array, Array]:
        pixels = sharding.replicate((self._images, self._placed.maps), self.mesh)
        return cast(tuple[Array, Array], pixels)

    @cached_property
    def _images(self) -> Any:
        """What is placed of the images: themselves, or what is seen in them, in a file of its own."""
        images = self._placed.images
        return images if self.see is None else seen_once(images, self.see, self.mesh)


def _in_order(rows: Rows, number: int) -> Rows:
    """The rows of batch `number`, whose images lie one after the other, those of the batches before them first."""
    count = len(np.asarray(rows.image))
    return rows._replace(image=cast(Array, np.arange(number * count, (number + 1) * count, dtype=np.int32)))


_gathered = jax.jit(gather)
