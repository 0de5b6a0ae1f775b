"""The package in Python: loading runs and models, predicting, evaluating, training and searching, on arrays or sets."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import rich
from rich.console import Console

from tunevlseg_jax import config as configuration
from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.data import prepared, registry
from tunevlseg_jax.data.builders.arrays import ArrayDataset, check_prompt, for_each, records, to_rgb
from tunevlseg_jax.data.images import read_rgb, resize
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation import evaluate_run
from tunevlseg_jax.evaluation.evaluate_run import EvaluationResult, Resolution
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.card import CARD_FILE
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runs.run_folder import CONFIG_FILE, DATA_FOLDER
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.errors import UserError, nearest
from tunevlseg_jax.runtime.files import read_object
from tunevlseg_jax.search import run_sweep
from tunevlseg_jax.search.replay import STUDIES
from tunevlseg_jax.training import step
from tunevlseg_jax.training.experiment import Experiment, build_experiment

__all__ = ["Run", "load_model", "load_run", "records", "sweep", "train"]

BATCH = 8
"""Images that the model sees at once in prediction; fewer are padded, so that there is one program."""
RECORDS = "records"
"""The name of the prepared set that is written of arrays."""
Image = np.ndarray | str | Path


class Run:
    """A trained run, or a model as it was loaded, ready to predict.

    Attributes:
      config: its configuration.
      scores: from its card, by row ("zero-shot", "tuned"), split and metric; empty where there are none.
      folder: of the run; None for a model.
    """

    def __init__(self, experiment: Experiment, learnt: FlatParams, scores: Mapping[str, Any], folder: Path | None):
        self.config, self.scores, self.folder = experiment.config, dict(scores), folder
        self._experiment, self._learnt = experiment, learnt
        self._params = {**experiment.frozen, **learnt}
        self._hyper = jax.tree.map(lambda values: values[0], experiment.hyper())
        self._encode_text = lru_cache(maxsize=16)(experiment.encode_text)

    def __repr__(self) -> str:
        place = self.config.model.checkpoint if self.folder is None else self.folder
        return f"<Run: {type(self.config.learner).__name__} in {place}>"

    def predict(self, image: Image | Sequence[Image], prompt: str | Sequence[str], *, threshold: float = 0.5) -> Any:
        """Marks what a prompt names.

        Args:
          image: (height, width), (height, width, 3) or (height, width, 4) uint8, or the path of an image file; or a
            list or a (image, height, width, 3) array of several, whose sizes may differ in a list.
          prompt: what to look for, in words; one for all images, or one for each.
          threshold: probability above which a pixel belongs to the mask, between 0 and 1.

        Returns:
          (height, width) bool at the image's own size; a list of them for several images.

        Raises:
          UserError: an image, a prompt or the threshold can't be.
        """
        check_threshold(threshold)
        least = math.log(threshold / (1 - threshold))
        return self._answer(image, prompt, lambda logits: logits > least)

    def probabilities(self, image: Image | Sequence[Image], prompt: str | Sequence[str]) -> Any:
        """How likely each pixel belongs to what a prompt names; arguments and errors as in `predict`.

        Returns:
          (height, width) float32 from 0 to 1 at the image's own size; a list of them for several images.
        """
        return self._answer(image, prompt, _sigmoid)

    def evaluate(
        self,
        data: str | Data | ArrayDataset | None = None,
        split: str = "test",
        *,
        resolution: Resolution = "model",
        ask_absent: bool = False,
        output: str | Path | None = None,
    ) -> dict[str, Any]:
        """Scores a split, as the command evaluate does.

        Args:
          data: name of a data set, its settings, or `records`; None for the data set that the run was trained on.
          split: train, val or test.
          resolution: "model" scores at the size that the model sees; "original" resizes the logits to each mask's own.
          ask_absent: whether to ask every image for every class of the split.
          output: folder for the command's files; None writes none.

        Returns:
          The scores of the split by name, such as "dice" and "iou".

        Raises:
          UserError: there is no such data set or split, or a prompt is too long.
        """
        with _quiet():
            return self.evaluation(data, split, resolution=resolution, ask_absent=ask_absent, output=output).scores

    def evaluation(
        self,
        data: str | Data | ArrayDataset | None = None,
        split: str = "test",
        *,
        resolution: Resolution = "model",
        ask_absent: bool = False,
        output: str | Path | None = None,
    ) -> EvaluationResult:
        """As `evaluate`, with the scores of each class, and with a bar on a terminal."""
        with self._data(data) as chosen:
            chosen = dataclasses.replace(chosen, shots=None)
            return evaluate_run.evaluate(
                self._experiment,
                self._learnt,
                self._experiment.split(split, chosen, complete=ask_absent),
                chosen,
                run=str(self.folder or self.config.model.checkpoint),
                folder=None if output is None else Path(output),
                resolution=resolution,
                ask_absent=ask_absent,
            )

    @property
    def data(self) -> Data:
        """The data set that the run was trained on, also where its folder has moved with its records in it."""
        own = self.config.data
        if own.name == RECORDS and self.folder is not None and (self.folder / DATA_FOLDER / RECORDS).is_dir():
            return dataclasses.replace(own, root=str(self.folder / DATA_FOLDER))
        return own

    @contextlib.contextmanager
    def _data(self, data: str | Data | ArrayDataset | None) -> Iterator[Data]:
        """The settings of the data set to score; arrays are written to a temporary folder."""
        if isinstance(data, str):
            data = dataclasses.replace(self.config.data, name=data)
        if not isinstance(data, ArrayDataset):
            yield self.data if data is None else data
            return
        with tempfile.TemporaryDirectory() as folder:
            _write(data, Path(folder))
            yield dataclasses.replace(_of_records(self.config, Path(folder)).data, cache=folder)

    def _answer(self, image: Any, prompt: str | Sequence[str], answer: Callable[[np.ndarray], np.ndarray]) -> Any:
        """One answer for each image, from its logits at its own size."""
        several = isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4)
        given = list(image) if several else [image]
        prompts = for_each(prompt, len(given), "prompts")
        for index, one in enumerate(prompts):
            check_prompt(one, f"prompt {index}" if len(set(prompts)) > 1 else "prompt")
        images = [_load(one, f"image {index}" if several else "the image") for index, one in enumerate(given)]
        answers = [answer(logits) for logits in self._logits(images, prompts)]
        return answers if several else answers[0]

    def _logits(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Iterator[np.ndarray]:
        """Logits of each (height, width, 3) uint8 image at its own size, of which masks are cut when enlarged."""
        phrases = tuple(dict.fromkeys(prompts))
        rows = np.asarray([phrases.index(one) for one in prompts], np.int32)
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            batch = np.zeros((BATCH, *self._experiment.image_size, 3), part[0].dtype)
            phrase = np.zeros(BATCH, np.int32)
            for place, image in enumerate(part):
                batch[place] = resize(image, self._experiment.image_size, cv2.INTER_CUBIC)
                phrase[place] = rows[start + place]
            network = self._experiment.network
            logits = step.logits_step(
                self._params, batch, phrase, self._encode_text(phrases), self._hyper, network=network
            )
            for small, image in zip(np.asarray(logits), part, strict=False):
                yield resize(small, image.shape[:2], cv2.INTER_LINEAR)


def load_run(folder: str | Path, *, checkpoint: str | None = None) -> Run:
    """A trained run.

    Args:
      folder: of the run, or any that holds its prompts.safetensors and card.json.
      checkpoint: where the base model is now, if not where it was in training.

    Raises:
      UserError: something is missing or broken, or the base model is another than the one that was trained on.
    """
    experiment, learnt = restore(Path(folder), checkpoint)
    return Run(experiment, learnt, read_object(Path(folder) / CARD_FILE).get("scores") or {}, Path(folder))


def load_model(checkpoint: str | Path) -> Run:
    """A model as it is, without learnt prompts: zero-shot.

    Args:
      checkpoint: a model folder, the name of an embedded model such as "clipseg-tiny", or a hub id.

    Raises:
      UserError: there is no such model.
    """
    experiment = build_experiment(Config(model=Model(checkpoint=str(checkpoint))), trains=False)
    return Run(experiment, experiment.trainable, {}, None)


def train(
    config: Config,
    *,
    records: ArrayDataset | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    verbose: bool = False,
) -> Run:
    """Trains a run in `config.workdir`, going on where an earlier call stopped.

    Args:
      config: of the run.
      records: training and validation records, and test records where there are any; they are kept in the run folder
        and take the place of `config.data.name`. None for the data set that the configuration names.
      on_epoch: called after each epoch with a line of metrics.jsonl: "epoch", "train" and "val" with "loss" and "dice",
        "learning_rate", "seconds" and "images_per_second".
      verbose: whether to print as the command train does.

    Raises:
      UserError: the configuration or the records can't be, or the run came to a loss that isn't finite.
    """
    config = _checked(config)
    if records is not None:
        config = _keep(config, records, Path(config.workdir), Path(config.workdir) / CONFIG_FILE)
    with contextlib.nullcontext() if verbose else _quiet():
        trainer.train(config, Console(quiet=not verbose), on_epoch)
    return load_run(config.workdir)


def sweep(
    config: Config,
    study: str,
    *,
    records: ArrayDataset | None = None,
    folder: str | Path = STUDIES,
    verbose: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Searches hyperparameters; a study that exists is continued.

    Args:
      config: of every trial.
      study: name of the study.
      records: as in `train`; they are kept in the study's folder.
      folder: of all studies.
      verbose: whether to print as the command sweep does.
      options: how to search: the command's options, such as trials=20, parallel=4, seeds=3, space=("depth=1..5",).

    Returns:
      The summary, as in the study's summary.json: numbers of trials, and the best one.

    Raises:
      UserError: an option or the search space can't be, or a study of that name is of another configuration.
    """
    config = _checked(config)
    if "," in config.data.name:
        raise UserError(f"data.name is {config.data.name!r}; sweep takes one data set at a time")
    known = sorted(field.name for field in dataclasses.fields(run_sweep.Search))
    for name in options:
        if name not in known:
            raise UserError(f"sweep has no option {name!r}{nearest(name, known)}")
    given = run_sweep.Options(study=study, folder=str(folder), config=config, **options)
    run_sweep.check(given)
    if records is not None:
        place = Path(folder) / study
        given = dataclasses.replace(given, config=_keep(config, records, place, place / DATA_FOLDER))
    with contextlib.nullcontext() if verbose else _quiet():
        (summary,) = run_sweep.sweep(given, Console(quiet=not verbose))
    return summary


def check_threshold(threshold: float, name: str = "threshold") -> None:
    """Raises a UserError unless it is a probability between 0 and 1."""
    if not 0 < threshold < 1:
        raise UserError(f"{name} is {threshold}; it is a probability, between 0 and 1")


def _checked(config: Config) -> Config:
    """The configuration, with every field of the type that it declares and a value that can be."""
    if not isinstance(config, Config):
        raise UserError(f"the configuration is a {type(config).__name__}, not a Config")
    config = schema.from_json(Config, schema.to_json(config), "the configuration")
    configuration.check(config)
    return config


def _keep(config: Config, records: ArrayDataset, folder: Path, begun: Path) -> Config:
    """Writes records into a folder, unless they are there already; the configuration that reads them.

    Raises:
      UserError: a split is missing, or the folder has others, and `begun` says that they have been used.
    """
    if missing := [name for name in ("train", "val") if name not in records.splits]:
        raise UserError(f"the records have no split {missing[0]!r}, only {', '.join(records.splits)}")
    root = folder / DATA_FOLDER
    if not _holds(root, records):
        if begun.exists():
            raise UserError(f"{folder} holds something else than a run on these records; choose another folder")
        _write(records, root)
    return _of_records(config, root)


def _of_records(config: Config, root: Path) -> Config:
    """The configuration with a set of records in `root` as its data."""
    data = dataclasses.replace(config.data, name=RECORDS, root=str(root), protocol="paper", prompt_index=prepared.LEVEL)
    return dataclasses.replace(config, data=data)


def _holds(root: Path, records: ArrayDataset) -> bool:
    """Whether a folder has just these records as a prepared set."""
    if RECORDS not in prepared.names(root):
        return False
    stored = registry.splits(Data(name=RECORDS, root=str(root)))
    return set(stored) == set(records.splits) and all(
        tuple(prepared.load(root, RECORDS, name)) == records.splits[name] for name in stored
    )


def _write(records: ArrayDataset, root: Path) -> None:
    from tunevlseg_jax.data.builders import base  # loads TensorFlow Datasets

    base.write(root, RECORDS, records.splits, "Images and masks from memory.")


def _load(image: Any, name: str) -> np.ndarray:
    """(height, width, 3) uint8 of an array or a file."""
    return read_rgb(Path(image)) if isinstance(image, str | Path) else to_rgb(image, name)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    """Without overflow, float32."""
    logits = logits.astype(np.float32)
    return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Shows no bars."""
    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before
