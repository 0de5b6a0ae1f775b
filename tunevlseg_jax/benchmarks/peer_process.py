"""The process of the benchmark's peer: CLIPSeg of transformers, its forward pass and its training step in PyTorch."""

import contextlib
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.optional import import_torch

PRECISIONS = ("float32", "autocast")
"""Autocast computes in float16 on a GPU and in bfloat16 on a CPU."""


@dataclass(frozen=True)
class Learnt:
    """The prompts that the peer's training step learns.

    Attributes:
      tower: that takes them.
      number: of tokens in a block.
      depth: number of the first blocks, each of which has prompts of its own.
    """

    tower: Literal["text", "vision"]
    number: int
    depth: int


def serve() -> None:
    """Reads the arguments of `_passes`, then the names of passes, from standard input, and runs them.

    It answers with a line when the model is built and after each pass.
    """
    arguments = pickle.load(sys.stdin.buffer)
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    try:
        passes = _passes(*arguments)
    except UserError as error:
        sys.exit(str(error))
    print("ready", file=answers, flush=True)
    for name in sys.stdin.buffer:
        passes[name.decode().strip()]()
        print("done", file=answers, flush=True)


def _passes(
    sizes: dict[str, Any],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    images: np.ndarray,
    tokens: np.ndarray,
    learnt: Learnt | None,
) -> dict[str, Callable[[], None]]:
    """The forward pass in each precision and, with `learnt`, the training step, of a model of these sizes.

    Args:
      sizes: in Hugging Face's names.
      mean: of a pixel's colours.
      std: of a pixel's colours.
      images: (batch, height, width, 3) uint8, RGB.
      tokens: (1, length) int32.
      learnt: the prompts of the training step.
    """
    torch = import_torch("--peer transformers")
    with warnings.catch_warnings(action="ignore"):  # about options of its own configuration
        from transformers import CLIPSegConfig as TheirConfig
        from transformers import CLIPSegForImageSegmentation
        from transformers.utils import logging

        logging.set_verbosity_error()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = CLIPSegForImageSegmentation(TheirConfig(**sizes)).eval().requires_grad_(False)
        model.to(device)
    pixels = (images / 255 - np.asarray(mean)) / np.asarray(std)
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32, device=device)
    ids = torch.tensor(np.repeat(tokens, len(images), axis=0), device=device)
    half = torch.float16 if device == "cuda" else torch.bfloat16
    contexts = dict(zip(PRECISIONS, (contextlib.nullcontext, partial(torch.autocast, device, half)), strict=True))

    def forward(context: Callable[[], Any]) -> None:
        with torch.inference_mode(), context():
            model(input_ids=ids, pixel_values=pixels)
        if device == "cuda":
            torch.cuda.synchronize()

    passes = {name: partial(forward, context) for name, context in contexts.items()}
    if learnt is None:
        return passes
    width = model.config.text_config.hidden_size if learnt.tower == "text" else model.config.vision_config.hidden_size
    masks = torch.rand(len(images), *images.shape[1:3], device=device).round()
    for name, context in contexts.items():
        prompts = torch.nn.Parameter(0.02 * torch.randn(learnt.depth, learnt.number, width, device=device))
        optimizer = torch.optim.AdamW([prompts])
        scaler = torch.amp.GradScaler(device, enabled=name == "autocast" and device == "cuda")  # float16 needs it
        answer = partial(logits, model, pixels, ids, **{learnt.tower: prompts})
        passes[f"training {name}"] = partial(training_step, answer, masks, context, optimizer, scaler)
    return passes


def training_step(
    answer: Callable[[], Any], masks: Any, context: Callable[[], Any], optimizer: Any, scaler: Any
) -> None:
    """One step of an optimizer on the prompts, with the binary cross-entropy of the masks.

    Args:
      answer: the forward pass, which gives (batch, height, width) logits.
      masks: (batch, height, width) float32.
      context: in which the forward pass runs.
      optimizer: that holds the prompts.
      scaler: of the loss.
    """
    torch = import_torch("--peer transformers")
    with context():
        found = answer()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(found.float(), masks)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    if masks.is_cuda:
        torch.cuda.synchronize()


def logits(model: Any, pixels: Any, ids: Any, *, text: Any = (), vision: Any = ()) -> Any:
    """The model's (batch, height, width) logits with prompts, which its own `forward` neither takes nor differentiates.

    As the published code has them: text prompts stand behind the sentence's start (Zhou et al. 2022) and vision prompts
    behind the patches (Jia et al. 2022), through the decoder's blocks too. Each of a tower's first blocks has prompts
    of its own.

    Args:
      model: a CLIPSegForImageSegmentation with PyTorch's own attention.
      pixels: (batch, 3, height, width) float32.
      ids: (batch, length) int32.
      text: (depth, number, width) prompts of the text tower; none by default.
      vision: (depth, number, width) prompts of the vision tower; none by default.
    """
    towers = model.clip
    images, sentences = towers.vision_model, towers.text_model
    hidden = images.embeddings(pixels)
    cells = hidden.shape[1]
    if len(vision):
        hidden = _joined(hidden, vision[0])
    hidden, activations = images.pre_layrnorm(hidden), []
    for number, block in enumerate(images.encoder.layers):
        hidden = block(hidden, None)
        if number + 1 < len(vision):  # the decoder reads the next block's prompts too
            hidden = _joined(hidden[:, :cells], vision[number + 1])
        if number in model.extract_layers:
            activations.append(hidden)
    words = sentences.embeddings.token_embedding(ids)
    count = len(text[0]) if len(text) else 0
    if count:
        words = _joined(words[:, :1], text[0], words[:, 1:])
    hidden = sentences.embeddings(inputs_embeds=words)
    for number, block in enumerate(sentences.encoder.layers):
        if 0 < number < len(text):
            hidden = _joined(hidden[:, :1], text[number], hidden[:, 1 + count :])
        hidden = block(hidden, None, is_causal=True)
    ends = ids.argmax(dim=-1) + count  # the end's token is the highest
    pooled = sentences.final_layer_norm(hidden)[range(len(ids)), ends]
    without_prompts = model.decoder.layers[-1].register_forward_hook(lambda *given: given[-1][:, :cells])
    try:
        return model.decoder(activations, towers.text_projection(pooled)).logits
    finally:
        without_prompts.remove()


def _joined(before: Any, prompts: Any, *after: Any) -> Any:
    torch = import_torch("--peer transformers")
    return torch.cat([before, prompts.to(before.dtype).expand(len(before), -1, -1), *after], dim=1)
