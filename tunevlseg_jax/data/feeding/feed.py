"""Batches on the devices: gathered on the host and sent, or gathered from a split that the devices hold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from tunevlseg_jax.data.feeding import batching
from tunevlseg_jax.data.feeding.batch import Batch, Rows, Source, gather
from tunevlseg_jax.data.feeding.scratch import map_batches, num_bytes
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.settings import Placement
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError

RESIDENT_SHARE = 0.25
"""Share of a device's free memory up to which "auto" stores a split there."""
ENCODED_TOGETHER = 16
"""Images in a batch when features are computed ahead of training."""


@dataclass(frozen=True)
class Feed:
    """A split and the placement of its batches; every placement gives the same batches.

    Attributes:
      records: the split, at the model's size.
      mesh: the devices.
      placement: "resident" keeps images and label maps on every device; "streaming" sends each batch; "auto" is
        resident if devices have their own memory and the split fits in RESIDENT_SHARE of the free memory.
      workers: threads that gather streamed batches ahead of the step; 0 for none.
      encode_images: a frozen model's function from a batch of images to features, a tree of arrays with a row for each
        image. Features are computed once and take the place of the images. None leaves the images.
    """

    records: Records
    mesh: Mesh
    placement: Placement = "auto"
    workers: int = 1
    encode_images: Callable[[Array], Any] | None = None

    @cached_property
    def resident(self) -> bool:
        """Whether the split is kept on the devices.

        Raises:
          UserError: placement is "resident" and the split doesn't fit.
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
                f"{self.records.name}, {self.records.split} takes {self._bytes / 2**30:.1f} GiB of a device's free "
                f"{free / 2**30:.1f} GiB; choose --data.placement streaming",
                "device-memory",
            )
        return True

    @property
    def _bytes(self) -> int:
        """Bytes of a resident split on each device."""
        images = self.records.images
        if self.encode_images is not None:
            return self.feature_bytes + num_bytes(self.records.maps)
        return num_bytes((images, self.records.maps))

    @cached_property
    def feature_bytes(self) -> int:
        """Bytes that the features take in the cache folder; 0 without."""
        if self.encode_images is None:
            return 0
        images = self.records.images
        size = self._encoded_together(len(images))  # a shape that will be traced anyway
        batch = jax.ShapeDtypeStruct((size, *images.shape[1:]), images.dtype)
        return num_bytes(jax.eval_shape(self.encode_images, batch)) * len(images) // size

    def _encoded_together(self, images: int) -> int:
        """Images in a batch when features of so many are computed ahead of training."""
        return sharding.round_up(min(ENCODED_TOGETHER, images), self.mesh)

    def place(self) -> None:
        """Computes the features, if any, and puts a resident split on the devices."""
        _ = self._on_devices if self.resident else self._images

    def rows(self, batch_size: int) -> int:
        """Number of rows of a batch of `batch_size` records, padded for an even split over the devices."""
        return sharding.round_up(batch_size, self.mesh, self.records.prompts_per_image)

    def training(
        self, batch_size: int, seed: int, epoch: int, *, augment: bool, skip: int = 0, features: Any = None
    ) -> Iterator[Source]:
        """The batches of one epoch; see `batching.training`.

        Args:
          batch_size: records in a batch.
          seed: of order and augmentation.
          epoch: from 1.
          augment: whether images and masks are augmented, which depends only on seed, epoch and step.
          skip: number of batches to leave out at the start.
          features: of the epoch's augmented images, in the order of the batches; they take the place of the images.
        """
        batches = batching.training(self._placed, batch_size, self.rows(batch_size), seed, epoch)
        before = (epoch - 1) * len(batches)
        if features is not None:
            batches = [_in_order(rows, number) for number, rows in enumerate(batches)]
        for number, source in enumerate(self._sources(batches[skip:], features), start=skip):
            if augment:
                key = jax.random.fold_in(jax.random.key(seed), before + number)
                source = source._replace(draw=sharding.replicate(jax.random.key_data(key), self.mesh))
            yield source

    def evaluation(self, batch_size: int) -> Iterator[Batch]:
        """Every record once, in the split's order; the last rows of a batch may be padding."""
        # Gathered outside the evaluation step, which then is one program for splits of any number of images.
        for source in self._sources(batching.evaluation(self._placed, batch_size, self.rows(batch_size))):
            yield _gathered(source)

    def _sources(self, batches: Sequence[Rows], features: Any = None) -> Iterator[Source]:
        if self.resident and features is None:
            images, maps = self._on_devices
            return (Source(images, maps, sharding.shard_batch(rows, self.mesh)) for rows in batches)
        import grain  # loads late, as in `batching`

        ahead = grain.ReadOptions(num_threads=self.workers, prefetch_buffer_size=2 * max(1, self.workers))
        numbers = grain.MapDataset.range(len(batches))
        if features is None:
            features = self._images  # not in the threads, because all processes encode images together
        return iter(numbers.map(lambda number: self._sent(batches[number], features)).to_iter_dataset(ahead))

    def _sent(self, rows: Rows, features: Any) -> Source:
        """A batch with the pixels of its rows, except the label maps of a resident split."""
        images = jax.tree.map(lambda array: self._read(array, np.asarray(rows.image)), features)
        if self.resident:
            return Source(images, self._on_devices[1], sharding.shard_batch(rows._replace(image=None), self.mesh))
        maps = self._read(self.records.maps, np.asarray(rows.map))
        return Source(images, maps, sharding.shard_batch(rows._replace(image=None, map=None), self.mesh))

    def _read(self, pixels: np.ndarray, places: np.ndarray) -> Array:
        """These rows of the split's pixels; each host reads its devices' shard."""
        shape = (len(places), *pixels.shape[1:])
        return sharding.make_sharded(shape, lambda part: pixels[places[part[0]]], self.mesh)

    @cached_property
    def _placed(self) -> Records:
        """The records; if resident, without unused images and maps."""
        return self.records.compact() if self.resident else self.records

    @cached_property
    def _on_devices(self) -> tuple[Array, Array]:
        pixels = sharding.replicate((self._images, self._placed.maps), self.mesh)
        return cast(tuple[Array, Array], pixels)

    @cached_property
    def _images(self) -> Any:
        """The images, or their features in unnamed files."""
        images, encode_images = self._placed.images, self.encode_images
        if encode_images is None:
            return images

        def encode(rows: np.ndarray) -> Any:
            return sharding.gather_to_host(encode_images(sharding.shard_batch(jnp.asarray(images[rows]), self.mesh)))

        return map_batches(encode, len(images), self._encoded_together(len(images)), "encoding images")


def _in_order(rows: Rows, number: int) -> Rows:
    """The rows of batch `number`, for images that are stored in the order of the batches."""
    count = len(np.asarray(rows.image))
    return rows._replace(image=cast(Array, np.arange(number * count, (number + 1) * count, dtype=np.int32)))


_gathered = jax.jit(gather)
