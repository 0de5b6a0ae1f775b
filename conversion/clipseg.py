"""Converts CLIPSeg: `python -m conversion.clipseg --checkpoint CIDAS/clipseg-rd64 --output checkpoints/clipseg-rd64`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from conversion import rules
from conversion.clipseg_config import (
    PREPROCESSOR,
    config_from_huggingface,
    config_to_huggingface,
    preprocessor_to_huggingface,
)
from conversion.clipseg_tensors import clipseg_rules
from conversion.rules import ConversionError
from tunevlseg_jax import command, pretrained
from tunevlseg_jax.errors import UserError
from tunevlseg_jax.files import filling, read_json, sha256, write_json
from tunevlseg_jax.models.clip import LEGACY_END_TOKEN
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.network import shapes
from tunevlseg_jax.pretrained import CONFIG_FILE, PICKLED_FILE, WEIGHTS_FILE, Pretrained
from tunevlseg_jax.tokenizer import FILE as TOKENIZER_FILE
from tunevlseg_jax.tokenizer import Tokenizer

__all__ = ["clipseg_rules", "config_from_huggingface", "config_to_huggingface", "load", "save_huggingface"]

BUFFERS = ("clip.text_model.embeddings.position_ids", "clip.vision_model.embeddings.position_ids")
"""What old checkpoints hold beside weights: 0, 1, 2, ..."""
FLOATS = ("float32", "float16", "bfloat16")
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
PHRASES = ("a photo of a cat.", "something else")
TOLERANCE = 1e-4
"""How far logits may be from transformers', as a share of the largest."""

Dtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Options:
    """What to convert, and to what.

    Attributes:
      checkpoint: Hugging Face folder or hub id of a CLIPSeg, a model folder of ours, or the folder of a run that
        trained the model itself (train.tune "decoder" or "all").
      output: folder to write; it must be empty, or hold a model that this command wrote, which is replaced.
      dtype: what the weights are stored in.
      verify: whether to compare the logits with those of transformers' CLIPSeg first; it needs torch.
      to_huggingface: whether to write a folder for transformers instead of ours.
    """

    checkpoint: str
    output: str
    dtype: Dtype = "float32"
    verify: bool = False
    to_huggingface: bool = False


def main() -> None:
    """Converts, and says what was written."""
    options = command.options(Options, "python -m conversion.clipseg", __doc__ or "")
    output = Path(options.output)
    _check_output(output)
    model, huggingface = _read(options.checkpoint)
    if options.dtype == "float16":
        _check_range(model.weights)
    if options.verify:
        print(verify(model, huggingface))
    source = {"made by": "conversion.clipseg", "checkpoint": _portable(options.checkpoint), "sha256": model.sha256}
    save = save_huggingface if options.to_huggingface else pretrained.save
    with filling(output, last=CONFIG_FILE) as folder:
        save(folder, model, source, options.dtype)
    if not options.to_huggingface:  # what an earlier --to-huggingface left
        for name in (PREPROCESSOR, TOKENIZER_CONFIG_FILE):
            (output / name).unlink(missing_ok=True)
    count, size = len(model.weights), sum(weight.size for weight in model.weights.values())
    print(f"wrote {output}: {count} tensors, {size:,} parameters, from weights with sha256 {model.sha256}")


def load(folder: Path, *, weights: bool = True) -> Pretrained:
    """A CLIPSeg from Hugging Face's folder.

    Args:
      folder: with config.json, model.safetensors or pytorch_model.bin, a tokenizer, and where there is one
        preprocessor_config.json.
      weights: False leaves the weights where they are.

    Raises:
      UserError: a file is missing or broken, or holds another model than its configuration says.
    """
    try:
        config = config_from_huggingface(_object(folder / CONFIG_FILE), _preprocessor(folder))
        tokenizer = Tokenizer.load(folder)
        _check_tokenizer(tokenizer, config)
        if not weights:
            return Pretrained(config, {}, tokenizer, "")
        path, theirs = _tensors(folder)
        ours = rules.join(clipseg_rules(config), _weights(theirs), shapes(config))
    except ConversionError as error:
        raise ConversionError(f"{folder}: {error}") from error
    return Pretrained(config, ours, tokenizer, sha256(path))


def save_huggingface(folder: Path, model: Pretrained, source: Mapping[str, str], dtype: Dtype = "float32") -> None:
    """Writes a folder that transformers reads, the configuration last; arguments as in `pretrained.save`."""
    theirs = rules.part(clipseg_rules(model.config), model.weights)
    start, end = model.tokenizer.table([""], 2)[0].tolist()
    config = config_to_huggingface(model.config)
    config["text_config"] |= {"bos_token_id": start, "pad_token_id": end}
    words = {"bos_token": start, "eos_token": end, "pad_token": end, "unk_token": end}
    named = {name: model.tokenizer.backend.id_to_token(number) for name, number in words.items()}
    length = model.config.text.context_length
    model.tokenizer.backend.save(str(folder / TOKENIZER_FILE))
    # This class takes tokenizer.json as it is; CLIP's own builds another from its vocabulary.
    named |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": length}
    write_json(folder / TOKENIZER_CONFIG_FILE, named)
    write_json(folder / PREPROCESSOR, preprocessor_to_huggingface(model.config))
    tensors = {name: tensor.astype(dtype) for name, tensor in theirs.items()}
    pretrained.write_tensors(folder / WEIGHTS_FILE, tensors, metadata={"format": "pt"})
    write_json(folder / CONFIG_FILE, config | {"dtype": dtype, "source": dict(source)})


def verify(model: Pretrained, huggingface: Path | None) -> str:
    """Compares logits with transformers' on one random image and two prompts, in float32.

    Args:
      model: ours.
      huggingface: the folder that it was read from; None to write one from `model`.

    Returns:
      What was found, in one line.

    Raises:
      UserError: they differ by more than `TOLERANCE` of the largest logit, or torch is missing.
    """
    import jax

    images = np.random.default_rng(0).integers(0, 256, (1, model.config.image_size, model.config.image_size, 3))
    images = images.astype(np.uint8).repeat(len(PHRASES), axis=0)
    tokens = model.tokenizer.table(PHRASES, model.config.text.context_length, truncate=True)
    with tempfile.TemporaryDirectory() as temporary:
        if huggingface is None:
            huggingface = Path(temporary)
            save_huggingface(huggingface, model, {})
        theirs = _their_logits(huggingface, model.config, images, tokens)
    with jax.default_matmul_precision("highest"):
        ours = _our_logits(model, images, tokens)
    largest, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
    told = f"largest difference from transformers' logits {largest:.3g}, {largest / scale:.3g} of the largest logit"
    if not largest <= TOLERANCE * scale:  # NaN fails too
        raise UserError(f"{told}: more than {TOLERANCE:g}, so the conversion is wrong")
    return told


def _our_logits(model: Pretrained, images: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    import jax
    import jax.numpy as jnp

    from tunevlseg_jax.network import Network
    from tunevlseg_jax.prompts import ZeroShot

    network = Network(model.config, ZeroShot())
    params = {f"model/{path}": jnp.asarray(weight) for path, weight in model.weights.items()}
    phrase = jnp.arange(len(tokens))
    nothing = {"depth": jnp.int32(0), "dropout": jnp.float32(0)}
    return np.asarray(jax.jit(network.logits)(params, jnp.asarray(images), phrase, jnp.asarray(tokens), **nothing))


def _their_logits(folder: Path, config: CLIPSegConfig, images: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    torch = _torch("--verify")
    from transformers import CLIPSegForImageSegmentation
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = CLIPSegForImageSegmentation.from_pretrained(folder, dtype=torch.float32).eval()
    mean, std = (np.asarray(values, np.float32) for values in (config.mean, config.std))
    pixels = ((images.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(pixels)).logits
    return logits.numpy().reshape(images.shape[:3])


def _read(checkpoint: str) -> tuple[Pretrained, Path | None]:
    """The model that the option names, and its folder where that is Hugging Face's."""
    if _is_run(Path(checkpoint)):
        return _trained(Path(checkpoint)), None
    folder = pretrained.find(checkpoint)
    model = pretrained.load(str(folder))
    return model, folder if "model_type" in _object(folder / CONFIG_FILE) else None


def _is_run(folder: Path) -> bool:
    if (folder / "card.json").is_file():
        return True
    return (folder / CONFIG_FILE).is_file() and _object(folder / CONFIG_FILE).get("kind") == "Config"


def _trained(run: Path) -> Pretrained:
    """The base model of a run with the weights that the run trained."""
    from tunevlseg_jax import artefacts  # slow to import, and only runs need it

    config, learnt, card = artefacts.load_learnt(run)
    beside = sorted(name for name in learnt if not name.startswith("model/"))
    if len(beside) == len(learnt):
        raise UserError(f"{run} trained no weights of its model, {config.model.checkpoint}: there is nothing to convert")
    if beside:
        raise UserError(f"{run} trained {beside[0]} too, which no model folder can hold; only a run without can be one")
    base = pretrained.load(config.model.checkpoint, weights=not config.model.fresh)
    if base.sha256 != card["model_sha256"]:
        raise UserError(f"{config.model.checkpoint} is no longer the model that {run} was trained on")
    trained = {name.removeprefix("model/"): tensor.astype(np.float32) for name, tensor in learnt.items()}
    weights = {**base.weights, **trained}
    path = run / artefacts.LEARNT_FILE
    pretrained.check_shapes(weights, base.config, path)
    return Pretrained(base.config, weights, base.tokenizer, sha256(path))


def _preprocessor(folder: Path) -> dict[str, Any] | None:
    """What prepares images; since version 5 transformers may keep it in a part of processor_config.json."""
    if (folder / PREPROCESSOR).is_file():
        return _object(folder / PREPROCESSOR)
    if (folder / "processor_config.json").is_file():
        return _object(folder / "processor_config.json").get("image_processor")
    return None


def _tensors(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The file of weights, and its tensors."""
    safe, pickled = folder / WEIGHTS_FILE, folder / PICKLED_FILE
    if safe.is_file():
        return safe, pretrained.read_tensors(safe)
    if pickled.is_file():
        return pickled, _unpickled(pickled)
    raise UserError(f"{folder} holds no weights: neither {WEIGHTS_FILE} nor {PICKLED_FILE}")


def _unpickled(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a file that torch wrote; code in it isn't run."""
    torch = _torch(path.name)
    try:
        with warnings.catch_warnings(action="ignore"):  # one line is enough, and the error is that line
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each way in which a file is broken has its own class
        told = "it is broken, or holds pickled code beside tensors, which isn't run"
        raise UserError(f"can't read {path}: {told} ({type(error).__name__})") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"can't read {path}: it is no plain dictionary of tensors")
    return {
        str(name): (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in tensors.items()
    }


def _torch(what: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(f"{what} needs torch: install the extra `convert`, or torch itself") from error
    return torch


def _weights(theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights among tensors as float32, after checking the rest."""
    for name in BUFFERS:
        if name in theirs and not np.array_equal(theirs[name].ravel(), np.arange(theirs[name].size)):
            raise ConversionError(f"{name} is not 0, 1, 2, ...: this model doesn't know other positions")
    weights = {name: tensor for name, tensor in theirs.items() if name not in BUFFERS}
    others = [f"{name} ({tensor.dtype})" for name, tensor in weights.items() if tensor.dtype.name not in FLOATS]
    if others:
        raise ConversionError(f"{', '.join(others[: rules.SHOWN])}: weights are {', '.join(FLOATS)}")
    return {name: tensor.astype(np.float32) for name, tensor in weights.items()}


def _check_tokenizer(tokenizer: Tokenizer, config: CLIPSegConfig) -> None:
    """Raises a ConversionError where the tokenizer is another model's: the model would read it without complaint."""
    size, end_token = tokenizer.backend.get_vocab_size(), config.text.end_token
    if size > config.text.vocabulary:
        raise ConversionError(f"the tokenizer has {size} tokens, and the model embeds {config.text.vocabulary}")
    row = tokenizer.table([""], 3, truncate=True)[0]
    if len(row) != 2 or row[-1] != (row.max() if end_token == LEGACY_END_TOKEN else end_token):
        raise ConversionError(f"the tokenizer makes {row.tolist()} of an empty prompt, not start and end ({end_token})")


def _check_range(weights: Mapping[str, np.ndarray]) -> None:
    largest = np.finfo(np.float16).max
    beyond = sorted(name for name, weight in weights.items() if np.abs(weight).max() > largest)
    if beyond:
        raise UserError(f"float16 can't hold {', '.join(beyond[: rules.SHOWN])}; leave out --dtype")


def _check_output(output: Path) -> None:
    """Raises a UserError where writing would destroy something else than an earlier conversion."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file, not a folder")
    if not output.exists() or not any(output.iterdir()):
        return
    config = _object(output / CONFIG_FILE) if (output / CONFIG_FILE).is_file() else {}
    if "source" not in config or not {"model", "model_type"} & set(config):
        raise UserError(f"--output {output} is not empty, and not a model that this command wrote; choose another")


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} is no JSON object")
    return value


def _portable(checkpoint: str) -> str:
    """The checkpoint as typed, but of an absolute path only the name, for the reader on another machine."""
    return Path(checkpoint).name if Path(checkpoint).is_absolute() else checkpoint


if __name__ == "__main__":
    command.run(main)
