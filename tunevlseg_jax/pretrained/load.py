"""Model folders: the frozen weights, their configuration and their tokenizer, ours or Hugging Face's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from tunevlseg_jax.models.catalogue import AnyModelConfig
from tunevlseg_jax.pretrained import clipseg_folder, sam3_earlier, sam3_folder
from tunevlseg_jax.pretrained.clipseg_folder import Unpickle
from tunevlseg_jax.pretrained.model import (
    MODEL_CONFIG_FILE,
    PICKLED_FILE,
    WEIGHTS_FILE,
    Pretrained,
    check_shapes,
    read_tensors,
    write_tensors,
)
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object, sha256, write_json

EMBEDDED = Path(__file__).parents[1] / "embedded"
"""Folder of the models that come with the package."""
MODEL_TYPES = ("clipseg", *sam3_folder.MODEL_TYPES)
"""The values of `model_type` in the config.json of a Hugging Face folder that can be loaded."""


def find_checkpoint(checkpoint: str) -> Path:
    """The folder of a model: an embedded model by name, a folder, or a hub id, which is downloaded.

    Raises:
      UserError: there is no such model.
    """
    folder = local_folder(checkpoint)
    if folder is not None:
        return folder
    if Path(checkpoint).exists() or checkpoint.count("/") != 1 or checkpoint.startswith((".", "/", "~")):
        embedded = ", ".join(sorted(path.name for path in EMBEDDED.iterdir()))
        raise UserError(
            f"no model at {checkpoint!r}: it is no folder with a {MODEL_CONFIG_FILE}, no hub id (owner/name), and not "
            f"one of the embedded models ({embedded})",
            "no-such-model",
        )
    return _from_hub(checkpoint)


def local_folder(checkpoint: str) -> Path | None:
    """The folder of a model on this machine, or None."""
    folders = (Path(checkpoint), EMBEDDED / checkpoint)
    return next((folder for folder in folders if (folder / MODEL_CONFIG_FILE).is_file()), None)


def load_pretrained(checkpoint: str, *, weights: bool = True, unpickle: Unpickle | None = None) -> Pretrained:
    """Loads a model from our folder, from Hugging Face's, or from the hub.

    Args:
      checkpoint: see `find_checkpoint`.
      weights: False reads no weights, for a model to be trained from scratch.
      unpickle: reads a Hugging Face folder's pytorch_model.bin; None refuses such a file.

    Raises:
      UserError: there is no such model, or its tensors don't fit its configuration.
    """
    folder = find_checkpoint(checkpoint)
    data = read_object(folder / MODEL_CONFIG_FILE)
    if "model_type" in data:
        if data["model_type"] not in MODEL_TYPES:
            known = ", ".join(map(repr, MODEL_TYPES))
            raise UserError(f"{folder}: model_type must be {known}, got {data['model_type']!r}", "unknown-model-type")
        if data["model_type"] in sam3_folder.MODEL_TYPES:
            return sam3_folder.load(folder, weights=weights)
        return clipseg_folder.load(folder, weights=weights, unpickle=unpickle)
    config = _config(data, folder)
    tokenizer = Tokenizer.load(folder)
    if not weights:
        return Pretrained(config, {}, tokenizer, "")
    path = folder / WEIGHTS_FILE
    tensors = sam3_earlier.present_paths(read_tensors(path))
    check_shapes(tensors, config, path)
    full = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    return Pretrained(config, full, tokenizer, sha256(path))


def _config(data: Mapping[str, Any], folder: Path) -> AnyModelConfig:
    if data.get(schema.CLASS) == "Config":
        raise UserError(f"{folder} is a run, not a model; conversion.run converts a trained one", "not-a-model")
    if "model" not in data:
        raise UserError(f"{folder / MODEL_CONFIG_FILE} has neither 'model' nor 'model_type'", "not-a-model")
    kinds = cast(type[AnyModelConfig], AnyModelConfig)  # a union of classes is no class to a type checker
    return schema.from_json(kinds, sam3_earlier.present_sizes(data["model"]), str(folder / MODEL_CONFIG_FILE))


def save_pretrained(folder: Path, model: Pretrained, source: Mapping[str, str], dtype: str = "float32") -> None:
    """Writes a model folder, the configuration last: a folder with a configuration is complete.

    Args:
      folder: to write, new or existing.
      model: to write.
      source: origin of the weights, for the reader of config.json.
      dtype: "float32" or "float16", of the weights in the file.
    """
    model.tokenizer.save(folder)
    if model.weights:
        write_tensors(folder / WEIGHTS_FILE, {name: array.astype(dtype) for name, array in model.weights.items()})
    write_json(folder / MODEL_CONFIG_FILE, {"model": schema.to_json(model.config), "source": dict(source)})


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", "merges.txt", WEIGHTS_FILE]))
        if not (folder / WEIGHTS_FILE).is_file():
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "merges.txt", PICKLED_FILE]))
    except GatedRepoError as error:
        raise UserError(
            f"{name!r} is gated: accept its terms at https://huggingface.co/{name}, then log in with `hf auth login`; "
            "or give the folder of a copy that you have",
            "gated-model",
        ) from error
    except Exception as error:  # there is a class for each kind of failure
        reason = (str(error) or type(error).__name__).splitlines()[0]
        unread = f"the Hugging Face hub could not be read ({reason.removeprefix('Got: ')})"
        hub = (
            "the Hugging Face hub has no such model, or it is private"
            if isinstance(error, RepositoryNotFoundError)
            else unread
        )
        hint = "give a folder that `python -m conversion.clipseg`, `cris` or `sam3` wrote"
        raise UserError(f"there is no folder {name!r}, and {hub}; {hint}", "no-such-model") from error
    if not (folder / MODEL_CONFIG_FILE).is_file():
        raise UserError(f"{name!r} on the Hugging Face hub has no {MODEL_CONFIG_FILE}", "no-such-model")
    return folder
