"""Predicts the masks of a split record by record, and scores them at the model's size or at that of the images."""

import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import jax
import numpy as np
from jax import Array

from tunevlseg_jax.data import targets
from tunevlseg_jax.data.feeding.batch import Batch
from tunevlseg_jax.data.images import resize
from tunevlseg_jax.data.records import Records
from tunevlseg_jax.data.targets import Target
from tunevlseg_jax.evaluation import record_scores
from tunevlseg_jax.evaluation.every_class import Classes
from tunevlseg_jax.evaluation.record_scores import Sample
from tunevlseg_jax.evaluation.settings import TOLERANCE
from tunevlseg_jax.evaluation.volume_scores import VolumeSample, VolumeScorer, VolumeScores
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.runtime import exchange, progress_bar, sharding
from tunevlseg_jax.training import step
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.split import Split

Size = tuple[int, int]
"""(height, width)."""
Watch = Callable[[Array, Batch], None]
"""Sees the logits of a batch, and the batch."""


def nothing(logits: Array, batch: Batch) -> None:
    """A `Watch` that does nothing."""


class Scored(NamedTuple):
    """The scores of a split.

    Attributes:
      samples: of each record.
      sizes: (height, width) of the images.
      classes: of all classes as a map; None where only the records' own prompts are asked.
      volumes: of the volumes whose slices the images are; None for other images.
    """

    samples: list[Sample]
    sizes: set[Size]
    classes: Classes | None
    volumes: VolumeScores | None


class _ScoredImage(NamedTuple):
    """The row of an image, its size, the scores of its records, and those of the volume whose last slice it is."""

    image: int
    size: Size
    samples: list[Sample]
    volume: list[VolumeSample]


def score_records(
    experiment: Experiment,
    learnt: FlatParams,
    split: Split,
    true_masks: Iterator[Target],
    least: float = 0.0,
    tolerance: float = TOLERANCE,
    watch: Watch = nothing,
) -> Scored:
    """Scores every record with its own prompt.

    Args:
      experiment: the experiment.
      learnt: its learnt tensors.
      split: the split to score.
      true_masks: of the images in `own_images`, at the size at which to score; logits are resized to it.
      least: the logit above which a pixel is marked.
      tolerance: of NSD, see `record_scores.score`.
      watch: see `logits_of`.
    """
    records, ours, scored = split.records, own_images(split.records), []
    volumes = VolumeScorer(records, tolerance)
    answers = answers_of(experiment, learnt, split, experiment.config.train.batch_size, watch)
    for image, rows in enumerate(progress_bar.track(targets.rows_by_image(records), "scoring")):
        given = [next(answers) for _ in rows]
        if not ours[image]:
            continue
        target, samples = next(true_masks), []
        for row, (logits, presence), mask in zip(rows, given, target.masks, strict=True):
            predicted = _at(logits, mask.shape) > least
            samples.append(_score(records, row, predicted, mask, tolerance, presence))
            volumes.add(image, samples[-1].label, predicted, mask, _spacing(records, row, mask.shape))
        scored.append(_ScoredImage(image, target.void.shape, samples, volumes.close(image)))
    return _of_all_processes(scored, None, volumes.scores)


def score_every_class(
    experiment: Experiment,
    learnt: FlatParams,
    split: Split,
    true_masks: Iterator[Target],
    least: float = 0.0,
    tolerance: float = TOLERANCE,
) -> Scored:
    """Scores every image asked for every class, with one pass of the vision tower; arguments as in `score_records`."""
    records, asked = split.records, split.records.asking_every_class()
    number, ours, scored, classes = len(records.classes), own_images(records), [], Classes(len(records.classes))
    volumes = VolumeScorer(records, tolerance)
    feed = dataclasses.replace(split.feed, records=asked)
    batch_size = number * max(1, experiment.config.train.batch_size // number)
    answers = answers_of(experiment, learnt, Split(feed, split.table), batch_size)
    for image, rows in enumerate(progress_bar.track(targets.rows_by_image(records), "scoring")):
        given = [next(answers) for _ in range(number)]
        if not ours[image]:
            continue
        target, samples = next(true_masks), []
        size = target.void.shape
        masks = np.zeros((number, *size), bool)
        for row, mask in zip(rows, target.masks, strict=True):
            masks[records.label[row]] |= mask
        logits = np.stack([_at(small, size) for small, _ in given])
        for label, (_, presence) in enumerate(given):
            row, predicted = image * number + label, logits[label] > least
            samples.append(_score(asked, row, predicted, masks[label], tolerance, presence))
            volumes.add(image, samples[-1].label, predicted, masks[label], _spacing(asked, row, size))
        scored.append(_ScoredImage(image, size, samples, volumes.close(image)))
        classes.add(logits - np.float32(least), masks, target.void)
    return _of_all_processes(scored, classes, volumes.scores)


def own_images(records: Records) -> np.ndarray:
    """(image,) bool, the images that this process scores: its share, where the slices of a volume stay together."""
    groups: dict[int | str, int] = {}
    places = records.slices or (None,) * len(records.images)
    names = (image if place is None else place.volume for image, place in enumerate(places))
    group = [groups.setdefault(name, len(groups)) for name in names]
    ours = np.zeros(len(groups), bool)
    ours[exchange.share()] = True
    return ours[group]


def logits_of(
    experiment: Experiment, learnt: FlatParams, split: Split, batch_size: int, watch: Watch = nothing
) -> Iterator[np.ndarray]:
    """The logits of `answers_of`."""
    return (logits for logits, _ in answers_of(experiment, learnt, split, batch_size, watch))


def answers_of(
    experiment: Experiment, learnt: FlatParams, split: Split, batch_size: int, watch: Watch = nothing
) -> Iterator[tuple[np.ndarray, float | None]]:
    """What the model answers to each record, in the split's order, from the devices of all processes.

    `watch` is called with the logits of each batch and the batch, both on the devices.

    Yields:
      The logits at the model's size, (height, width) float32, and the probability that the record's class is there at
      all, None where the model doesn't say.
    """
    mesh = split.feed.mesh
    params = experiment.on_mesh(mesh).frozen | sharding.replicate(learnt, mesh)
    hyper = sharding.replicate(jax.tree.map(lambda values: values[0], experiment.hyper()), mesh)
    for number, batch in enumerate(split.feed.evaluation(batch_size)):
        found = step.answer_step(params, batch.images, batch.phrase, split.table, hyper, network=experiment.network)
        watch(found.logits, batch)
        count = min(batch_size, len(split.records) - number * batch_size)
        logits = sharding.gather_to_host(found.logits)[:count]
        presence = [None] * count
        if found.presence is not None:
            presence = sharding.gather_to_host(found.presence)[:count].tolist()
        yield from zip(logits, presence, strict=True)


def _of_all_processes(scored: list[_ScoredImage], classes: Classes | None, volumes: VolumeScores | None) -> Scored:
    """Joins the scores of each process's images, in the order of the images."""
    images = sorted(itertools.chain.from_iterable(exchange.gather(scored)), key=lambda one: one.image)
    samples = [sample for image in images for sample in image.samples]
    total = None if classes is None else functools.reduce(operator.add, exchange.gather(classes))
    if volumes is not None:
        volumes = volumes._replace(samples=[sample for image in images for sample in image.volume])
    return Scored(samples, {image.size for image in images}, total, volumes)


def _at(logits: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Logits at (height, width), bilinear."""
    return logits if logits.shape == size else resize(logits, (size[0], size[1]), cv2.INTER_LINEAR)


def _score(
    records: Records,
    row: int,
    predicted: np.ndarray,
    mask: np.ndarray,
    tolerance: float = TOLERANCE,
    presence: float | None = None,
) -> Sample:
    label, prompt = records.classes[records.label[row]], records.prompts[records.prompt[row]][0]
    spacing = _spacing(records, row, mask.shape)
    scores = record_scores.score(records.ids[row], label, prompt, predicted, mask, spacing, tolerance)
    return dataclasses.replace(scores, unit=records.unit(row), presence=presence)


def _spacing(records: Records, row: int, size: tuple[int, ...]) -> tuple[float, float] | None:
    """The spacing of a record's rows and columns at (height, width); None if it is unknown."""
    if records.spacing is None or np.isnan(spacing := records.spacing[records.image[row]]).any():
        return None
    height, width = records.images.shape[1:3]
    return float(spacing[0]) * height / size[0], float(spacing[1]) * width / size[1]
