"""Where arrays live: trials, batches and, where asked for, weights shared out over the devices, the rest on each.

The devices may be those of several processes, each of which holds its own devices' parts alone. What goes in is then
the same on every process, or what each of them reads for its own devices.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

Tree = TypeVar("Tree")

DATA, TRIAL = "data", "trial"
"""Axes of the mesh: trials are split along the second, batches along both, so that what trials share is done once."""
_BATCH = PartitionSpec((DATA, TRIAL))


def mesh(trials: int = 1) -> Mesh:
    """All devices along two axes: `trial` first, as far as there are `trials` for them, and `data`."""
    count = jax.device_count()
    across = max(number for number in range(1, min(trials, count) + 1) if count % number == 0)
    return Mesh(np.asarray(jax.devices()).reshape(across, -1), (TRIAL, DATA))


def num_programs(trials: int, devices: Mesh) -> int:
    """Into how many programs so many trials are split, of the same number each: on a CPU one or more for each core.

    A CPU's cores share out few operations of a step evenly, but two steps always. Other devices do one thing at a time.
    """
    if not is_single_cpu(devices):
        return 1
    return min(number for number in range(1, trials + 1) if trials % number == 0 and number >= min(num_cores(), trials))


def is_single_cpu(devices: Mesh) -> bool:
    """Whether there is no device but the host itself."""
    return devices.size == 1 and devices.devices.flat[0].platform == "cpu"


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(tree: Tree, sharding: Sharding) -> Tree:
    """Every array as a sharding says."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(array: Any) -> Array:
        if isinstance(array, Array) and not array.is_fully_addressable:
            return jax.device_put(array, sharding)
        # Not device_put, which would send it to all processes to see whether it is the same there.
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(one, tree)


def replicate(tree: Tree, devices: Mesh) -> Tree:
    """Every array whole on every device."""
    return place(tree, NamedSharding(devices, PartitionSpec()))


def shard_params(tree: Tree, devices: Mesh) -> Tree:
    """Every array split over the `data` axis, along its largest axis that this divides; whole where there is none."""
    return jax.tree.map(lambda array: place(array, params_sharding(array.shape, devices)), tree)


def params_sharding(shape: Sequence[int], devices: Mesh) -> NamedSharding:
    """How an array of this shape lies in `scattered`."""
    parts = devices.shape[DATA]
    divided = [axis for axis, side in enumerate(shape) if side % parts == 0 and side]
    if len(shape) < 2 or not divided:  # vectors are small, and each gathering has its price
        return NamedSharding(devices, PartitionSpec())
    longest = max(divided, key=lambda axis: shape[axis])
    return NamedSharding(devices, PartitionSpec(*(DATA if axis == longest else None for axis in range(len(shape)))))


def trials_sharding(devices: Mesh) -> NamedSharding:
    """How arrays lie that are split along their first axis, the trials, a multiple of the mesh's `trial` axis."""
    # Named as a compiled step names it in what it gives back, or the next step would be compiled anew.
    return NamedSharding(devices, PartitionSpec(TRIAL) if devices.shape[TRIAL] > 1 else PartitionSpec())


def shard_trials(tree: Tree, devices: Mesh) -> Tree:
    """Every array split along its first axis, the trials."""
    return place(tree, trials_sharding(devices))


def shard_batch(batch: Tree, devices: Mesh) -> Tree:
    """Every array split along its first axis, a multiple of the number of devices."""
    return place(batch, NamedSharding(devices, _BATCH))


def along_data(batch: Tree, devices: Mesh) -> Tree:
    """A batch of `shared_out` whole for each part of the trials, which have nothing in common but the batch itself."""
    if devices.shape[TRIAL] == 1:
        return batch
    lying = NamedSharding(devices, PartitionSpec(DATA))
    return jax.tree.map(lambda array: array if array.sharding.is_fully_replicated else place(array, lying), batch)


def round_up(size: int, devices: Mesh, together: int = 1) -> int:
    """The next multiple of the number of devices, each part taking whole groups of `together` rows."""
    multiple = devices.size * together
    return -(-size // multiple) * multiple


def make_sharded(shape: tuple[int, ...], read: Callable[[Any], np.ndarray], devices: Mesh) -> Array:
    """An array like one of `shared_out`, of which each host reads only its own devices' parts."""
    return jax.make_array_from_callback(shape, NamedSharding(devices, _BATCH), read)


def gather_to_host(tree: Any) -> Any:
    """Every array whole and as numpy, on every process; all processes must ask for it."""

    def one(array: Any) -> np.ndarray:
        if isinstance(array, Array) and not (array.is_fully_addressable or array.is_fully_replicated):
            return multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array)

    return jax.tree.map(one, tree)


def free_memory(devices: Mesh) -> int | None:
    """Bytes free on the fullest device, to whole MiB; None where devices use the host's own memory."""
    stats = [device.memory_stats() for device in devices.local_devices]
    if not all(stats):
        return None
    free = min(one["bytes_limit"] - one["bytes_in_use"] for one in stats if one) >> 20
    # Of all processes, so that they decide alike.
    return int(multihost_utils.process_allgather(np.asarray(free, np.int32)).min()) << 20
