"""The benchmark's peer: CLIPSeg of transformers, with the same sizes and images, in a process of its own."""

import contextlib
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.clipseg_config import config_to_huggingface
from tunevlseg_jax.runtime import huge_pages
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_torch

PRECISIONS = ("float32", "autocast")


@contextlib.contextmanager
def forwards(config: CLIPSegConfig, images: np.ndarray, tokens: np.ndarray) -> Iterator[dict[str, Callable[[], None]]]:
    """Functions that run the peer's forward pass once with random weights, by precision: "float32" and "autocast".

    Autocast computes in float16 on a GPU and in bfloat16 on a CPU. The peer runs as people run it: in a process without
    JAX, and without the huge pages that this package asks glibc for.

    Args:
      config: sizes.
      images: (batch, height, width, 3) uint8, RGB.
      tokens: (1, length) int32; the peer encodes them for every image.

    Raises:
      UserError: the peer's process has ended, perhaps because PyTorch isn't installed.
    """
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    environment = huge_pages.without_huge_pages(os.environ)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def ask(message: bytes) -> None:
            with contextlib.suppress(BrokenPipeError):
                requests.write(message)
                requests.flush()
            if not answers.readline():
                raise UserError("--peer transformers: its process ended; its own lines above say why", "lost-process")

        try:
            ask(pickle.dumps((config_to_huggingface(config), config.mean, config.std, images, tokens)))
            yield {precision: partial(ask, precision.encode() + b"\n") for precision in PRECISIONS}
        finally:
            with contextlib.suppress(BrokenPipeError):
                requests.close()  # which ends the process


def serve() -> None:
    """The peer's process: reads sizes, images and tokens, then the precision of each pass, from standard input.

    It answers with a line when the model is built and after each pass.
    """
    arguments = pickle.load(sys.stdin.buffer)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    try:
        passes = _passes(*arguments)
    except UserError as error:
        sys.exit(str(error))
    print("ready", file=answers, flush=True)
    for precision in sys.stdin.buffer:
        passes[precision.decode().strip()]()
        print("done", file=answers, flush=True)


def _passes(
    sizes: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...], images: np.ndarray, tokens: np.ndarray
) -> dict[str, Callable[[], None]]:
    """A forward pass in each precision, of a model of these sizes in Hugging Face's names."""
    torch = import_torch("--peer transformers")
    with warnings.catch_warnings(action="ignore"):  # about options of its own configuration
        from transformers import CLIPSegConfig as TheirConfig
        from transformers import CLIPSegForImageSegmentation
        from transformers.utils import logging

        logging.set_verbosity_error()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = CLIPSegForImageSegmentation(TheirConfig(**sizes)).eval()
        model.to(device)
    pixels = (images / 255 - np.asarray(mean)) / np.asarray(std)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32, device=device)
    ids = torch.tensor(np.repeat(tokens, len(images), axis=0), device=device)
    half = torch.float16 if device == "cuda" else torch.bfloat16

    def run(precision: Callable[[], Any]) -> None:
        with torch.inference_mode(), precision():
            model(input_ids=ids, pixel_values=pixels)
        if device == "cuda":
            torch.cuda.synchronize()

    contexts = (contextlib.nullcontext, partial(torch.autocast, device, half))
    return {name: partial(run, context) for name, context in zip(PRECISIONS, contexts, strict=True)}
