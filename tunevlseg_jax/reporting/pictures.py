"""Predictions of chosen runs on chosen test records, for the figure of examples and for the page's browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import cv2
import numpy as np

from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.images import resize
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.evaluation import inference
from tunevlseg_jax.reporting.evaluations import StoredEvaluation, read_dice
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training.split import Split

Predictor = tuple[str, str]
"""A model and a combination."""
LARGEST = 224
"""Pixels of a picture's longer side, at most: a page shows hundreds."""
SEED = 0
KINDS = ("best", "median", "worst", "sample")


@dataclass(frozen=True)
class Picture:
    """A test record with the predicted masks.

    Attributes:
      id: of the record.
      why: one of KINDS.
      prompt: of the record.
      image: (height, width, 3) uint8, RGB.
      truth: (height, width) bool.
      predicted: (height, width) bool for each model and combination.
      dice: of each, from the evaluation's file.
    """

    id: str
    why: str
    prompt: str
    image: np.ndarray
    truth: np.ndarray
    predicted: Mapping[Predictor, np.ndarray]
    dice: Mapping[Predictor, float]


def choose(dice: Sequence[Mapping[str, float]], count: int) -> dict[str, str]:
    """The ids of records to show, each with its kind: a quarter each the best, those around the median, the worst, and
    a random sample of the rest.

    Args:
      dice: of each record, for each compared run; records are ranked by their mean.
      count: how many.
    """
    shared = sorted(set.intersection(*(set(scores) for scores in dice)))
    ranked = sorted(shared, key=lambda id: (-fmean(scores[id] for scores in dice), id))
    if len(ranked) <= count:
        groups = [[ranked[row] for row in rows] for rows in np.array_split(np.arange(len(ranked)), 3)]
    else:
        each = count // 4
        middle = (len(ranked) - each) // 2
        groups = [ranked[:each], ranked[middle : middle + each], ranked[len(ranked) - each :]]
        rest = [id for id in ranked if id not in {id for group in groups for id in group}]
        drawn = np.random.default_rng(SEED).permutation(len(rest))[: count - 3 * each]
        groups.append([rest[row] for row in sorted(drawn)])
    return {id: why for why, ids in zip(KINDS, groups, strict=False) for id in ids}


def predict(runs: Mapping[Predictor, tuple[Run, StoredEvaluation]], count: int) -> list[Picture]:
    """Chosen test records of one data set, with the mask that each run predicts.

    Args:
      runs: with their evaluations of the data set's test split, at the model's size.
      count: how many records.

    Raises:
      UserError: a base model or the data is no longer there, or has changed.
    """
    dice = {who: read_dice(evaluation.samples) for who, (_, evaluation) in runs.items()}
    cases = choose(list(dice.values()), count)
    predictions = {who: _predict(*run, list(cases)) for who, run in runs.items()}
    shown = max((records for records, _ in predictions.values()), key=lambda records: records.images.shape[1])
    height, width = shown.images.shape[1:3]
    scale = min(1, LARGEST / max(height, width))
    size = round(height * scale), round(width * scale)
    pictures = []
    for id, why in cases.items():
        row = shown.ids.index(id)
        pictures.append(
            Picture(
                id=id,
                why=why,
                prompt=shown.prompts[shown.prompt[row]][0],
                image=resize(shown.images[shown.image[row]], size, cv2.INTER_AREA),
                truth=_resized(shown.mask(row), size),
                predicted={who: _resized(masks[id], size) for who, (_, masks) in predictions.items()},
                dice={who: scores[id] for who, scores in dice.items()},
            )
        )
    return pictures


def _predict(run: Run, evaluation: StoredEvaluation, ids: Sequence[str]) -> tuple[Records, dict[str, np.ndarray]]:
    """The records of these ids at the model's size, and the mask that a run predicts for each."""
    experiment, learnt = restore(run.folder)
    data = run.config.data.for_scoring(name=evaluation.data, protocol=evaluation.protocol)
    everything = registry.load(data, evaluation.split, experiment.image_size)
    if everything.fingerprint() != evaluation.data_sha256:
        raise UserError(f"{evaluation.data} has changed since {run.folder} was evaluated on it", "data-changed")
    rows = np.asarray(sorted(everything.ids.index(id) for id in ids))
    records = everything.take(rows).compact()
    feed = Feed(records, sharding.mesh(), data.placement, data.workers)
    split = Split(feed, experiment.token_table(records.phrases))
    logits = inference.logits_of(experiment, learnt, split, experiment.config.train.batch_size)
    return records, {id: values > 0 for id, values in zip(records.ids, logits, strict=False)}


def _resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize(mask.astype(np.uint8), size, cv2.INTER_NEAREST) > 0
