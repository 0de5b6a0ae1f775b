"""Converts CLIPSeg: `python -m conversion.clipseg --checkpoint CIDAS/clipseg-rd64 --output checkpoints/rd64`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from conversion import clipseg_folder, rules
from conversion.clipseg_config import PREPROCESSOR, config_from_huggingface
from conversion.clipseg_folder import TOKENIZER_CONFIG_FILE, clipseg_config, load
from conversion.clipseg_tensors import clipseg_rules
from conversion.torch_files import import_torch
from tunevlseg_jax import command, pretrained, schema
from tunevlseg_jax.errors import UserError
from tunevlseg_jax.files import filling, read_object, sha256
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained import CONFIG_FILE, Pretrained

__all__ = ["clipseg_rules", "config_from_huggingface", "load"]

PHRASES = ("a photo of a cat.", "something else")
TOLERANCE = 1e-4
"""How far logits may be from transformers', as a share of the largest."""


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
    dtype: Literal["float32", "float16"] = "float32"
    verify: bool = False
    to_huggingface: bool = False


def main() -> None:
    """Converts, and says what was written."""
    options = command.options(Options, "python -m conversion.clipseg", __doc__ or "")
    output = Path(options.output)
    check_output(output)
    model, huggingface = _read(options.checkpoint)
    clipseg_config(model)  # before anything is written
    if options.dtype == "float16":
        check_range(model.weights)
    if options.verify:
        print(verify(model, huggingface))
    source = {"made by": "conversion.clipseg", "checkpoint": portable(options.checkpoint), "sha256": model.sha256}
    save = clipseg_folder.save if options.to_huggingface else pretrained.save
    with filling(output, last=CONFIG_FILE) as folder:
        save(folder, model, source, options.dtype)
    if not options.to_huggingface:  # what an earlier --to-huggingface left
        for name in (PREPROCESSOR, TOKENIZER_CONFIG_FILE):
            (output / name).unlink(missing_ok=True)
    count, size = len(model.weights), sum(weight.size for weight in model.weights.values())
    print(f"wrote {output}: {count} tensors, {size:,} parameters, from weights with sha256 {model.sha256}")


def verify(model: Pretrained, huggingface: Path | None) -> str:
    """Compares logits with transformers' on one random image and two prompts.

    Ours are in float32 and theirs in float64, so that what differs is the rounding of ours alone.

    Args:
      model: ours.
      huggingface: the folder that it was read from; None to write one from `model`.

    Returns:
      What was found, in one line.

    Raises:
      UserError: they differ by more than `TOLERANCE` of the largest logit, or torch is missing.
    """
    import jax

    config = clipseg_config(model)
    images = np.random.default_rng(0).integers(0, 256, (1, config.image_size, config.image_size, 3), np.uint8)
    images = images.repeat(len(PHRASES), axis=0)
    tokens = model.tokenizer.table(PHRASES, config.text.context_length, truncate=True)
    with tempfile.TemporaryDirectory() as temporary:
        if huggingface is None:
            huggingface = Path(temporary)
            clipseg_folder.save(huggingface, model, {})
        theirs = _their_logits(huggingface, config, images, tokens)
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
    torch = import_torch("--verify")
    from transformers import CLIPSegForImageSegmentation
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = CLIPSegForImageSegmentation.from_pretrained(folder, dtype=torch.float64).eval()
    pixels = ((images / 255 - np.asarray(config.mean)) / np.asarray(config.std)).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(pixels)).logits
    return logits.numpy().reshape(images.shape[:3])


def _read(checkpoint: str) -> tuple[Pretrained, Path | None]:
    """The model that the option names, and its folder where that is Hugging Face's."""
    if _is_run(Path(checkpoint)):
        return _trained(Path(checkpoint)), None
    folder = pretrained.find(checkpoint)
    model = pretrained.load(str(folder))
    return model, folder if "model_type" in read_object(folder / CONFIG_FILE) else None


def _is_run(folder: Path) -> bool:
    if (folder / "card.json").is_file():  # enough, without the rest of the run
        return True
    return (folder / CONFIG_FILE).is_file() and read_object(folder / CONFIG_FILE).get(schema.CLASS) == "Config"


def _trained(run: Path) -> Pretrained:
    """The base model of a run with the weights that the run trained."""
    from tunevlseg_jax import artefacts  # slow to import, and only runs need it

    config, learnt, card = artefacts.load_learnt(run)
    beside = sorted(name for name in learnt if not name.startswith("model/"))
    if len(beside) == len(learnt):
        raise UserError(
            f"{run} trained no weights of its model, {config.model.checkpoint}: there is nothing to convert"
        )
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


def check_range(weights: Mapping[str, np.ndarray]) -> None:
    largest = np.finfo(np.float16).max
    beyond = sorted(name for name, weight in weights.items() if np.abs(weight).max() > largest)
    if beyond:
        raise UserError(f"float16 can't hold {', '.join(beyond[: rules.SHOWN])}; leave out --dtype")


def check_output(output: Path) -> None:
    """Raises a UserError where writing would destroy something else than an earlier conversion."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file, not a folder")
    if not output.exists() or not any(output.iterdir()):
        return
    config = read_object(output / CONFIG_FILE) if (output / CONFIG_FILE).is_file() else {}
    if "source" not in config or not {"model", "model_type"} & set(config):
        raise UserError(f"--output {output} is not empty, and not a model that this command wrote; choose another")


def portable(checkpoint: str) -> str:
    """The checkpoint as typed, but of an absolute path only the name, for the reader on another machine."""
    return Path(checkpoint).name if Path(checkpoint).is_absolute() else checkpoint


if __name__ == "__main__":
    command.run(main)
