"""The benchmark's peer: CLIPSeg of transformers, with the same sizes and images."""

import contextlib
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.clipseg_config import config_to_huggingface
from tunevlseg_jax.runtime.optional import import_torch


def forwards(config: CLIPSegConfig, images: np.ndarray, tokens: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Functions that run the peer's forward pass once with random weights, by precision: "float32" and "autocast".

    Autocast computes in float16 on a GPU and in bfloat16 on a CPU.

    Args:
      config: sizes.
      images: (batch, height, width, 3) uint8, RGB.
      tokens: (1, length) int32; the peer encodes them for every image.
    """
    torch = import_torch("--peer transformers")
    with warnings.catch_warnings(action="ignore"):  # about options of its own configuration
        from transformers import CLIPSegConfig as TheirConfig
        from transformers import CLIPSegForImageSegmentation
        from transformers.utils import logging

        logging.set_verbosity_error()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = CLIPSegForImageSegmentation(TheirConfig(**config_to_huggingface(config))).eval()
        model.to(device)
    pixels = (images / 255 - np.asarray(config.mean)) / np.asarray(config.std)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32, device=device)
    ids = torch.tensor(np.repeat(tokens, len(images), axis=0), device=device)
    half = torch.float16 if device == "cuda" else torch.bfloat16

    def run(precision: Callable[[], Any]) -> Any:
        with torch.inference_mode(), precision():
            logits = model(input_ids=ids, pixel_values=pixels).logits
        if device == "cuda":
            torch.cuda.synchronize()
        return logits

    return {
        "float32": partial(run, contextlib.nullcontext),
        "autocast": partial(run, partial(torch.autocast, device, half)),
    }
