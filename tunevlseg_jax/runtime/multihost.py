"""Several processes, one or more on each host, that train one run together."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import rich

from tunevlseg_jax.runtime import lazy, supervisor
from tunevlseg_jax.runtime.errors import EverywhereError, UserError
from tunevlseg_jax.runtime.lazy import jax, jnp, multihost_utils

if TYPE_CHECKING:
    from jax import Array
    from jax.sharding import Mesh

HEARTBEAT_SECONDS = 30
"""Time after which a process that can't be reached counts as lost."""
MESSAGE_BYTES = 1024
"""Length to which an error message is cut when it is sent to the other processes."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How several processes find each other.

    Attributes:
      distributed: "auto" takes the settings from the cluster (a TPU pod, Slurm or Open MPI), which has started a
        process on every host; "off" is for one process, or for several given by the three options below.
      processes: number of processes.
      process: number of this process, from 0; process 0 prints and writes the files.
      coordinator: HOST:PORT at which all processes reach process 0.
    """

    distributed: Literal["off", "auto"] = "off"
    processes: int | None = None
    process: int | None = None
    coordinator: str | None = None


OPTIONS = tuple(f"--{name}" for name in Cluster.__dataclass_fields__)
"""The names of these options on the command line."""


def given(cluster: Cluster) -> list[str]:
    """The options that differ from one process's."""
    usual = Cluster()
    return [f"--{name}" for name in Cluster.__dataclass_fields__ if getattr(cluster, name) != getattr(usual, name)]


def join(cluster: Cluster) -> None:
    """Waits for the other processes, if there are any. Must run before anything else uses the devices.

    One of several processes runs the command again in a child and ends with it, see `supervisor`. Commands import what
    computes after this, so that the parent stays small.

    Raises:
      UserError: an option is missing or out of range, no cluster is found, or the processes can't connect.
    """
    places = {name: getattr(cluster, name) for name in ("processes", "process", "coordinator")}
    missing = [f"--{name}" for name, value in places.items() if value is None]
    if cluster.distributed == "auto" and len(missing) < len(places):
        raise UserError("--distributed auto needs no --processes, --process or --coordinator", "options-conflict")
    if cluster.distributed == "off" and len(missing) == len(places):
        return
    if cluster.distributed == "off":
        _check(cluster, missing)
    if supervisor.is_needed():
        raise SystemExit(supervisor.supervise())
    supervisor.end_with_parent()
    # JAX's preemption service would replace the signal handlers of `signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process,
            cluster_detection_method=None if cluster.distributed == "auto" else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except ValueError as error:  # no cluster environment gave the settings
        raise UserError(f"--distributed auto finds no cluster here: {error}", "no-cluster") from error
    except RuntimeError as error:
        where = cluster.coordinator or "the cluster's coordinator"
        raise UserError(f"can't connect at {where}: {str(error).splitlines()[0]}", "cannot-connect") from error
    if not is_primary():
        rich.get_console().quiet = True


def _check(cluster: Cluster, missing: list[str]) -> None:
    """Raises a UserError if an option is missing or out of range, or the coordinator's port is taken."""
    if missing:
        raise UserError(f"several processes need {' and '.join(missing)} too, or --distributed auto", "missing-option")
    assert cluster.processes is not None and cluster.process is not None and cluster.coordinator is not None
    if cluster.processes < 1:
        raise UserError(f"--processes must be at least 1, got {cluster.processes}", "out-of-range")
    if not 0 <= cluster.process < cluster.processes:
        raise UserError(f"--process must be from 0 to {cluster.processes - 1}, got {cluster.process}", "out-of-range")
    host, _, port = cluster.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(f"--coordinator must be like 10.0.0.1:8476, got {cluster.coordinator!r}", "invalid-address")
    if cluster.process == 0:
        _check_port(int(port))


def _check_port(port: int) -> None:
    """Raises a UserError if this host can't listen at a port; JAX would crash."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as JAX does
        try:
            probe.bind(("", port))
        except OSError as error:
            reason = f"process 0 can't listen at port {port} of --coordinator: {error.strerror}"
            raise UserError(f"{reason}; give all processes another port", "cannot-connect") from error


def is_multiprocess() -> bool:
    """Whether there are several processes."""
    return lazy.is_loaded("jax") and jax.distributed.is_initialized() and jax.process_count() > 1


def process_number() -> int:
    """The number of this process, from 0."""
    return jax.process_index() if is_multiprocess() else 0


def is_primary() -> bool:
    """Whether this is process 0, which prints and writes the files."""
    return process_number() == 0


@contextmanager
def sync_errors() -> Iterator[None]:
    """A block in which a UserError in one process is raised in all, so that no process continues without the others.

    Raises:
      EverywhereError: at least one process had a UserError.
    """
    if not is_multiprocess():
        yield
        return
    message = ""
    try:
        yield
    except UserError as error:
        message = f"{error.code} {error}"
    buffer = np.zeros(MESSAGE_BYTES, np.uint8)
    cut = np.frombuffer(message.encode(), np.uint8)[:MESSAGE_BYTES]
    buffer[: len(cut)] = cut
    for number, row in enumerate(multihost_utils.process_allgather(buffer)):
        if text := bytes(row).rstrip(b"\0").decode(errors="ignore"):
            code, _, text = text.partition(" ")
            raise EverywhereError(text if number == 0 else f"process {number}: {text}", code)


def broadcast_from_primary(tree: Any) -> Any:
    """Process 0's arrays, bit for bit and as NumPy; each process passes arrays of the same shapes and types."""
    if not is_multiprocess():
        return tree
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
    # As bytes, because the broadcast is a sum with zeros, which turns -0.0 into 0.0.
    sent = np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    received = np.asarray(multihost_utils.broadcast_one_to_all(sent))
    ends = np.cumsum([leaf.nbytes for leaf in leaves])
    arrays = [
        np.frombuffer(received[end - leaf.nbytes : end], leaf.dtype).reshape(leaf.shape)
        for leaf, end in zip(leaves, ends.tolist(), strict=True)
    ]
    return jax.tree.unflatten(structure, arrays)


def gather_numbers(numbers: Sequence[float]) -> np.ndarray:
    """(process, number) float64: the numbers of every process, as many in each; all processes must call this."""
    array = np.asarray(numbers, np.float64)
    if not is_multiprocess():
        return array[None]
    # As bytes, because JAX would round them to float32.
    sent = np.frombuffer(array.tobytes(), np.uint8)
    return np.asarray(multihost_utils.process_allgather(sent)).view(np.float64)


def exit_process(status: int, *, alone: bool) -> NoReturn:
    """Ends the process.

    Args:
      status: exit status.
      alone: whether the other processes don't know that this one ends. They may be waiting for it in a computation, so
        it exits at once instead of waiting for them, as a normal exit does.
    """
    if alone and is_multiprocess():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    raise SystemExit(status)


class AllProcessMax:
    """The maximum of a number over all processes, returned one call late so that no process waits for the others."""

    def __init__(self, mesh: Mesh):
        self.sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))
        self.largest = jax.jit(jnp.max)
        self.pending: Array | None = None

    def __call__(self, number: int) -> int:
        """All processes must call this; with several processes the first call returns 0."""
        if not is_multiprocess():
            return number
        size = self.sharding.mesh.size
        numbers = jax.make_array_from_callback(
            (size,), self.sharding, lambda part: np.full(size, number, np.int32)[part]
        )
        before, self.pending = self.pending, self.largest(numbers)
        return 0 if before is None else int(before)
