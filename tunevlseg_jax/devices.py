"""Where arrays live: batches shared out over the devices, everything else on each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

DATA = "data"
"""Axis of the mesh along which batches are shared out."""


def mesh() -> Mesh:
    """All devices along one axis, `data`."""
    return Mesh(np.asarray(jax.devices()), (DATA,))


def replicated(tree: Tree, devices: Mesh) -> Tree:
    """Every array whole on every device."""
    return jax.device_put(tree, NamedSharding(devices, PartitionSpec()))


def shared_out(batch: Tree, devices: Mesh) -> Tree:
    """Every array split along its first axis, a multiple of the number of devices."""
    return jax.device_put(batch, NamedSharding(devices, PartitionSpec(DATA)))


def rounded_up(size: int, devices: Mesh, together: int = 1) -> int:
    """The next multiple of the number of devices, each taking whole groups of `together` rows."""
    multiple = devices.size * together
    return -(-size // multiple) * multiple


def made_shared_out(shape: tuple[int, ...], read: Callable[[Any], np.ndarray], devices: Mesh) -> Array:
    """An array like one of `shared_out`, of which each host reads only its own devices' parts."""
    return jax.make_array_from_callback(shape, NamedSharding(devices, PartitionSpec(DATA)), read)


def free_memory(devices: Mesh) -> int | None:
    """Bytes free on the fullest device of this host; None where devices use the host's own memory."""
    stats = [device.memory_stats() for device in devices.local_devices]
    if not all(stats):
        return None
    return min(one["bytes_limit"] - one["bytes_in_use"] for one in stats if one)
