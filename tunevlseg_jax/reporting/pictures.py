"""Predictions of chosen runs on chosen test records, for the figure of examples and for the page's browser."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import cv2
import numpy as np

from tunevlseg_jax.data import registry
from tunevlseg_jax.data.feeding.feed import Feed
from tunevlseg_jax.data.images import resize
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.evaluation import inference
from tunevlseg_jax.reporting.evaluations import StoredEvaluation, read_samples
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runs.restore import restore
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training.split import Split

Found = tuple[str, str]
"""Who found something: model and combination."""
LARGEST = 224
"""Pixels of a picture's longer side, at most: a page shows hundreds."""
SEED = 0


class Case(NamedTuple):
    """A record to show, and why: "best", "median", "worst" or "sample"."""

    id: str
    why: str


@dataclass(frozen=True)
class Picture:
    """A test record with what was found in it.

    Attributes:
      id: of the record.
      why: see `Case`.
      prompt: what was asked.
      image: (height, width, 3) uint8, RGB.
      truth: (height, width) bool.
      found: (height, width) bool for each model and combination, the height and width being the image's.
      dice: of each, from the evaluation's file.
    """

    id: str
    why: str
    prompt: str
    image: np.ndarray
    truth: np.ndarray
    found: Mapping[Found, np.ndarray]
    dice: Mapping[Found, float]


def choose(dice: Sequence[Mapping[str, float]], count: int) -> list[Case]:
    """Records to show: a quarter each the best, those around the median, the worst, and a random sample of the rest.

    Args:
      dice: of each record, for each of those that are compared; a record's rank is that of its mean.
      count: how many.
    """
    shared = sorted(set.intersection(*(set(scores) for scores in dice)))
    ranked = sorted(shared, key=lambda id: (-fmean(scores[id] for scores in dice), id))
    if len(ranked) <= count:
        parts = np.array_split(np.arange(len(ranked)), 3)
        return [Case(ranked[row], why) for why, rows in zip(KINDS, parts, strict=False) for row in rows]
    each = count // 4
    best, worst = ranked[:each], ranked[len(ranked) - each :]
    middle = (len(ranked) - each) // 2
    median = ranked[middle : middle + each]
    rest = [id for id in ranked if id not in {*best, *median, *worst}]
    drawn = np.random.default_rng(SEED).permutation(len(rest))[: count - 3 * each]
    groups = (best, median, worst, [rest[row] for row in sorted(drawn)])
    return [Case(id, why) for why, ids in zip(KINDS, groups, strict=True) for id in ids]


KINDS = ("best", "median", "worst", "sample")


def look(runs: Mapping[Found, tuple[Run, StoredEvaluation]], count: int) -> list[Picture]:
    """Chosen test records of one data set, and what each run finds in them.

    Args:
      runs: with their evaluations of the data set's test split, at the model's size.
      count: how many records.

    Raises:
      UserError: a base model or the data is no longer there, or has changed.
    """
    scores = {who: {row.id: row.dice for row in read_samples(details.samples)} for who, (_, details) in runs.items()}
    cases = choose(list(scores.values()), count)
    masks, shown = {}, None
    for who, (run, details) in runs.items():
        records, masks[who] = _find(run, details, [case.id for case in cases])
        if shown is None or records.images.shape[1] > shown.images.shape[1]:
            shown = records
    assert shown is not None
    size = _shown_size(shown.images.shape[1:3])
    pictures = []
    for case in cases:
        row = shown.ids.index(case.id)
        pictures.append(
            Picture(
                id=case.id,
                why=case.why,
                prompt=shown.prompts[shown.prompt[row]][0],
                image=resize(shown.images[shown.image[row]], size, cv2.INTER_AREA),
                truth=_mask(shown.mask(row), size),
                found={who: _mask(found[case.id], size) for who, found in masks.items()},
                dice={who: own[case.id] for who, own in scores.items()},
            )
        )
    return pictures


def _find(run: Run, details: StoredEvaluation, ids: Sequence[str]) -> tuple[Records, dict[str, np.ndarray]]:
    """The records of these names at the model's size, and the mask that a run finds in each."""
    made, learnt = restore(run.folder)
    data = dataclasses.replace(run.config.data, name=details.data, protocol=details.protocol, shots=None)
    everything = registry.load(data, details.split, made.image_size)
    if everything.fingerprint() != details.data_sha256:
        raise UserError(f"{details.data} has changed since {run.folder} was evaluated on it", "data-changed")
    rows = np.asarray(sorted(everything.ids.index(id) for id in ids))
    records = everything.take(rows).compact()
    split = Split(Feed(records, sharding.mesh(), data.placement, data.workers), made.token_table(records.phrases))
    logits = inference.logits_of(made, learnt, split, made.config.train.batch_size)
    return records, {id: found > 0 for id, found in zip(records.ids, logits, strict=False)}


def _shown_size(size: Sequence[int]) -> tuple[int, int]:
    """(height, width) to show an image at."""
    scale = min(1, LARGEST / max(size))
    return round(size[0] * scale), round(size[1] * scale)


def _mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return resize(mask.astype(np.uint8), size, cv2.INTER_NEAREST) > 0
