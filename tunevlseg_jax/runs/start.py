"""The parameters that a run begins with: fresh ones, or the prompts of another run."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.runs import history, provenance
from tunevlseg_jax.runs.card import LEARNT_FILE, load_learnt
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runs.run_folder import RunFolder
from tunevlseg_jax.runtime import multihost
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import sha256
from tunevlseg_jax.training.experiment import Experiment

NAMED = 3
"""Tensors that a message names at most."""


def first_params(experiment: Experiment, folder: RunFolder) -> FlatParams:
    """The parameters before the first step, which the first process reads for all.

    The run's history gets the run that they are from, and its provenance that run's training images. A run that has
    begun needs neither: its checkpoint has its parameters.

    Raises:
      UserError: `train.start_from` names no finished run, or one of another model or of other shapes.
    """
    source = experiment.config.train.start_from
    if source is None:
        return experiment.trainable
    params = {name: np.zeros(array.shape, array.dtype) for name, array in experiment.trainable.items()}
    with multihost.sync_errors():
        if multihost.is_primary() and not folder.checkpoints.kept:
            start = find_run(source)
            params = _read(experiment, source, start)
            about = _about(source, start)
            history.write(folder.path, dataclasses.replace(history.read(folder.path), start_from=about))
            folder.data = provenance.after(folder.data, provenance.read(start))
            provenance.write(folder.path, folder.data)
    return {name: jnp.asarray(array) for name, array in multihost.broadcast_from_primary(params).items()}


def _read(experiment: Experiment, source: str, folder: Path) -> dict[str, np.ndarray]:
    """The learnt tensors of a run that fit this one."""
    config, learnt, card = load_learnt(folder)
    if experiment.pretrained.sha256 != card["model_sha256"]:
        raise UserError(
            f"train.start_from {source} was trained on another model than {experiment.config.model.checkpoint}: the "
            f"weights have sha256 {str(card['model_sha256'])[:12]} there and {experiment.pretrained.sha256[:12]} here",
            "model-changed",
        )
    theirs_for, ours_for = (" and ".join(sorted(each.learner.changes)) for each in (config, experiment.config))
    if theirs_for != ours_for:  # in a model with towers of one width, even shapes may agree
        raise UserError(
            f"train.start_from {source} ({config.learner.name}) has prompts for the {theirs_for or 'no'} "
            f"tower, and this run ({experiment.config.learner.name}) for the {ours_for or 'no'} tower",
            "start-unfit",
        )
    ours = experiment.trainable
    apart = [
        f"{name} is {_shape(learnt.get(name))} there and {_shape(ours.get(name))} here"
        for name in sorted({*learnt, *ours})
        if name not in learnt or name not in ours or learnt[name].shape != ours[name].shape
    ]
    if apart:
        more = f", and {len(apart) - NAMED} more" if len(apart) > NAMED else ""
        raise UserError(
            f"train.start_from {source} ({config.learner.name}) doesn't fit this run "
            f"({experiment.config.learner.name}): {', '.join(apart[:NAMED])}{more}; its learner needs the "
            "same shapes",
            "start-unfit",
        )
    for name, array in learnt.items():
        if not np.isfinite(array).all():
            raise UserError(f"{folder / LEARNT_FILE}: {name} has values that aren't finite; train again", "bad-learnt")
    return {name: learnt[name].astype(np.float32) for name in ours}


def _shape(array: Any) -> str:
    return "missing" if array is None else "x".join(map(str, array.shape)) or "a number"


def _about(source: str, folder: Path) -> dict[str, Any]:
    """What a card says about the run whose prompts another began with."""
    config, _, card = load_learnt(folder)
    return {
        "run": source,
        "learner": config.learner.name,
        "data": config.data.name,
        "epochs": card.get("epochs"),
        "prompts_sha256": sha256(folder / LEARNT_FILE),
    }
