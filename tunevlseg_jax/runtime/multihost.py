"""Several processes, one or more a host, that train one run together."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import rich
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tunevlseg_jax.runtime.errors import EverywhereError, UserError

TOLD = 1024
"""Bytes of an error's message that other processes hear of."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How several processes find each other.

    Attributes:
      distributed: "auto" asks the cluster, such as a TPU pod, Slurm or Open MPI, which started a process on every host;
        "off" for one process, or for several by the three options that follow.
      processes: how many there are.
      process: which of them this is, from 0; process 0 writes the files and prints.
      coordinator: HOST:PORT at which all of them reach process 0.
    """

    distributed: Literal["off", "auto"] = "off"
    processes: int | None = None
    process: int | None = None
    coordinator: str | None = None


OPTIONS = tuple(f"--{name}" for name in Cluster.__dataclass_fields__)
"""As they are typed."""


def join(cluster: Cluster) -> None:
    """Waits for the other processes, if there are to be any; before anything else that asks for devices.

    Raises:
      UserError: an option is missing or can't be, no cluster is found, or the others aren't.
    """
    given = {name: getattr(cluster, name) for name in ("processes", "process", "coordinator")}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if cluster.distributed == "auto" and len(missing) < len(given):
        raise UserError("--distributed auto asks the cluster; leave out --processes, --process and --coordinator")
    if cluster.distributed == "off" and len(missing) == len(given):
        return
    if cluster.distributed == "off":
        _check(cluster, missing)
    # Signals are for `interruption`, whose handlers JAX's own would take away.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process,
            cluster_detection_method=None if cluster.distributed == "auto" else "deactivate",
        )
    except ValueError as error:  # it has asked the cluster for what it needs, in vain
        raise UserError(f"--distributed auto finds no cluster here: {error}") from error
    except RuntimeError as error:
        where = cluster.coordinator or "the cluster's coordinator"
        raise UserError(f"the processes can't meet at {where}: {str(error).splitlines()[0]}") from error
    if not is_primary():
        rich.get_console().quiet = True


def _check(cluster: Cluster, missing: list[str]) -> None:
    """Raises a UserError for options that don't say where and how many the processes are."""
    if missing:
        raise UserError(f"several processes need {' and '.join(missing)} too, or --distributed auto alone")
    assert cluster.processes is not None and cluster.process is not None and cluster.coordinator is not None
    if not 0 <= cluster.process < cluster.processes:
        raise UserError(
            f"--process can't be {cluster.process}: of {cluster.processes} processes the first is 0 and the last "
            f"{cluster.processes - 1}"
        )
    host, _, port = cluster.coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator can't be {cluster.coordinator!r}: it is HOST:PORT, such as 10.0.0.1:8476")


def is_multiprocess() -> bool:
    """Whether there are several processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_primary() -> bool:
    """Whether this is process 0, which writes the files and prints."""
    return not is_multiprocess() or jax.process_index() == 0


@contextmanager
def sync_errors() -> Iterator[None]:
    """A block in which a UserError of one process is an error of all of them; no process goes on without the others.

    Raises:
      EverywhereError: some process had a UserError.
    """
    if not is_multiprocess():
        yield
        return
    told = ""
    try:
        yield
    except UserError as error:
        told = str(error)
    own = np.zeros(TOLD, np.uint8)
    cut = np.frombuffer(told.encode(), np.uint8)[:TOLD]
    own[: len(cut)] = cut
    for number, row in enumerate(multihost_utils.process_allgather(own)):
        if text := bytes(row).rstrip(b"\0").decode(errors="ignore"):
            raise EverywhereError(text if number == 0 else f"process {number}: {text}")


def broadcast_from_primary(tree: Any) -> Any:
    """Process 0's arrays, to the bit and as numpy, on every process, which has others of the same shapes and types."""
    if not is_multiprocess():
        return tree
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes: a sum with zeros, by which arrays are sent, makes 0 of -0.
    sent = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    ends = np.cumsum([leaf.nbytes for leaf in leaves])
    found = [
        np.frombuffer(told[end - leaf.nbytes : end], leaf.dtype).reshape(leaf.shape)
        for leaf, end in zip(leaves, ends.tolist(), strict=True)
    ]
    return jax.tree.unflatten(structure, found)


def exit_process(status: int, *, alone: bool) -> NoReturn:
    """Ends the process.

    Args:
      status: of the exit.
      alone: whether the other processes don't know, and may wait for this one in a computation: then it mustn't wait
        for them, as a process does that ends in the usual way.
    """
    if alone and is_multiprocess():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


class AllProcessMax:
    """The largest of the processes' numbers, told one call late, so that nobody waits for the others."""

    def __init__(self, mesh: Mesh):
        self.sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self.asked: Array | None = None

    def __call__(self, own: int) -> int:
        """To be called by all processes; 0 the first time, if they are several."""
        if not is_multiprocess():
            return own
        size = self.sharding.mesh.size
        mine = jax.make_array_from_callback((size,), self.sharding, lambda part: np.full(size, own, np.int32)[part])
        before, self.asked = self.asked, _largest(mine)
        return 0 if before is None else int(before)


_largest = jax.jit(jnp.max)
