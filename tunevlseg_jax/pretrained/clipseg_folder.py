"""Hugging Face's folder of a CLIPSeg, read and written."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from tunevlseg_jax.models.catalogue import CLIPSegConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clipseg_config import (
    config_from_huggingface,
    config_to_huggingface,
    preprocessor_to_huggingface,
)
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.pretrained.huggingface_folder import load_folder, save_folder
from tunevlseg_jax.pretrained.model import (
    PICKLED_FILE,
    WEIGHTS_FILE,
    Pretrained,
    read_tensors,
)
from tunevlseg_jax.runtime.errors import UserError

Unpickle = Callable[[Path], dict[str, np.ndarray]]
"""Reads the tensors of a pickled file, as `conversion.torch_files.unpickled` does."""
BUFFERS = ("clip.text_model.embeddings.position_ids", "clip.vision_model.embeddings.position_ids")
"""Tensors of old checkpoints that hold 0, 1, 2, ..., not weights."""


def load(folder: Path, *, weights: bool = True, unpickle: Unpickle | None = None) -> Pretrained:
    """A CLIPSeg from Hugging Face's folder.

    Args:
      folder: with config.json, model.safetensors or pytorch_model.bin, a tokenizer, and possibly
        preprocessor_config.json.
      weights: False reads no weights.
      unpickle: reads pytorch_model.bin; None refuses such a file.

    Raises:
      UserError: a file is missing or broken, or the tensors don't fit the configuration.
    """
    tensors = partial(_tensors, unpickle=unpickle)
    return load_folder(folder, config_from_huggingface, clipseg_rules, tensors, BUFFERS, weights=weights)


def save(folder: Path, model: Pretrained, source: Mapping[str, str], dtype: str = "float32") -> None:
    """Writes a folder that transformers reads, the configuration last; arguments as in `save_pretrained`."""
    sizes = clipseg_config(model)
    theirs = rules.to_theirs(clipseg_rules(sizes), model.weights)
    config, preprocessor = config_to_huggingface(sizes), preprocessor_to_huggingface(sizes)
    save_folder(folder, model, theirs, config, preprocessor, source, dtype)


def clipseg_config(model: Pretrained) -> CLIPSegConfig:
    """The sizes of a CLIPSeg; a UserError for any other model."""
    if not isinstance(model.config, CLIPSegConfig):
        raise UserError(f"the model must be a CLIPSeg, got {type(model.config).__name__}", "wrong-model")
    return model.config


def _tensors(folder: Path, unpickle: Unpickle | None) -> tuple[Path, dict[str, np.ndarray]]:
    """The file of weights, and its tensors."""
    safe, pickled = folder / WEIGHTS_FILE, folder / PICKLED_FILE
    if safe.is_file():
        return safe, read_tensors(safe)
    if pickled.is_file():
        if unpickle is None:
            raise UserError(
                f"{pickled} is pickled; convert it: python -m conversion.clipseg --checkpoint {folder} --output FOLDER",
                "pickled-weights",
            )
        return pickled, unpickle(pickled)
    raise UserError(f"{folder} holds no weights: neither {WEIGHTS_FILE} nor {PICKLED_FILE}", "not-a-model")
