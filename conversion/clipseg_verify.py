"""Compares our CLIPSeg with transformers'."""

from pathlib import Path

import jax
import numpy as np

from conversion import huggingface
from conversion.huggingface import Arrays
from tunevlseg_jax.models.build import fill_module
from tunevlseg_jax.pretrained import clipseg_folder
from tunevlseg_jax.pretrained.clipseg_folder import clipseg_config
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.runtime.optional import import_torch


def verify(model: Pretrained, folder: Path | None) -> str:
    """Compares logits with transformers', see `compare_outputs`.

    Ours are in float32 and theirs in float64, so the difference is the rounding of ours alone.
    """
    return huggingface.compare_outputs(model, folder, clipseg_folder.save, _ours, _theirs)


def _ours(model: Pretrained, image: np.ndarray, tokens: np.ndarray) -> Arrays:
    @jax.jit
    def logits(weights, image, tokens):
        clipseg = fill_module(clipseg_config(model).build, weights)
        features = clipseg.vision(image, Prompts()).repeat(len(tokens))
        return clipseg.decode(features, clipseg.text(tokens, Prompts())).logits

    return {"logits": np.asarray(logits(dict(model.weights), image, tokens))}


def _theirs(folder: Path, image: np.ndarray, tokens: np.ndarray) -> Arrays:
    torch = import_torch("--verify")
    from transformers import CLIPSegForImageSegmentation
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = CLIPSegForImageSegmentation.from_pretrained(folder, dtype=torch.float64).eval()
    pixels = torch.tensor(image.transpose(0, 3, 1, 2)).double().expand(len(tokens), -1, -1, -1)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor(tokens), pixel_values=pixels).logits
    return {"logits": logits.numpy().reshape(len(tokens), *image.shape[1:3])}
