"""Loads a run in Python: a trained run from its folder or a hub, or a model as it is."""

from pathlib import Path

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.data import preprocessing
from tunevlseg_jax.data.preprocessing import AS_THEY_ARE
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.run import Run
from tunevlseg_jax.runs.card import CARD_FILE, temperature_of_card
from tunevlseg_jax.runs.locate import find_run
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.training.build import build_experiment


def load_run(run: str | Path, *, checkpoint: str | None = None, masks: Masks = "semantic") -> Run:
    """Loads a trained run.

    Args:
      run: the run's folder, or any folder with its prompts.safetensors and card.json; or a hub id such as
        "owner/name", whose files are downloaded.
      checkpoint: the base model's new place, if it has moved since training.
      masks: "semantic", one mask for what a prompt names, as in training; or "instances", the union of the instances
        that a SAM 3 finds, with their presence. A temperature is one of semantic masks.

    Raises:
      UserError: a file is missing or broken, the base model isn't the one of the training, it finds no
        instances, or the hub has no such run.
    """
    folder = find_run(run)
    experiment, learnt = restore(folder, checkpoint, masks)
    path = folder / CARD_FILE
    card = read_object(path)
    scores = card.get("scores") or {}
    if not isinstance(scores, dict):
        raise UserError(f"{path}: scores must be an object, got {scores!r}", "bad-card")
    reading, temperature = preprocessing.of_card(card, str(path)), temperature_of_card(card, str(path))
    temperature = temperature if masks == "semantic" else 1.0
    return Run(experiment, learnt, scores, folder, reading, temperature, str(Path(run)))


def load_model(checkpoint: str | Path, *, masks: Masks = "semantic") -> Run:
    """Loads a model without learnt prompts, for zero-shot prediction.

    Args:
      checkpoint: a model folder, the name of an embedded model such as "clipseg-tiny", or a hub id.
      masks: as in `load_run`.

    Raises:
      UserError: there is no such model, or it finds no instances.
    """
    experiment = build_experiment(Config(model=Model(checkpoint=str(checkpoint))), trains=False, masks=masks)
    return Run(experiment, experiment.trainable, {}, None, AS_THEY_ARE)
