"""A trained run, read back from its folder."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Precision
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.runs.card import LEARNT_FILE, load_learnt, precision_of_card
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment


def restore(
    folder: Path, checkpoint: str | None = None, masks: Masks = "semantic", precision: Precision | None = None
) -> tuple[Experiment, FlatParams]:
    """A trained run: its experiment, and its learnt tensors in place of the fresh ones.

    Args:
      folder: of the run, or any that holds the learnt tensors and their card.
      checkpoint: present folder or hub id of the base model; None for the one in the card.
      masks: what the masks are, see `Experiment`.
      precision: of the computations; None for that of the run.

    Raises:
      UserError: a file is missing or broken, the base model is not the one that the prompts were learnt for, or it
        doesn't find instances.
    """
    config, learnt, data = load_learnt(folder)
    configuration.check(config)
    if checkpoint is not None:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, checkpoint=checkpoint))
    if precision is not None:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, precision=precision))
    model = load_pretrained(config.model.checkpoint, weights=not config.model.fresh)
    if model.sha256 != data["model_sha256"]:
        raise UserError(
            f"{config.model.checkpoint} is not the model that {folder} was trained on: its weights have sha256 "
            f"{model.sha256[:12]}, not {str(data['model_sha256'])[:12]}; "
            "name the right one with --checkpoint",
            "model-changed",
        )
    experiment = build_experiment(config, model, trains=False, kept=precision_of_card(data), masks=masks)
    for name in sorted({*learnt, *experiment.trainable}):
        ours, theirs = experiment.trainable.get(name), learnt.get(name)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            raise UserError(f"{folder / LEARNT_FILE} doesn't fit its card: {name} differs or is missing", "bad-learnt")
        if not np.isfinite(theirs).all():
            raise UserError(f"{folder / LEARNT_FILE}: {name} has values that aren't finite; train again", "bad-learnt")
    return experiment, {name: jnp.asarray(array) for name, array in learnt.items()}
