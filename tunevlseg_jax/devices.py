"""Where arrays live: trials and batches shared out over the devices, everything else on each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

DATA, TRIAL = "data", "trial"
"""Axes of the mesh along which batches are shared out, and trials."""


def mesh(trials: int = 1) -> Mesh:
    """All devices along two axes: `trial` first, as far as there are `trials` for them, and `data`."""
    count = jax.device_count()
    across = max(number for number in range(1, min(trials, count) + 1) if count % number == 0)
    return Mesh(np.asarray(jax.devices()).reshape(across, -1), (TRIAL, DATA))


def replicated(tree: Tree, devices: Mesh) -> Tree:
    """Every array whole on every device."""
    return jax.device_put(tree, NamedSharding(devices, PartitionSpec()))


def of_trials(devices: Mesh) -> NamedSharding:
    """How arrays lie that are split along their first axis, the trials, a multiple of the mesh's `trial` axis."""
    # Named as a compiled step names it in what it gives back, or the next step would be compiled anew.
    return NamedSharding(devices, PartitionSpec(TRIAL) if devices.shape[TRIAL] > 1 else PartitionSpec())


def by_trial(tree: Tree, devices: Mesh) -> Tree:
    """Every array split along its first axis, the trials."""
    return jax.device_put(tree, of_trials(devices))


def shared_out(batch: Tree, devices: Mesh) -> Tree:
    """Every array split along its first axis, a multiple of the number of devices."""
    return jax.device_put(batch, NamedSharding(devices, PartitionSpec(DATA)))


def rounded_up(size: int, devices: Mesh, together: int = 1) -> int:
    """The next multiple of the `data` axis, each part taking whole groups of `together` rows."""
    multiple = devices.shape[DATA] * together
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
