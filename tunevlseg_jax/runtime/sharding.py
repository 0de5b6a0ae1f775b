"""Sharding: trials, batches and, if asked for, weights are split over the devices; other arrays are replicated.

The devices may belong to several processes, each of which holds only its own devices' shards. The inputs are then the
same on every process, or each process reads the shards of its own devices.
"""

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
"""Axes of the mesh: trials are split along `trial`, batches along both axes, so that work that does not depend on the
trial is done once."""
_BATCH = PartitionSpec((DATA, TRIAL))


def mesh(trials: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of all devices, or of the given ones, with the axes `trial`, at most `trials` long, and `data`."""
    devices = jax.devices() if devices is None else devices
    length = max(number for number in range(1, min(trials, len(devices)) + 1) if len(devices) % number == 0)
    return Mesh(np.asarray(devices).reshape(length, -1), (TRIAL, DATA))


def num_programs(trials: int, devices: Mesh) -> int:
    """Number of concurrent programs that the trials are split into evenly: one, or on a CPU at least one per core.

    Concurrent steps use a CPU's cores better than one large step. Other devices run one program at a time.
    """
    if not is_single_cpu(devices):
        return 1
    return min(number for number in range(1, trials + 1) if trials % number == 0 and number >= min(num_cores(), trials))


def is_single_cpu(devices: Mesh) -> bool:
    """Whether the mesh is one CPU device."""
    return devices.size == 1 and devices.devices.flat[0].platform == "cpu"


def num_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(tree: Tree, sharding: Sharding) -> Tree:
    """Places every array with the given sharding."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place_array(array: Any) -> Array:
        if isinstance(array, Array) and not array.is_fully_addressable:
            return jax.device_put(array, sharding)
        # Not device_put, which would send the array to all processes to check that it is the same there.
        whole = np.asarray(array)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(place_array, tree)


def replicate(tree: Tree, devices: Mesh) -> Tree:
    """Places every array on every device."""
    return place(tree, NamedSharding(devices, PartitionSpec()))


def shard_params(tree: Tree, devices: Mesh) -> Tree:
    """Splits every array over the mesh's `data` axis, as `params_sharding` says."""
    return jax.tree.map(lambda array: place(array, params_sharding(array.shape, devices)), tree)


def params_sharding(shape: Sequence[int], devices: Mesh) -> NamedSharding:
    """The sharding of a weight of this shape: its longest axis divisible by the mesh's `data` axis is split over it.

    Vectors, and arrays without such an axis, are replicated.
    """
    parts = devices.shape[DATA]
    divided = [axis for axis, side in enumerate(shape) if side % parts == 0 and side]
    if len(shape) < 2 or not divided:  # vectors are small, and each all-gather has a cost
        return NamedSharding(devices, PartitionSpec())
    longest = max(divided, key=lambda axis: shape[axis])
    return NamedSharding(devices, PartitionSpec(*(DATA if axis == longest else None for axis in range(len(shape)))))


def trials_sharding(devices: Mesh) -> NamedSharding:
    """The sharding of (trial, ...) arrays; the number of trials is a multiple of the mesh's `trial` axis."""
    # The same spec as in the results of a compiled step, or the next step would be compiled again.
    return NamedSharding(devices, PartitionSpec(TRIAL) if devices.shape[TRIAL] > 1 else PartitionSpec())


def shard_trials(tree: Tree, devices: Mesh) -> Tree:
    """Splits (trial, ...) arrays over the mesh's `trial` axis."""
    return place(tree, trials_sharding(devices))


def shard_batch(batch: Tree, devices: Mesh) -> Tree:
    """Splits (batch, ...) arrays over all devices; the batch is a multiple of the number of devices."""
    return place(batch, NamedSharding(devices, _BATCH))


def along_data(batch: Tree, devices: Mesh) -> Tree:
    """A batch of `shard_batch`, gathered along the mesh's `trial` axis so that each shard of trials has all of it."""
    if devices.shape[TRIAL] == 1:
        return batch
    by_data = NamedSharding(devices, PartitionSpec(DATA))
    return jax.tree.map(lambda array: array if array.sharding.is_fully_replicated else place(array, by_data), batch)


def round_up(size: int, devices: Mesh, group: int = 1) -> int:
    """`size` rounded up so that every device gets the same number of groups of `group` rows."""
    multiple = devices.size * group
    return -(-size // multiple) * multiple


def make_sharded(shape: tuple[int, ...], read: Callable[[Any], np.ndarray], devices: Mesh) -> Array:
    """An array sharded as by `shard_batch`, of which each process reads only its own devices' shards."""
    return jax.make_array_from_callback(shape, NamedSharding(devices, _BATCH), read)


def gather_to_host(tree: Any) -> Any:
    """Every array in full and as NumPy, on every process; all processes must call this."""

    def gather(array: Any) -> np.ndarray:
        if isinstance(array, Array) and not (array.is_fully_addressable or array.is_fully_replicated):
            return multihost_utils.process_allgather(array, tiled=True)
        return np.asarray(array)

    return jax.tree.map(gather, tree)


def free_memory(devices: Mesh) -> int | None:
    """Free bytes of the fullest device, rounded down to MiB; None if devices use the host's memory."""
    stats = [device.memory_stats() for device in devices.local_devices]
    if not all(stats):
        return None
    free = min(device["bytes_limit"] - device["bytes_in_use"] for device in stats if device) >> 20
    # The minimum over all processes, so that they make the same decision.
    return int(multihost_utils.process_allgather(np.asarray(free, np.int32)).min()) << 20
