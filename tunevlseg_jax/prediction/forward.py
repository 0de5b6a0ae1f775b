"""The forward passes of prediction: any number of images, in batches of two sizes."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any, Generic, NamedTuple, TypeVar

import cv2
import jax
import numpy as np

from tunevlseg_jax.data.images import resize
from tunevlseg_jax.models.features import Candidates
from tunevlseg_jax.models.parameters import FlatParams
from tunevlseg_jax.models.settings import Masks
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training import step
from tunevlseg_jax.training.experiment import Experiment

T = TypeVar("T")

BATCH = 8
"""Masks in a batch. The images that don't fill a batch pass one by one: two programs serve any number of images."""
TOKENS = 8
"""The number of tokens of a phrase is filled up to a multiple of it: one program serves short and longer phrases."""
MOST_PIXELS = 2**26
"""Pixels of the images that wait for a batch; larger ones pass one by one, so that memory stays bounded."""


class Question(NamedTuple, Generic[T]):
    """An image and its prompts.

    Attributes:
      key: comes back with the answer.
      image: (height, width, 3) uint8, RGB.
      phrases: indices of the prompts; none for an image whose answer is known. All other questions of a call have the
        same number of them.
    """

    key: T
    image: np.ndarray
    phrases: Sequence[int]


class Answer(NamedTuple, Generic[T]):
    """The answer to a question.

    Attributes:
      key: of the question.
      logits: (prompt, height, width) float32 at the model's size; None for a question without prompts.
    """

    key: T
    logits: np.ndarray | None


class Predictor:
    """A model with its learnt tensors, ready to answer questions."""

    def __init__(self, experiment: Experiment, learnt: FlatParams, temperature: float = 1.0):
        """
        Args:
          experiment: the model.
          learnt: its learnt tensors.
          temperature: divides the logits in probabilities; masks don't depend on it.
        """
        self.temperature = temperature
        self._experiment, self._learnt = experiment, learnt
        self._params = {**experiment.frozen, **learnt}
        self._hyper = jax.tree.map(lambda values: np.asarray(values)[0], experiment.hyper())  # compiles nothing
        self._encode_text = lru_cache(maxsize=16)(partial(experiment.encode_text, multiple=TOKENS))

    @property
    def masks(self) -> Masks:
        """What its masks are."""
        return self._experiment.masks

    def check(self, phrases: Sequence[str]) -> None:
        """Raises a UserError if a prompt is too long for the model."""
        self._experiment.token_table(phrases)

    def candidates(self, image: np.ndarray, phrases: Sequence[str]) -> tuple[Candidates, np.ndarray]:
        """The instances that the model proposes, and the presence as in `answers`.

        Args:
          image: (height, width, 3) uint8, RGB.
          phrases: at least one prompt, which takes the place of the batch.

        Raises:
          UserError: a prompt is too long, or the masks aren't those of instances.
        """
        if self.masks != "instances":
            raise UserError('candidates need masks="instances", got masks="semantic"', "masks-unfit")
        question = Question(None, image, range(len(phrases)))
        found = step.candidates_step(*self._inputs([question], tuple(phrases)), network=self._experiment.network)
        return jax.tree.map(np.asarray, found)

    def logits(self, questions: Iterable[Question[T]], phrases: Sequence[str]) -> Iterator[Answer[T]]:
        """The answers in the order of the questions, see `answers`."""
        return (answer for answer, _ in self.answers(questions, phrases))

    def answers(
        self, questions: Iterable[Question[T]], phrases: Sequence[str]
    ) -> Iterator[tuple[Answer[T], np.ndarray | None]]:
        """The answers in the order of the questions, which are read a batch ahead at most.

        Yields:
          An answer, and (prompt,) float32, the probability that each prompt's object is there at all; None for a
          question without prompts, and where the model doesn't say.

        Raises:
          UserError: a prompt is too long.
        """
        phrases, waiting, masks, pixels = tuple(phrases), [], 0, 0
        for question in questions:
            waiting.append(question)
            masks += len(question.phrases)
            pixels += question.image.shape[0] * question.image.shape[1]
            if 0 < masks <= BATCH - len(question.phrases) and pixels <= MOST_PIXELS:
                continue
            is_full = masks > BATCH - len(question.phrases)
            yield from self._answers(waiting, phrases, at_once=is_full)
            waiting, masks, pixels = [], 0, 0
        yield from self._answers(waiting, phrases, at_once=False)

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """The probability of each logit, float32, at the run's temperature."""
        return sigmoid(logits / np.float32(self.temperature))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what decides masks and probabilities: tensors, image size, kind of masks, a fitted temperature."""
        digest = hashlib.sha256(self._experiment.pretrained.sha256.encode())
        digest.update(repr(self._experiment.image_size).encode())
        for name, array in sorted(self._learnt.items()):
            digest.update(name.encode() + np.asarray(array).tobytes())
        if self.masks != "semantic":
            digest.update(self.masks.encode())
        if self.temperature != 1:
            digest.update(repr(self.temperature).encode())
        return digest.hexdigest()

    def _answers(
        self, questions: Sequence[Question[T]], phrases: tuple[str, ...], *, at_once: bool
    ) -> Iterator[tuple[Answer[T], np.ndarray | None]]:
        """The answers, from one forward pass or from one for each image."""
        asked = [question for question in questions if question.phrases]
        batches = [asked] if at_once else [[question] for question in asked]
        found = (answer for batch in batches for answer in zip(*self._forward(batch, phrases), strict=True))
        for question in questions:
            logits, presence = next(found) if question.phrases else (None, None)
            yield Answer(question.key, logits), presence

    def _forward(
        self, questions: Sequence[Question[Any]], phrases: tuple[str, ...]
    ) -> tuple[np.ndarray, Sequence[np.ndarray | None]]:
        """(image, prompt, height, width) logits, and the presence of each image's prompts.

        The vision tower sees each image once, however many its prompts.
        """
        found = step.answer_step(*self._inputs(questions, phrases), network=self._experiment.network)
        logits = np.asarray(found.logits).reshape(len(questions), -1, *found.logits.shape[1:])
        if found.presence is None:
            return logits, [None] * len(questions)
        return logits, list(np.asarray(found.presence).reshape(len(questions), -1))

    def _inputs(self, questions: Sequence[Question[Any]], phrases: tuple[str, ...]) -> tuple[Any, ...]:
        """The arguments of a step."""
        size = self._experiment.image_size
        return (
            self._params,
            np.stack([resize(question.image, size, cv2.INTER_CUBIC) for question in questions]),
            np.asarray([phrase for question in questions for phrase in question.phrases], np.int32),
            self._encode_text(phrases),
            self._hyper,
        )


def enlarge(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(height, width) logits at an image's (height, width), bilinear."""
    return resize(logits, size, cv2.INTER_LINEAR)


def best_label(logits: np.ndarray, size: tuple[int, int], least: float) -> np.ndarray:
    """The label map of (prompt, height, width) logits: n where prompt n, from 1, is the likeliest and above `least`.

    Args:
      logits: at the model's size.
      size: (height, width) of the image.
      least: the logit above which a pixel belongs to a prompt; 0 elsewhere.

    Returns:
      (height, width) uint8. One prompt at a time is enlarged, so that memory doesn't grow with their number.
    """
    best = np.full(size, np.float32(least))
    labels = np.zeros(size, np.uint8)
    for label, small in enumerate(logits, 1):
        large = enlarge(small, size)
        above = large > best
        labels[above] = label
        np.maximum(best, large, out=best)
    return labels


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """The probability of each logit, float32, without overflow."""
    logits = logits.astype(np.float32)
    return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)


def logit(probability: float) -> float:
    """The logit of a probability between 0 and 1."""
    return math.log(probability / (1 - probability))
