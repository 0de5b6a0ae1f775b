"""Converts CLIPSeg: `python -m conversion.clipseg --checkpoint CIDAS/clipseg-rd64 --output checkpoints/rd64`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conversion import output
from conversion.comparison import PHRASES, compare
from conversion.output import Precision
from conversion.torch_files import unpickled
from tunevlseg_jax import cli
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained import clipseg_folder
from tunevlseg_jax.pretrained.clipseg_config import config_from_huggingface
from tunevlseg_jax.pretrained.clipseg_folder import clipseg_config, load
from tunevlseg_jax.pretrained.clipseg_tensors import clipseg_rules
from tunevlseg_jax.pretrained.huggingface_config import PREPROCESSOR
from tunevlseg_jax.pretrained.huggingface_folder import TOKENIZER_CONFIG_FILE
from tunevlseg_jax.pretrained.load import find_checkpoint, load_pretrained, save_pretrained
from tunevlseg_jax.pretrained.model import MODEL_CONFIG_FILE, Pretrained
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.runtime.optional import import_torch

__all__ = ["clipseg_rules", "config_from_huggingface", "load"]


@dataclass(frozen=True)
class Options:
    """The model to convert, and the folder to write.

    Attributes:
      checkpoint: Hugging Face folder or hub id of a CLIPSeg, or a model folder of ours.
      output: folder to write; it must be empty, or hold a model that this command wrote, which is replaced.
      dtype: type of the stored weights.
      verify: whether to compare the logits with those of transformers' CLIPSeg first; it needs torch.
      to_huggingface: whether to write a folder for transformers instead of ours.
    """

    checkpoint: str
    output: str
    dtype: Precision = "float32"
    verify: bool = False
    to_huggingface: bool = False


def main() -> None:
    """Converts, and prints a line that describes the result."""
    options = cli.options(Options, "python -m conversion.clipseg", __doc__ or "")
    folder = Path(options.output)
    output.check(folder)
    model, huggingface = _read(options.checkpoint)
    clipseg_config(model)  # before anything is written
    if options.verify:
        print(verify(model, huggingface))
    source = {"made by": "conversion.clipseg", "checkpoint": output.portable(options.checkpoint)}
    source["sha256"] = model.sha256
    save = clipseg_folder.save if options.to_huggingface else save_pretrained
    print(output.write(folder, model, source, options.dtype, save))
    if not options.to_huggingface:  # files that an earlier --to-huggingface left
        for name in (PREPROCESSOR, TOKENIZER_CONFIG_FILE):
            (folder / name).unlink(missing_ok=True)


def verify(model: Pretrained, huggingface: Path | None) -> str:
    """Compares logits with transformers' on one random image and two prompts.

    Ours are in float32 and theirs in float64, so the difference is the rounding of ours alone.

    Args:
      model: ours.
      huggingface: the folder that the model was read from; None to write one from `model`.

    Returns:
      A line with the largest difference.

    Raises:
      UserError: the logits differ, see `compare`, or torch is missing.
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
    return compare("transformers' logits", ours, theirs)


def _our_logits(model: Pretrained, images: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    import jax
    import jax.numpy as jnp

    from tunevlseg_jax.learners.contract import ZeroShot
    from tunevlseg_jax.network import Network

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
    """The model that the option names, and its folder if it is Hugging Face's."""
    folder = find_checkpoint(checkpoint)
    model = load_pretrained(str(folder), unpickle=unpickled)
    return model, folder if "model_type" in read_object(folder / MODEL_CONFIG_FILE) else None


if __name__ == "__main__":
    cli.run(main)
