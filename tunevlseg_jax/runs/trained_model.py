"""The model of a run that trained its model."""

import dataclasses
from pathlib import Path

import numpy as np

from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained, check_shapes
from tunevlseg_jax.runs.card import LEARNT_FILE, load_learnt
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import sha256


def load(run: Path, checkpoint: str | None = None) -> Pretrained:
    """The base model of a run, or its copy at `checkpoint`, with the weights that the run trained.

    Raises:
      UserError: the run hasn't finished, trained something else than its model, or its base model isn't there any more.
    """
    config, learnt, card = load_learnt(run)
    beside = sorted(name for name in learnt if not name.startswith("model/"))
    if len(beside) == len(learnt):
        raise UserError(f"{run} trained no weights of its model, {config.model.checkpoint}", "not-convertible")
    if beside:
        raise UserError(f"{run} trained {beside[0]} too, which a model folder can't hold", "not-convertible")
    checkpoint = checkpoint or config.model.checkpoint
    base = load_pretrained(checkpoint, weights=not config.model.fresh)
    if base.sha256 != card["model_sha256"]:
        raise UserError(f"{checkpoint} is no longer the model that {run} was trained on", "model-changed")
    trained = {name.removeprefix("model/"): tensor.astype(np.float32) for name, tensor in learnt.items()}
    weights = {**base.weights, **trained}
    path = run / LEARNT_FILE
    check_shapes(weights, base.config, path)
    height, width = config.model.image_size or (base.config.image_size, base.config.image_size)
    sizes = dataclasses.replace(base.config, image_size=height) if height == width else base.config
    return Pretrained(sizes, weights, base.tokenizer, sha256(path))
