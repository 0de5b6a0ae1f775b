"""Compares our CLIPSeg with transformers'."""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from conversion.comparison import PHRASES, compare
from tunevlseg_jax.learners.contract import ZeroShot
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.network import Network
from tunevlseg_jax.pretrained import clipseg_folder
from tunevlseg_jax.pretrained.clipseg_folder import clipseg_config
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.runtime.optional import import_torch


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
