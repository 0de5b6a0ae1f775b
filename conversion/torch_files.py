"""Tensors of the files that torch writes; code that a file carries is never run."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from conversion.clipseg_folder import import_torch
from conversion.rules import SHOWN, ConversionError
from tunevlseg_jax import pretrained
from tunevlseg_jax.errors import UserError

FLOATS = ("float32", "float16", "bfloat16")
COUNTERS = "num_batches_tracked"
"""What each BatchNorm holds beside its statistics; nothing reads it."""


def state_dict(path: Path) -> dict[str, np.ndarray]:
    """The float tensors of a checkpoint, as float32.

    Args:
      path: a file that torch.save wrote, of a state dict, bare or under "state_dict", names with or without "module.";
        or a TorchScript archive; or a safetensors file.

    Raises:
      UserError: there is no such file, it is broken, or it holds more than tensors and plain values.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a file of weights")
    if not path.is_file():
        raise UserError(f"there is no {path}")
    if path.suffix == ".safetensors":
        tensors: Mapping[str, Any] = pretrained.read_tensors(path)
    else:
        tensors = _from_torch(path)
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTERS)}
    kinds = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    others = [f"{name} ({kind})" for name, kind in kinds.items() if kind not in FLOATS]
    if others:
        raise ConversionError(f"{path}: {', '.join(others[:SHOWN])}: weights are {', '.join(FLOATS)}")
    return {name: _float32(tensor) for name, tensor in tensors.items()}


def _from_torch(path: Path) -> dict[str, Any]:
    """Tensors by name, as torch's."""
    torch = import_torch(path.name)
    try:
        with warnings.catch_warnings(action="ignore"):  # one line is enough, and the error is that line
            if _is_torchscript(path):
                # TorchScript's reader makes TorchScript's own types alone, and no method is called.
                loaded = dict(torch.jit.load(path, map_location="cpu").state_dict())
                return {name: tensor for name, tensor in loaded.items() if tensor.ndim or tensor.is_floating_point()}
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        refused = "unsupported global" in str(error).lower()
        told = "it holds pickled code beside tensors, which isn't run" if refused else "it is broken"
        raise UserError(f"can't read {path}: {told}") from error
    except Exception as error:  # each way in which a file is broken has its own class
        raise UserError(f"can't read {path}: it is cut short or no file of torch's ({type(error).__name__})") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(x, torch.Tensor) for x in loaded.values()):
        raise UserError(f"{path} is no dictionary of tensors, bare or under 'state_dict'")
    return loaded


def _is_torchscript(path: Path) -> bool:
    """Whether it is a program with its weights, as OpenAI publishes CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[-1] == "constants.pkl" for name in archive.namelist())


def _float32(tensor: Any) -> np.ndarray:
    """A tensor of numpy's or torch's as numpy's float32."""
    return tensor.astype(np.float32) if isinstance(tensor, np.ndarray) else tensor.float().numpy()
