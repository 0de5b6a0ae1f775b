"""Compares our SAM 3 with transformers'."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import numpy as np

from conversion import huggingface
from conversion.huggingface import Arrays
from tunevlseg_jax.models.build import fill_module
from tunevlseg_jax.pretrained import sam3_folder
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.sam3_folder import sam3_config
from tunevlseg_jax.prompts import Prompts
from tunevlseg_jax.runtime.optional import import_torch

OUTPUTS = ("logits", "logits of instances", "boxes", "scores", "presence")


def verify(model: Pretrained, folder: Path | None) -> str:
    """Compares the mask of the concept, the instances and the presence with transformers', see `compare_outputs`."""
    theirs = partial(_theirs, end_token=sam3_config(model).text.end_token)
    return huggingface.compare_outputs(model, folder, sam3_folder.save, _ours, theirs)


def _ours(model: Pretrained, image: np.ndarray, tokens: np.ndarray) -> Arrays:
    config = dataclasses.replace(sam3_config(model), masks="instances")

    @jax.jit
    def outputs(weights, image, tokens):
        sam3 = fill_module(config.build, weights)
        features, text = sam3.vision(image, Prompts()).repeat(len(tokens)), sam3.text(tokens, Prompts())
        decoded = sam3.decode(features, text)
        semantic, _ = sam3.decoder(features.states, text, features.size)
        assert decoded.candidates is not None  # as "instances" asks for them
        masks, boxes, scores, _ = decoded.candidates
        return semantic.logits, masks, boxes, scores, decoded.presence

    found = jax.tree.map(np.asarray, outputs(dict(model.weights), image, tokens))
    return dict(zip(OUTPUTS, found, strict=True))


def _theirs(folder: Path, image: np.ndarray, tokens: np.ndarray, *, end_token: int) -> Arrays:
    """Transformers' outputs in float32, one phrase at a time: at full size float64 would need twice the memory."""
    torch = import_torch("--verify")
    from transformers import Sam3Model
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = Sam3Model.from_pretrained(folder, dtype=torch.float32).eval()
    ends = (tokens == end_token).argmax(axis=1)
    valid = np.arange(tokens.shape[1])[None] <= ends[:, None]
    pixels, rows = torch.tensor(image.transpose(0, 3, 1, 2)), []
    with torch.inference_mode():
        for row, mask in zip(tokens, valid, strict=True):
            words = {"input_ids": torch.tensor(row[None]), "attention_mask": torch.tensor(mask[None]).long()}
            found = model(pixel_values=pixels, **words)
            logits = torch.nn.functional.interpolate(found.semantic_seg, image.shape[1:3], mode="bilinear")
            rows.append((logits[:, 0], found.pred_masks, found.pred_boxes, found.pred_logits, found.presence_logits[0]))
    columns = zip(*rows, strict=True)
    return {name: torch.cat(parts).numpy() for name, parts in zip(OUTPUTS, columns, strict=True)}
