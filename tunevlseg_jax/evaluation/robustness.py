"""Scores of a run on corrupted images, and with paraphrases of its prompts."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tunevlseg_jax.data.feeding.batch import Batch
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.evaluation import corruptions
from tunevlseg_jax.evaluation.corruptions import KINDS, NAMES
from tunevlseg_jax.evaluation.evaluate_run import stored_name
from tunevlseg_jax.models.features import TextFeatures
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.resize import resize_grid
from tunevlseg_jax.network import Network
from tunevlseg_jax.runtime import exchange, progress_bar, sharding
from tunevlseg_jax.runtime.files import write_csv, write_json
from tunevlseg_jax.training import metrics
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.split import Split
from tunevlseg_jax.training.step import Hyperparameters

FOLDER = "robustness"
"""In a run's folder."""
SEED = 0
"""Of the noise."""


class RobustnessResult(NamedTuple):
    """The result on corrupted images, or with paraphrases.

    Attributes:
      name: of its files; "" if none were written.
      scores: see `corruption_scores` and `phrase_scores`.
      dice: of each record, (record,), by condition or number of the paraphrase.
    """

    name: str
    scores: dict[str, Any]
    dice: dict[str, np.ndarray]


def evaluate(
    experiment: Experiment,
    learnt: FlatParams,
    split: Split,
    data: Data,
    *,
    run: str,
    folder: Path | None,
    corrupt: bool,
    phrases: Mapping[str, Sequence[str]] | None,
) -> dict[str, RobustnessResult]:
    """Scores what is asked for, and writes the files if there is a folder for them.

    Args:
      experiment: the run's experiment.
      learnt: its learnt tensors.
      split: the split to score.
      data: the data set of the split.
      run: the run's name, for the reader.
      folder: of the files; None writes none.
      corrupt: whether to score corrupted images.
      phrases: paraphrases of each class; None for none.

    Returns:
      "corrupted" and "phrases", those that were asked for.
    """
    results = {}
    if corrupt:
        dice = corrupted(experiment, learnt, split)
        details = {"strengths": KINDS, "scores": corruption_scores(dice)}
        results["corrupted"] = details, dice
    if phrases is not None:
        each = paraphrased(experiment, learnt, split, phrases)
        dice = {f"phrase_{number}": values for number, values in enumerate(each, 1)}
        details = {"phrases": phrases, "scores": phrase_scores(split.records, phrases, each)}
        results["phrases"] = details, dice
    written = {}
    for kind, (details, dice) in results.items():
        details = details | {"computed": experiment.computed.for_card()}
        name = "" if folder is None else write(folder, kind, run, data, split, details, dice)
        written[kind] = RobustnessResult(name, details["scores"], dice)
    return written


@partial(jax.jit, static_argnames="network")
def dice_step(
    params: FlatParams,
    batch: Batch,
    token_table: Array | TextFeatures,
    hyper: Hyperparameters,
    kind: Array,
    value: Array,
    number: Array,
    *,
    network: Network,
) -> Array:
    """The Dice of each record of a batch on corrupted images, (batch,) float32.

    Args:
      params: every parameter, without a trial axis; so is `hyper`.
      batch: of images.
      token_table: see `Network.logits`.
      hyper: hyperparameters.
      kind: int32 scalar, see `corruptions.corrupt`.
      value: float32 scalar, likewise.
      number: int32 scalar, of the batch, for its noise.
      network: the model and the learner.
    """
    key = jax.random.fold_in(jax.random.key(SEED), number)
    images = corruptions.corrupt(batch.images, kind, value, key)
    logits = network.logits(params, images, batch.phrase, token_table, depth=hyper.depth, dropout=hyper.dropout)
    if logits.shape != batch.masks.shape:
        _, height, width = batch.masks.shape
        logits = resize_grid(logits[..., None], (height, width), "bilinear")[..., 0]
    return metrics.score(jnp.zeros(len(logits)), logits, batch.masks).dice


class DiceScorer:
    """Computes the Dice of every record of a split, at the model's size and probability 0.5."""

    def __init__(self, experiment: Experiment, learnt: FlatParams, split: Split):
        mesh = split.feed.mesh
        self._split, self._network = split, experiment.network
        self._batch_size = experiment.config.train.batch_size
        self._params = experiment.on_mesh(mesh).frozen | sharding.replicate(learnt, mesh)
        self._hyper = sharding.replicate(jax.tree.map(lambda values: values[0], experiment.hyper()), mesh)

    def score(self, records: Records, kind: str = "clean", value: float = 0.0) -> np.ndarray:
        """(record,) Dice.

        Args:
          records: those of the split, which may have other rows of `prompts`.
          kind: a name of `corruptions.NAMES`.
          value: its strength, see `corruptions.KINDS`.
        """
        feed = (
            self._split.feed
            if records is self._split.records
            else dataclasses.replace(self._split.feed, records=records)
        )
        found = []
        for number, batch in enumerate(feed.evaluation(self._batch_size)):
            step = (np.int32(NAMES.index(kind)), np.float32(value), np.int32(number))
            table = self._split.table
            dice = dice_step(self._params, batch, table, self._hyper, *step, network=self._network)
            found.append(sharding.gather_to_host(dice)[: self._batch_size])
        return np.concatenate(found)[: len(records)]


def corrupted(experiment: Experiment, learnt: FlatParams, split: Split) -> dict[str, np.ndarray]:
    """The Dice of each record, (record,), on clean images and under "blur_1", the weakest blur, and so on."""
    scorer = DiceScorer(experiment, learnt, split)
    conditions = [("clean", "clean", 0.0)]
    conditions += [(f"{kind}_{n}", kind, value) for kind, values in KINDS.items() for n, value in enumerate(values, 1)]
    tracked = progress_bar.track(conditions, "corrupting")
    return {name: scorer.score(split.records, kind, value) for name, kind, value in tracked}


def paraphrased(
    experiment: Experiment, learnt: FlatParams, split: Split, phrases: Mapping[str, Sequence[str]]
) -> list[np.ndarray]:
    """The Dice of each record, (record,), with each paraphrase; NaN where its class has fewer.

    Args:
      experiment: of the run.
      learnt: its learnt tensors.
      split: to score.
      phrases: of each class.

    Raises:
      UserError: a phrase is too long.
    """
    records = split.records
    distinct = list(dict.fromkeys(phrase for each in phrases.values() for phrase in each))
    records = dataclasses.replace(records, prompts=tuple((phrase,) for phrase in distinct), negatives=None)
    table = experiment.encode_text(records.phrases, split.feed.mesh)
    scorer = DiceScorer(experiment, learnt, Split(dataclasses.replace(split.feed, records=records), table))
    counts = np.array([len(phrases[name]) for name in records.classes])[records.label]
    found = []
    for number in progress_bar.track(range(max(map(len, phrases.values()))), "paraphrasing"):
        rows = [distinct.index(phrases[name][min(number, len(phrases[name]) - 1)]) for name in records.classes]
        prompt = np.array(rows, np.int32)[records.label]
        dice = scorer.score(dataclasses.replace(records, prompt=prompt))
        found.append(np.where(number < counts, dice, np.nan))
    return found


def corruption_scores(dice: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The mean Dice on clean images, of each kind by strength, and over all kinds and strengths."""
    kinds = {
        kind: [float(dice[f"{kind}_{n}"].mean()) for n in range(1, len(values) + 1)] for kind, values in KINDS.items()
    }
    everything = [value for values in kinds.values() for value in values]
    return {"clean": float(dice["clean"].mean()), "corrupted": float(np.mean(everything)), **kinds}


def phrase_scores(records: Records, phrases: Mapping[str, Sequence[str]], dice: Sequence[np.ndarray]) -> dict[str, Any]:
    """The Dice over paraphrases, of each class and as means over classes that are weighted by their records.

    Returns:
      mean, over paraphrases; worst, of the worst paraphrase; spread, of the best minus the worst; classes, with
      the same of each class and the Dice of each phrase.
    """
    classes: dict[str, Any] = {}
    weights = []
    for label, name in enumerate(records.classes):
        rows = records.label == label
        if not rows.any():
            continue
        each = [float(dice[number][rows].mean()) for number in range(len(phrases[name]))]
        scores = {"mean": float(np.mean(each)), "worst": min(each), "spread": max(each) - min(each)}
        classes[name] = scores | {"records": int(rows.sum()), "phrases": dict(zip(phrases[name], each, strict=True))}
        weights.append(int(rows.sum()))
    means = {
        score: float(np.average([one[score] for one in classes.values()], weights=weights))
        for score in ("mean", "worst", "spread")
    }
    return means | {"classes": classes}


def write(
    folder: Path,
    kind: str,
    run: str,
    data: Data,
    split: Split,
    details: Mapping[str, Any],
    columns: Mapping[str, np.ndarray],
) -> str:
    """Writes the scores (JSON) and the Dice of each record (CSV), and returns their name; in process 0 alone.

    Args:
      folder: of the files.
      kind: "corrupted" or "phrases".
      run: folder of the run.
      data: of the split.
      split: that was scored.
      details: "scores", and more that the JSON shall hold; "phrases" tells evaluations apart.
      columns: (record,) each, of the CSV.
    """
    records = split.records
    identity = {"run": run, "data": data.name, "protocol": data.protocol, "prompt_index": data.prompt_index}
    identity |= {"split": records.split, "data_sha256": records.fingerprint(), "phrases": details.get("phrases")}

    def files() -> str:
        name = stored_name(folder, f"{data.name.replace('/', '_')}_{records.split}_{kind}", identity)
        about = {"kind": kind, "size": "x".join(map(str, records.images.shape[1:3])), "records": len(records)}
        rows = []
        for row in range(len(records)):
            values = {column: None if np.isnan(dice[row]) else float(dice[row]) for column, dice in columns.items()}
            label = records.classes[records.label[row]]
            rows.append({"id": records.ids[row], "label": label, "unit": records.unit(row)} | values)
        write_csv(folder / f"{name}.csv", rows)
        write_json(folder / f"{name}.json", identity | about | dict(details))
        return name

    return exchange.from_primary(files)
