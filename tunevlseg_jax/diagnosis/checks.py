"""What `doctor` looks at: versions, devices, precision, folders, memory, extras, and the embedded model at work."""

import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from tunevlseg_jax import __version__
from tunevlseg_jax.data import registry, targets
from tunevlseg_jax.data.scene_domains import SIZE
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.diagnosis import extras
from tunevlseg_jax.run import load_model
from tunevlseg_jax.runtime import cache, memory
from tunevlseg_jax.training import precision

State = Literal["ok", "note", "failed"]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "huggingface_hub", "transformers")
WIDTH = 512
"""Width of the text encoder of the published CLIPSeg, for which the precision is chosen."""
MODEL = "clipseg-tiny"
DATA = Data(name="scenes/photo", scenes=Scenes(train=1, val=1, test=1))
DICE, TOLERANCE = 0.905, 0.03
"""Dice of the embedded model on the first test image of the embedded data, and how far other devices may be from it."""
LEAST_DISK, LEAST_MEMORY = 2**30, 2**31
NVIDIA = Path("/dev/nvidia0")


@dataclass(frozen=True)
class Check:
    """A row of the answer.

    Attributes:
      name: what was looked at.
      state: "ok", "note" for what a user may want to change, or "failed" for what nothing works without.
      found: what was found.
      remedy: what to do; "" where there is nothing to do.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


def run() -> Iterator[Check]:
    """Every check, one after the other; the last ones take a few seconds."""
    yield Check("versions", "ok", _versions())
    yield _guarded("devices", _devices, "install JAX for this machine again: pip install --upgrade tunevlseg_jax")
    yield _guarded("precision", _precision, "choose --train.precision float32")
    yield _cache()
    yield _disk(Path.cwd())
    yield _memory()
    yield from _extras()
    yield _guarded("self-test", _self_test, "install the package again; if it stays, report an issue with this table")


def _guarded(name: str, check: Callable[[], Check], remedy: str) -> Check:
    """A check that nothing works without: whatever it raises is a failure."""
    try:
        return check()
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return Check(name, "failed", f"{type(error).__name__}: {lines[0]}", remedy)


def _versions() -> str:
    found = [f"tunevlseg_jax {__version__}", f"Python {platform.python_version()}", platform.system()]
    return ", ".join([*found, *(f"{name} {_version(name)}" for name in PACKAGES)])


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _devices() -> Check:
    devices = jax.devices()
    found = f"{len(devices)} {devices[0].platform} ({devices[0].device_kind})"
    if devices[0].platform == "cpu" and NVIDIA.exists():
        remedy = 'pip install "tunevlseg_jax[cuda]"'
        return Check("devices", "note", f"{found}; there is an NVIDIA GPU that JAX doesn't use", remedy)
    return Check("devices", "ok", found)


def _precision() -> Check:
    return Check("precision", "ok", f"auto is {precision.choose('auto', jax.default_backend(), WIDTH)}")


def _cache() -> Check:
    folder = cache.folder()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    found = f"{folder}: {len(files)} files, {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (probe := folder / ".doctor").touch()
        probe.unlink()
    except OSError as error:
        remedy = f"set {cache.VARIABLE} to a folder that you can write to"
        return Check("cache", "note", f"{found}; can't be written: {error.strerror}", remedy)
    return Check("cache", "ok", found)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK:
        return Check("disk", "note", f"{_gib(free)} free here", "make room: runs and features take gigabytes")
    return Check("disk", "ok", f"{_gib(free)} free here")


def _memory() -> Check:
    free = memory.available()
    if free < LEAST_MEMORY:
        remedy = "close programs, or take a smaller --train.batch-size"
        return Check("memory", "note", f"{_gib(free)} available", remedy)
    return Check("memory", "ok", f"{_gib(free)} available")


def _gib(number: int) -> str:
    return f"{number / 2**30:.1f} GiB"


def _extras() -> Iterator[Check]:
    """One row for the extras that are there, and one for each that isn't."""
    wanted = extras.requirements()
    if wanted is None:
        yield Check("extras", "note", "unknown: tunevlseg_jax isn't installed by pip", "pip install -e .")
        return
    missing = {extra: [name for name in names if _version(name) == "missing"] for extra, names in wanted.items()}
    there = [extra for extra, names in missing.items() if not names]
    yield Check("extras", "ok", f"installed: {', '.join(there) or 'none'}")
    for extra, names in missing.items():
        if names:
            found = f"{extras.PURPOSES.get(extra, 'optional')}; missing {', '.join(names)}"
            yield Check(f"extra {extra}", "note", found, f'pip install "tunevlseg_jax[{extra}]"')


def _self_test() -> Check:
    """The embedded model's mask of the first embedded image, compared with the truth."""
    model = load_model(MODEL)
    records = registry.load(DATA, "test", (SIZE, SIZE))
    (truth,) = next(iter(targets.stored(records))).masks
    phrase = records.prompts[records.prompt[0]][0]
    mask = model.predict(records.images[records.image[0]], phrase)
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    found = f"{MODEL} marks {phrase!r} with Dice {dice:.3f}"
    if abs(dice - DICE) <= TOLERANCE:
        return Check("self-test", "ok", found)
    remedy = "try --train.precision float32 and JAX_PLATFORMS=cpu; report an issue with this table"
    return Check("self-test", "failed", f"{found} instead of {DICE:.3f}", remedy)
