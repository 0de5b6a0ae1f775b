"""A pretrained model in memory, and the files that its folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tunevlseg_jax.models import AnyModelConfig
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file

MODEL_CONFIG_FILE = "config.json"


WEIGHTS_FILE = "model.safetensors"


FLOATS = ("float32", "float16", "bfloat16")
"""Types that stored weights may have."""
PICKLED_FILE = "pytorch_model.bin"
"""What a Hugging Face folder may hold instead."""


@dataclass(frozen=True)
class Pretrained:
    """A model in memory.

    Attributes:
      config: its sizes.
      weights: float32 by path, see `network`; empty where only the configuration was asked for.
      tokenizer: its tokenizer.
      sha256: of the weights file that they came from, "" for fresh weights.
    """

    config: AnyModelConfig
    weights: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    sha256: str


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a safetensors file.

    Raises:
      UserError: there is no such file, or it is broken.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}", "no-such-file") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"can't read {path}: {error}", "unreadable") from error


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, whole or not at all."""
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in sorted(tensors.items())}
    with atomic_file(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error


def check_shapes(tensors: Mapping[str, np.ndarray], config: AnyModelConfig, path: Path) -> None:
    """Raises a UserError that lists names unless `tensors` are exactly the weights that `config` asks for."""
    try:
        expected = weight_shapes(config)
    except ValueError as error:  # sizes that don't go together
        raise UserError(f"{path}: {error}", "wrong-weights") from error
    found = {name: tensor.shape for name, tensor in tensors.items()}
    problems = {
        "lacks": sorted(set(expected) - set(found)),
        "has unknown": sorted(set(found) - set(expected)),
        "has another shape of": sorted(
            name for name in set(found) & set(expected) if tuple(found[name]) != expected[name]
        ),
    }
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            raise UserError(f"{path} {problem} {', '.join(names[:8])}{more}", "wrong-weights")
