"""The time that a program's collectives take, from a trace of one run."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

from tunevlseg_jax.benchmarks.hlo import COLLECTIVES

_EVENT = re.compile(rf"%?({'|'.join(COLLECTIVES)}|nccl)", re.IGNORECASE)


def collective_seconds(run: Callable[[], Any]) -> float:
    """Seconds that one of this process's devices spends in collectives, waiting for the others included."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(run())
        return sum(map(_seconds, Path(folder).rglob("*.xplane.pb"))) / jax.local_device_count()


def _seconds(path: Path) -> float:
    """Of all devices in a trace. A CPU's devices are threads of the host."""
    planes = list(ProfileData.from_file(str(path)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    events = (event for plane in devices or planes for line in plane.lines for event in line.events)
    return sum(event.duration_ns for event in events if _EVENT.match(event.name)) / 1e9
