"""Whether products of bfloat16 pay on this machine's CPU."""

import contextlib
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp

from tunevlseg_jax.runtime import cache
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, write_json

CPU_INFO = Path("/proc/cpuinfo")
FLAGS = {"avx512_bf16", "amx_bf16"}
FILE = "bfloat16_products.json"
"""In the user's cache folder: ratios by processor, version of jax and width."""
ROWS = 2048
"""Rows of the measured product, as of four images of CLIPSeg's size."""
TURNS = 5
PAYS = 0.8
"""Largest ratio that counts as faster: conversions around the products cost some of what they save."""


def verdict(width: int) -> tuple[bool, str]:
    """Whether bfloat16 pays for a model of this width, and why.

    Flags alone don't decide, as the gain depends on the version of XLA and on the size of the products. A measurement
    alone would cost every processor half a second, and a busy one could measure a gain that it doesn't have. So only a
    processor with the flags is measured. The ratio is kept, so a machine gives one answer.

    Several processes compute in float32, because they must agree. So does a jax that was set to the highest precision
    of products.
    """
    asked = jax.config.values["jax_default_matmul_precision"]
    if asked in ("highest", "float32"):
        return False, f"jax_default_matmul_precision is {asked}"
    if jax.process_count() > 1:
        return False, "several processes on CPUs"
    processor, flags = _processor()
    if not flags & FLAGS:
        return False, "this processor doesn't multiply bfloat16 (AVX512-BF16, AMX)"
    ratio = _kept_ratio(f"{processor}, jax {jax.__version__}, width {width}", width)
    return ratio <= PAYS, f"a bfloat16 product takes {ratio:.2f} of a float32 one on this processor"


def _processor() -> tuple[str, set[str]]:
    """The name and the flags of the first processor; none where Linux doesn't tell them."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in CPU_INFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    return fields.get("model name", "unknown"), set(fields.get("flags", "").split())


def _kept_ratio(key: str, width: int) -> float:
    """The ratio of an earlier measurement, or of one now, which is kept if the folder can be written to."""
    path = cache.folder() / FILE
    stored = {}
    with contextlib.suppress(UserError):
        stored = read_object(path)
    ratio = stored.get(key)
    if type(ratio) is float and ratio > 0:
        return ratio
    ratio = measure(width)
    with contextlib.suppress(UserError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, stored | {key: ratio})
    return ratio


def measure(width: int) -> float:
    """The time of a bfloat16 product with a float32 result, of that of the float32 one: the shortest of turns."""
    shortest = {}
    multiply = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    for _ in range(TURNS + 1):  # the first compiles
        for dtype in (jnp.float32, jnp.bfloat16):
            operands = jnp.ones((ROWS, width), dtype), jnp.ones((width, 4 * width), dtype)
            jax.block_until_ready(operands)
            start = perf_counter()
            multiply(*operands).block_until_ready()
            shortest[dtype] = min(shortest.get(dtype, float("inf")), perf_counter() - start)
    return shortest[jnp.bfloat16] / shortest[jnp.float32]
