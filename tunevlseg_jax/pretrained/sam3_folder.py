"""Hugging Face's folder of a SAM 3, read and written."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.huggingface_folder import (
    check_tokenizer,
    float_weights,
    read_preprocessor,
    save_folder,
)
from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE, WEIGHTS_FILE, Pretrained, read_tensors
from tunevlseg_jax.pretrained.rules import ConversionError
from tunevlseg_jax.pretrained.sam3_config import (
    config_from_huggingface,
    config_to_huggingface,
    preprocessor_to_huggingface,
)
from tunevlseg_jax.pretrained.sam3_tensors import sam3_rules
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, sha256

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
    try:
        config = config_from_huggingface(read_object(folder / MODEL_CONFIG_FILE), read_preprocessor(folder))
        tokenizer = Tokenizer.load(folder)
        check_tokenizer(tokenizer, config)
        if not weights:
            return Pretrained(config, {}, tokenizer, "")
        path = folder / WEIGHTS_FILE
        if not path.is_file():
            raise UserError(f"{folder} holds no weights: no {WEIGHTS_FILE}", "not-a-model")
        theirs = float_weights(detector(read_tensors(path)), ())
        ours = rules.to_ours(sam3_rules(config), theirs, weight_shapes(config))
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}", error.code) from error
    return Pretrained(config, ours, tokenizer, sha256(path))


def detector(theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of the detector by their names alone."""
    return {name.removeprefix(DETECTOR): tensor for name, tensor in theirs.items() if not name.startswith(TRACKER)}


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
