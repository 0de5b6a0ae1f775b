"""Where arrays live: batches shared out over the devices, everything else on each of them."""

from __future__ import annotations

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def mesh() -> Mesh:
    """All devices along one axis, `data`."""
    return Mesh(np.asarray(jax.devices()), ("data",))


def replicated(tree: Tree, devices: Mesh) -> Tree:
    """Every array whole on every device."""
    return jax.device_put(tree, NamedSharding(devices, PartitionSpec()))


def shared_out(batch: Tree, devices: Mesh) -> Tree:
    """Every array split along its first axis, a multiple of the number of devices."""
    return jax.device_put(batch, NamedSharding(devices, PartitionSpec("data")))


def rounded_up(size: int, devices: Mesh, together: int = 1) -> int:
    """The next multiple of the number of devices, each taking whole groups of `together` rows."""
    multiple = devices.size * together
    return -(-size // multiple) * multiple
