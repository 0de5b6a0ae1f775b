"""Compiles a training step ahead of time for an absent TPU slice, and reports memory and time per chip."""

import dataclasses
import math
import os
import re
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from tunevlseg_jax.benchmarks import hlo, programs
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.training.experiment import Experiment


@dataclass(frozen=True)
class Chip:
    """Published figures of a TPU chip, from docs.cloud.google.com/tpu/docs/{v5e,v5p,v6e}.

    Attributes:
      flops: bfloat16 operations per second.
      memory: bytes of HBM.
      bandwidth: bytes per second to and from HBM.
      interconnect: bytes per second to other chips, in one direction (half of the published sum of both).
      kinds: JAX's names of such a device.
      slice: an example of a slice's sides, all of which have as many.
    """

    flops: float
    memory: float
    bandwidth: float
    interconnect: float
    kinds: tuple[str, ...]
    slice: str


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 200e9, ("TPU v5e", "TPU v5 lite"), "4x4"),
    "v5p": Chip(459e12, 95e9, 2765e9, 600e9, ("TPU v5p", "TPU v5"), "4x4x4"),
    "v6e": Chip(918e12, 32e9, 1638e9, 400e9, ("TPU v6e", "TPU v6 lite"), "4x4"),
}
OFF_POD = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
"""Settings that libtpu would otherwise ask a TPU machine for, and that let several processes load it, which only
conflicts on a machine with a TPU."""


@dataclass(frozen=True)
class Plan:
    """Cost of one training step on each chip of a slice.

    Attributes:
      device: the slice, such as "v5e:4x4".
      chips: number of chips.
      batch: records per chip.
      seconds: seconds of compilation.
      held: bytes of the inputs: frozen weights, trainable tree, optimizer state, batch.
      temporary: bytes of temporaries, mostly activations.
      flops: number of operations.
      bytes: bytes to and from HBM.
      collectives: (bytes, number) by kind of collective.
    """

    device: str
    chips: int
    batch: int
    seconds: float
    held: int
    temporary: int
    flops: float
    bytes: int
    collectives: dict[str, tuple[int, int]]

    @property
    def chip(self) -> Chip:
        """The published figures of the slice's chip."""
        return CHIPS[self.device.partition(":")[0]]

    @property
    def fits(self) -> bool:
        """Whether the step fits in the chip's memory."""
        return self.held + self.temporary <= self.chip.memory

    @property
    def bound(self) -> dict[str, float]:
        """Lower bounds on a step's seconds, by resource (the roofline model of Williams et al. 2009)."""
        # An all-reduce sends its data twice (reduce-scatter, then all-gather); other collectives send it once.
        weighed = sum(size * (2 if kind == "all-reduce" else 1) for kind, (size, _) in self.collectives.items())
        sent = weighed * (self.chips - 1) / self.chips
        return {
            "compute": self.flops / self.chip.flops,
            "memory": self.bytes / self.chip.bandwidth,
            "interconnect": sent / self.chip.interconnect,
        }


def plan(experiment: Experiment, name: str, batch: int) -> Plan:
    """Compiles the training step of an experiment for a slice; see `programs.training` for the sharding.

    Args:
      experiment: the experiment, in the TPU's type, bfloat16.
      name: name of the slice, such as "v5e:16x16".
      batch: records per chip.

    Raises:
      UserError: the slice doesn't exist, or libtpu is missing.
    """
    mesh = _mesh(name)
    started = time.perf_counter()
    compiled = programs.training(experiment, mesh, batch * mesh.size).lower().compile()
    seconds = time.perf_counter() - started
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return Plan(
        device=name,
        chips=mesh.size,
        batch=batch,
        seconds=seconds,
        held=memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporary=memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        flops=compiled.cost_analysis()["flops"],
        bytes=hlo.traffic(text),
        collectives=hlo.collectives(text),
    )


def program(experiment: Experiment, name: str) -> str:
    """A name for the program of each chip of a slice, which is the same for all slices of several such chips.

    It differs where the number of chips decides which part of the frozen weights each holds.

    Raises:
      UserError: as in `plan`.
    """
    alone = _mesh(name).size == 1
    return name if alone or experiment.config.train.shard_frozen else name.partition(":")[0]


def on_slice(plan: Plan, name: str) -> Plan:
    """The plan of another slice with the same `program`."""
    return dataclasses.replace(plan, device=name, chips=_mesh(name).size)


def largest_batch(small: Plan, large: Plan) -> int:
    """Largest number of records per chip that fits in memory, by linear extrapolation from two plans."""
    per_record = (large.held + large.temporary - small.held - small.temporary) / (large.batch - small.batch)
    constant = small.held + small.temporary - per_record * small.batch
    return max(0, math.floor((small.chip.memory - constant) / per_record))


def operations(experiment: Experiment, batch: int) -> float:
    """Operations of the training step of an experiment on one chip, counted without compiling it."""
    return programs.flops(programs.training(experiment, sharding.mesh(devices=jax.devices("cpu")[:1]), batch))


def parse(name: str) -> tuple[Chip, int]:
    """The chip of a slice such as "v5e:16x16", and their number.

    Raises:
      UserError: the name has another form, or the chip is unknown.
    """
    chip, _, sides = name.partition(":")
    if chip not in CHIPS:
        raise UserError(f"--topology must be like v5e:4x4, got {name!r}{nearest(chip, CHIPS)}", "unknown-topology")
    example = CHIPS[chip].slice
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", sides) or sides.count("x") != example.count("x"):
        raise UserError(f"--topology must be like {chip}:{example}, got {name!r}", "unknown-topology")
    return CHIPS[chip], math.prod(map(int, sides.split("x")))


def _mesh(name: str) -> Mesh:
    return Mesh(np.asarray(_devices(name)), (sharding.DATA,))


def _devices(name: str) -> list[Any]:
    parse(name)
    for variable, value in OFF_POD.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as error:  # jax has no specific exception for a missing library
        reason = str(error).splitlines()[0]
        raise UserError(f"can't compile for {name}: {reason}; install the extra `tpu`", "needs-libtpu") from error
