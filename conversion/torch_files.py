"""Reads the tensors of files that torch wrote, without running any code in them."""

import re
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from tunevlseg_jax.pretrained.model import FLOATS, read_tensors
from tunevlseg_jax.pretrained.rules import SHOWN, ConversionError
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_torch

COUNTERS = "num_batches_tracked"
"""A tensor of each torch BatchNorm that nothing reads."""
COPY = "download or copy it again"


def state_dict(path: Path) -> dict[str, np.ndarray]:
    """The float tensors of a checkpoint, as float32.

    Args:
      path: a file that torch.save wrote, of a state dict, bare or under "state_dict", names with or without "module.";
        or a TorchScript archive; or a safetensors file.

    Raises:
      UserError: the file is missing, broken, or holds more than tensors and plain values.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file of weights in it", "not-a-file")
    if not path.is_file():
        raise UserError(f"there is no {path}; give the file of a trained model", "no-such-file")
    tensors = read_tensors(path) if path.suffix == ".safetensors" else unpickled(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(COUNTERS)}
    others = [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype.name not in FLOATS]
    if others:
        raise ConversionError(f"{path}: {', '.join(others[:SHOWN])} must be {', '.join(FLOATS)}", "wrong-weights")
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def unpickled(path: Path) -> dict[str, np.ndarray]:
    """Every tensor of a file that torch wrote, by name; bfloat16 as float32, which numpy lacks.

    Raises:
      UserError: it is broken, or holds more than tensors and plain values.
    """
    torch = import_torch(path.name)
    try:
        with warnings.catch_warnings(action="ignore"):  # the error says it in one line
            if _is_torchscript(path):
                # This reader builds only TorchScript's types, and no method is called.
                loaded = dict(torch.jit.load(path, map_location="cpu").state_dict())
                loaded = {name: tensor for name, tensor in loaded.items() if tensor.ndim or tensor.is_floating_point()}
            else:
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(f"can't read {path}: {_refusal(str(error))}", "unreadable") from error
    except Exception as error:  # there is a class for each kind of damage
        reason = f"cut off or not torch's ({type(error).__name__}); {COPY}"
        raise UserError(f"can't read {path}: {reason}", "unreadable") from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(x, torch.Tensor) for x in loaded.values()):
        reason = "it is no dictionary of tensors, bare or under 'state_dict'; give the file of a trained model"
        raise UserError(f"can't read {path}: {reason}", "unreadable")
    try:
        return {
            str(name): (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
            for name, tensor in loaded.items()
        }
    except (RuntimeError, TypeError) as error:  # a type that numpy lacks
        raise UserError(f"can't read {path}: {str(error).splitlines()[0]}; save it as float32", "unreadable") from error


def _refusal(message: str) -> str:
    """The problem of a pickle that torch refused, from torch's message."""
    name = re.search(r"unsupported global:? (?:GLOBAL )?([\w.]+\w)", message, re.IGNORECASE)
    if name is None:
        return f"it is broken, or no file of weights; {COPY}"
    return (
        f"it holds pickled code beside tensors, which isn't run ({name[1]}); if you trust the file, load it with "
        "torch.load(..., weights_only=False) where it was made, and torch.save its state_dict alone"
    )


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript program with its weights, as OpenAI publishes CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[-1] == "constants.pkl" for name in archive.namelist())
