"""Times the programs of experiments on every device, in one process or in several that run them together."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from tunevlseg_jax.benchmarks import loading_speed, programs
from tunevlseg_jax.benchmarks.collectives import collective_seconds
from tunevlseg_jax.benchmarks.peer import Peer
from tunevlseg_jax.benchmarks.programs import Program
from tunevlseg_jax.runtime import memory, multihost, sharding
from tunevlseg_jax.training.experiment import Experiment

Row = dict[str, Any]
TRAINING_STEPS = ("training", "training, cached")
"""The programs that the peer's training step is compared with."""


def measure(
    experiments: Sequence[Experiment], mesh: Mesh, *, trials: int, repeats: int, peer: Peer, trace: str | None
) -> list[Row]:
    """A row for each program of each experiment, ready for JSON; the same in every process.

    Args:
      experiments: they have the same model.
      mesh: the devices.
      trials: see `programs.programs`.
      repeats: runs of each program; all programs take turns.
      peer: its forward pass takes turns with them, its training step with each training step.
      trace: folder for a trace of one run of each program, or None.
    """
    peaks = {"with weights created": memory.peak()}
    timed = [(owner, program) for owner in experiments for program in programs.programs(owner, mesh, trials)]
    peaks["with programs compiled"] = memory.peak()
    memory.release_freed()  # as training does
    matrix, matrix_flops = programs.ceiling(experiments[0].network)
    runs: list[Callable[[], Any]] = [matrix, *(program.run for _, program in timed)]
    runs += peer.forward.values()
    seconds = programs.timed(runs, repeats)
    peaks["in the end"] = memory.peak()
    if trace is not None:
        with jax.profiler.trace(trace):
            for _, program in timed:
                jax.block_until_ready(program.run())
    peer_seconds = dict(zip(peer.forward, seconds[1 + len(timed) :], strict=True))
    highest = multihost.gather_numbers([matrix_flops / float(np.median(seconds[0]))])[:, 0]
    fullest = np.maximum.accumulate(multihost.gather_numbers(list(peaks.values())).max(axis=0))
    most = dict(zip(peaks, fullest.tolist(), strict=True))  # Linux counts pages a core, and its peak may fall by some
    rows = []
    for (owner, program), taken in zip(timed, seconds[1:], strict=False):
        row = _row(owner, program, mesh, taken, float(highest.min()))
        row |= {f"peer_{name}": _ratio(taken, theirs) for name, theirs in peer_seconds.items()}
        row |= _training_ratios(program, peer, repeats)
        rows.append(row | {"ceiling_by_host": highest.tolist(), "peak_bytes": most})
    return rows


def scaling(experiment: Experiment, repeats: int) -> list[Row]:
    """The training step on 1, 2, 4 … and all devices, each with the same number of records, and its efficiency.

    The efficiency is the rate divided by that of one device and by the number of devices.
    """
    devices, rows = jax.devices(), []
    each = max(1, experiment.config.train.batch_size // len(devices))
    for number in _powers(len(devices)):
        settings = dataclasses.replace(experiment.config.train, batch_size=each * number)
        smaller = dataclasses.replace(experiment, config=dataclasses.replace(experiment.config, train=settings))
        mesh, taken = sharding.mesh(devices=devices[:number]), [0.0]
        if mesh.local_devices:  # the other processes wait for the numbers
            taken = programs.timed([next(programs.programs(smaller, mesh)).run], repeats)[0]
        median = float(multihost.gather_numbers([float(np.median(taken))]).max())
        rate = each * number / median
        alone = rows[0]["images_per_second"] if rows else rate
        rows.append(
            {"program": f"training on {number}", "device": devices[0].device_kind, "devices": number}
            | {"precision": experiment.network.dtype.name, "batch": each * number, "seconds": median}
            | {"images_per_second": rate, "images_per_second_per_device": rate / number}
            | {"efficiency": rate / number / alone}
        )
    return rows


def _row(experiment: Experiment, program: Program, mesh: Mesh, seconds: Sequence[float], ceiling: float) -> Row:
    hosts = multihost.gather_numbers([float(np.median(seconds)), min(seconds), max(seconds), program.compilation])
    median = float(hosts[:, 0].max())
    rate = program.flops / median
    row = {
        "program": program.name,
        "device": jax.devices()[0].device_kind,
        "devices": mesh.size,
        "hosts": len(hosts),
        "precision": experiment.network.dtype.name,
        "batch": program.records,
        "compilation_seconds": float(hosts[:, 3].max()),
        "compilation_seconds_by_host": hosts[:, 3].tolist(),
        "seconds": median,
        "seconds_by_host": hosts[:, 0].tolist(),
        "fastest": float(hosts[:, 1].min()),
        "slowest": float(hosts[:, 2].max()),
        "images_per_second": program.records / median,
        "images_per_second_per_device": program.records / median / mesh.size,
        "flops": program.flops,
        "flops_per_second": rate,
        "share_of_ceiling": rate / mesh.size / ceiling,
        "temporary_bytes": program.temporary,
        "trainable_bytes": _bytes(experiment.trainable),
        "frozen_bytes": _bytes(experiment.frozen),
    }
    if mesh.size > 1:
        row["collective_seconds"] = float(multihost.gather_numbers([collective_seconds(program.run)]).max())
    if program.step is not None:
        waiting = loading_speed.stall(program.step, experiment, mesh, program.records, median)
        row["stall_seconds_by_host"] = multihost.gather_numbers([waiting])[:, 0].tolist()
        row["stall_seconds"] = max(row["stall_seconds_by_host"])
        speeds = loading_speed.loading(experiment, mesh, program.records)
        slowest = multihost.gather_numbers(list(speeds.values())).min(axis=0).tolist()
        row["loading_images_per_second"] = dict(zip(speeds, slowest, strict=True))
    return row


def _training_ratios(program: Program, peer: Peer, repeats: int) -> Row:
    """A training step compared with the peer's, in turns of their own: the peer's step takes much time and memory."""
    if not peer.training or program.name not in TRAINING_STEPS:
        return {}
    ours, *theirs = programs.timed([program.run, *peer.training.values()], repeats)
    return {f"peer_training_{name}": _ratio(ours, each) for name, each in zip(peer.training, theirs, strict=True)}


def _ratio(seconds: Sequence[float], peer: Sequence[float]) -> dict[str, float]:
    """The peer's median, and the ratios of a program's runs to the peer's in the same turns."""
    ratios = np.asarray(seconds) / np.asarray(peer)
    spread = {"ratio": np.median(ratios), "least": ratios.min(), "most": ratios.max()}
    return {"seconds": float(np.median(peer))} | {name: float(value) for name, value in spread.items()}


def _powers(limit: int) -> Iterator[int]:
    """1, 2, 4 … below a limit, and the limit."""
    number = 1
    while number < limit:
        yield number
        number *= 2
    yield limit


def _bytes(tree: Mapping[str, Any]) -> int:
    return sum(array.nbytes for array in tree.values())
