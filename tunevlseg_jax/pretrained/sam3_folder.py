"""Hugging Face's folder of a SAM 3, read and written."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.huggingface_folder import load_folder, save_folder
from tunevlseg_jax.pretrained.model import WEIGHTS_FILE, Pretrained, read_tensors
from tunevlseg_jax.pretrained.sam3_config import (
    config_from_huggingface,
    config_to_huggingface,
    preprocessor_to_huggingface,
)
from tunevlseg_jax.pretrained.sam3_tensors import sam3_rules
from tunevlseg_jax.runtime.errors import UserError

MODEL_TYPES = ("sam3", "sam3_video")
"""Values of `model_type` in config.json: the detector alone, or with the tracker of videos."""
DETECTOR = "detector_model."
TRACKER = ("tracker_model.", "tracker_neck.")
"""Prefixes of the tensors of a checkpoint that holds both."""


def load(folder: Path, *, weights: bool = True) -> Pretrained:
    """A SAM 3 from Hugging Face's folder; the tracker's tensors are left out.

    Args:
      folder: with config.json, model.safetensors, a tokenizer, and possibly preprocessor_config.json.
      weights: False reads no weights.

    Raises:
      UserError: a file is missing or broken, or the tensors don't fit the configuration.
    """
    return load_folder(folder, config_from_huggingface, sam3_rules, _tensors, weights=weights)


def _tensors(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The file of weights, and the detector's tensors by their names alone."""
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{folder} holds no weights: no {WEIGHTS_FILE}", "not-a-model")
    tensors = read_tensors(path).items()
    return path, {name.removeprefix(DETECTOR): tensor for name, tensor in tensors if not name.startswith(TRACKER)}


def save(folder: Path, model: Pretrained, source: Mapping[str, str], dtype: str = "float32") -> None:
    """Writes a folder that transformers reads, the configuration last; arguments as in `save_pretrained`."""
    sizes = sam3_config(model)
    config, preprocessor = config_to_huggingface(sizes), preprocessor_to_huggingface(sizes)
    theirs = rules.to_theirs(sam3_rules(sizes), model.weights)
    save_folder(folder, model, theirs, config, preprocessor, source, dtype)


def sam3_config(model: Pretrained) -> SAM3Config:
    """The sizes of a SAM 3; a UserError for any other model."""
    if not isinstance(model.config, SAM3Config):
        raise UserError(f"the model must be a SAM 3, got {type(model.config).__name__}", "wrong-model")
    return model.config
