"""What the folders of every Hugging Face model have in common, read and written."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.catalogue import AnyModelConfig
from tunevlseg_jax.models.clip import LEGACY_END_TOKEN
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.huggingface_config import PREPROCESSOR
from tunevlseg_jax.pretrained.model import FLOATS, MODEL_CONFIG_FILE, WEIGHTS_FILE, Pretrained, write_tensors
from tunevlseg_jax.pretrained.rules import ConversionError, Rule
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runtime.files import read_object, sha256, write_json

C = TypeVar("C", bound=AnyModelConfig)

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"


def load_folder(
    folder: Path,
    config_of: Callable[[dict[str, Any], dict[str, Any] | None], C],
    rules_of: Callable[[C], list[Rule]],
    tensors: Callable[[Path], tuple[Path, Mapping[str, np.ndarray]]],
    buffers: Sequence[str] = (),
    *,
    weights: bool,
) -> Pretrained:
    """A model from Hugging Face's folder.

    Args:
      folder: with config.json, weights, a tokenizer, and possibly the settings of preprocessing.
      config_of: our configuration from theirs and from these settings.
      rules_of: a rule for each of our tensors.
      tensors: the folder's file of weights, and its tensors.
      buffers: names of tensors that are no weights, see `float_weights`.
      weights: False reads no weights.

    Raises:
      UserError: a file is missing or broken, or the tensors don't fit the configuration.
    """
    try:
        config = config_of(read_object(folder / MODEL_CONFIG_FILE), read_preprocessor(folder))
        tokenizer = Tokenizer.load(folder)
        check_tokenizer(tokenizer, config)
        if not weights:
            return Pretrained(config, {}, tokenizer, "")
        path, theirs = tensors(folder)
        ours = rules.to_ours(rules_of(config), float_weights(theirs, buffers), weight_shapes(config))
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}", error.code) from error
    return Pretrained(config, ours, tokenizer, sha256(path))


def save_folder(
    folder: Path,
    model: Pretrained,
    theirs: Mapping[str, np.ndarray],
    config: dict[str, Any],
    preprocessor: dict[str, Any],
    source: Mapping[str, str],
    dtype: str,
) -> None:
    """Writes a folder that transformers reads, the configuration last.

    Args:
      folder: to write.
      model: of which the tokenizer is written.
      theirs: tensors by transformers' names.
      config: content of config.json, with a `text_config`.
      preprocessor: content of preprocessor_config.json.
      source: origin of the weights, for the reader of config.json.
      dtype: of the stored weights.
    """
    start, end = model.tokenizer.table([""], 3)[0].tolist()
    text = config["text_config"] | {"bos_token_id": start, "pad_token_id": end}
    special = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    settings = {name: model.tokenizer.backend.id_to_token(number) for name, number in special.items()}
    model.tokenizer.save(folder)
    # This class uses tokenizer.json as it is; CLIPTokenizer builds another tokenizer from the vocabulary.
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.config.text.context_length}
    write_json(folder / TOKENIZER_CONFIG_FILE, settings)
    write_json(folder / PREPROCESSOR, preprocessor)
    tensors = {name: tensor.astype(dtype) for name, tensor in theirs.items()}
    write_tensors(folder / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
    write_json(folder / MODEL_CONFIG_FILE, config | {"text_config": text, "dtype": dtype, "source": dict(source)})


def read_preprocessor(folder: Path) -> dict[str, Any] | None:
    """The settings of preprocessing, which transformers 5 may write as a part of processor_config.json."""
    if (folder / PREPROCESSOR).is_file():
        return read_object(folder / PREPROCESSOR)
    if (folder / "processor_config.json").is_file():
        part = read_object(folder / "processor_config.json").get("image_processor")
        return part if isinstance(part, dict) else None
    return None


def float_weights(theirs: Mapping[str, np.ndarray], buffers: Sequence[str]) -> dict[str, np.ndarray]:
    """The weights as float32; `buffers` names tensors that hold 0, 1, 2, ... and are left out."""
    for name in buffers:
        if name in theirs and not np.array_equal(theirs[name].ravel(), np.arange(theirs[name].size)):
            raise ConversionError(f"{name} must be 0, 1, 2, ...: this model has no other positions", "wrong-weights")
    weights = {name: tensor for name, tensor in theirs.items() if name not in buffers}
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
