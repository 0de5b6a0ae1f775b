"""Hugging Face's folder of a CLIPSeg, read and written."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.models import AnyModelConfig, CLIPSegConfig
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clip import LEGACY_END_TOKEN
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.clipseg_config import (
    PREPROCESSOR,
    config_from_huggingface,
    config_to_huggingface,
    preprocessor_to_huggingface,
)
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.pretrained.model import (
    FLOATS,
    MODEL_CONFIG_FILE,
    PICKLED_FILE,
    WEIGHTS_FILE,
    Pretrained,
    read_tensors,
    write_tensors,
)
from tunevlseg_jax.pretrained.rules import ConversionError
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, sha256, write_json

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
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
    try:
        config = config_from_huggingface(read_object(folder / MODEL_CONFIG_FILE), _preprocessor(folder))
        tokenizer = Tokenizer.load(folder)
        check_tokenizer(tokenizer, config)
        if not weights:
            return Pretrained(config, {}, tokenizer, "")
        path, theirs = _tensors(folder, unpickle)
        ours = rules.to_ours(clipseg_rules(config), _weights(theirs), weight_shapes(config))
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}", error.code) from error
    return Pretrained(config, ours, tokenizer, sha256(path))


def save(folder: Path, model: Pretrained, source: Mapping[str, str], dtype: str = "float32") -> None:
    """Writes a folder that transformers reads, the configuration last; arguments as in `save_pretrained`."""
    sizes = clipseg_config(model)
    theirs = rules.to_theirs(clipseg_rules(sizes), model.weights)
    start, end = model.tokenizer.table([""], 3)[0].tolist()
    config = config_to_huggingface(sizes)
    config["text_config"] |= {"bos_token_id": start, "pad_token_id": end}
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    settings = {name: model.tokenizer.backend.id_to_token(number) for name, number in special.items()}
    model.tokenizer.save(folder)
    # This class uses tokenizer.json as it is; CLIPTokenizer builds another tokenizer from the vocabulary.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": sizes.text.context_length}
    write_json(folder / TOKENIZER_CONFIG_FILE, settings)
    write_json(folder / PREPROCESSOR, preprocessor_to_huggingface(sizes))
    tensors = {name: tensor.astype(dtype) for name, tensor in theirs.items()}
    write_tensors(folder / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
    write_json(folder / MODEL_CONFIG_FILE, config | {"dtype": dtype, "source": dict(source)})


def clipseg_config(model: Pretrained) -> CLIPSegConfig:
    """The sizes of a CLIPSeg; a UserError for any other model."""
    if not isinstance(model.config, CLIPSegConfig):
        raise UserError(f"the model must be a CLIPSeg, got {type(model.config).__name__}", "wrong-model")
    return model.config


def _preprocessor(folder: Path) -> dict[str, Any] | None:
    """The settings of preprocessing, which transformers 5 may write as a part of processor_config.json."""
    if (folder / PREPROCESSOR).is_file():
        return read_object(folder / PREPROCESSOR)
    if (folder / "processor_config.json").is_file():
        part = read_object(folder / "processor_config.json").get("image_processor")
        return part if isinstance(part, dict) else None
    return None


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


def _weights(theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights as float32, after a check of the other tensors."""
    for name in BUFFERS:
        if name in theirs and not np.array_equal(theirs[name].ravel(), np.arange(theirs[name].size)):
            raise ConversionError(f"{name} must be 0, 1, 2, ...: this model has no other positions", "wrong-weights")
    weights = {name: tensor for name, tensor in theirs.items() if name not in BUFFERS}
    others = [f"{name} ({tensor.dtype})" for name, tensor in weights.items() if tensor.dtype.name not in FLOATS]
    if others:
        raise ConversionError(f"{', '.join(others[: rules.SHOWN])} must be {', '.join(FLOATS)}", "wrong-weights")
    return {name: tensor.astype(np.float32) for name, tensor in weights.items()}


def check_tokenizer(tokenizer: Tokenizer, config: AnyModelConfig) -> None:
    """Raises a ConversionError if the tokenizer is another model's, which would give wrong tokens without an error."""
    size, end_token = tokenizer.backend.get_vocab_size(), config.text.end_token
    if size > config.text.vocabulary:
        raise ConversionError(f"tokenizer has {size} tokens, the model {config.text.vocabulary}", "wrong-tokenizer")
    row = tokenizer.table([""], 3, truncate=True)[0]
    if len(row) != 2 or row[-1] != (row.max() if end_token == LEGACY_END_TOKEN else end_token):
        raise ConversionError(f"an empty prompt must give start and {end_token}, got {row.tolist()}", "wrong-tokenizer")
