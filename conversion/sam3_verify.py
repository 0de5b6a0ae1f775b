"""Compares our SAM 3 with transformers'."""

import tempfile
from pathlib import Path

import jax
import numpy as np

from conversion.comparison import PHRASES, compare
from tunevlseg_jax.models.build import fill_module
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.pretrained import sam3_folder
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.sam3_folder import sam3_config
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.runtime.optional import import_torch


def verify(model: Pretrained, huggingface: Path | None) -> str:
    """Compares logits with transformers' on one random image and two prompts, at the model's image size.

    Args:
      model: ours.
      huggingface: the folder that the model was read from; None to write one from `model`.

    Returns:
      A line with the largest difference.

    Raises:
      UserError: the logits differ, see `compare`, or torch is missing.
    """
    config = sam3_config(model)
    images = np.random.default_rng(0).standard_normal((1, config.image_size, config.image_size, 3), np.float32)
    tokens = model.tokenizer.table(PHRASES, config.text.context_length, truncate=True)
    with tempfile.TemporaryDirectory() as temporary:
        if huggingface is None:
            huggingface = Path(temporary)
            sam3_folder.save(huggingface, model, {})
        theirs = _their_logits(huggingface, config, images, tokens)
    with jax.default_matmul_precision("highest"):
        ours = _our_logits(model, images, tokens)
    return compare("transformers' logits", ours, theirs)


def _our_logits(model: Pretrained, images: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    @jax.jit
    def logits(weights, images, tokens):
        sam3 = fill_module(sam3_config(model).build, weights)
        features = sam3.vision(images, Prompts()).repeat(len(tokens))
        return sam3.decode(features, sam3.text(tokens, Prompts())).logits

    return np.asarray(logits(dict(model.weights), images, tokens))


def _their_logits(folder: Path, config: SAM3Config, images: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Transformers' logits in float32, one phrase at a time: at full size float64 would need twice the memory."""
    torch = import_torch("--verify")
    from transformers import Sam3Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = Sam3Model.from_pretrained(folder, dtype=torch.float32).eval()
    ends = (tokens == config.text.end_token).argmax(axis=1)
    mask = np.arange(tokens.shape[1])[None] <= ends[:, None]
    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    rows = []
    with torch.inference_mode():
        for row, valid in zip(tokens, mask, strict=True):
            words = {"input_ids": torch.tensor(row[None]), "attention_mask": torch.tensor(valid[None]).long()}
            coarse = model(pixel_values=pixels, **words).semantic_seg
            rows.append(torch.nn.functional.interpolate(coarse, images.shape[1:3], mode="bilinear")[0, 0])
    return torch.stack(rows).numpy()
