"""A pretrained model in memory, and the files that its folder holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.catalogue import AnyModelConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import atomic_file

MODEL_CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FLOATS = ("float32", "float16", "bfloat16")
"""Types that stored weights may have."""
PICKLED_FILE = "pytorch_model.bin"
"""The file of weights in an old Hugging Face folder."""


@dataclass(frozen=True)
class Pretrained:
    """A model in memory.

    Attributes:
      config: sizes.
      weights: float32 by path, see `network`; empty if only the configuration was loaded.
      tokenizer: of its phrases.
      sha256: of the weights file, "" for fresh weights.
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
        raise UserError(f"can't read {path}: {error}; copy it again, or convert it again", "unreadable") from error


def tensor_names(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file that `read_tensors` reads, without reading them."""
    with safe_open(path, framework="np") as file:
        return list(file.keys())


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file, whole or not at all."""
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in sorted(tensors.items())}
    with atomic_file(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=dict(metadata) if metadata else None)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error


def check_shapes(tensors: Mapping[str, np.ndarray], config: AnyModelConfig, path: Path) -> None:
    """Raises a UserError with the names of the wrong tensors unless they are exactly the weights of `config`."""
    try:
        expected = weight_shapes(config)
    except ValueError as error:  # sizes that don't go together
        raise UserError(f"{path}: {error}", "wrong-weights") from error
    common = expected.keys() & tensors.keys()
    problems = {
        "lacks": sorted(expected.keys() - common),
        "has unknown": sorted(tensors.keys() - common),
        "has another shape of": sorted(name for name in common if tensors[name].shape != expected[name]),
    }
    for problem, names in problems.items():
        if names:
            raise UserError(f"{path} {problem} {rules.some(names)}", "wrong-weights")
