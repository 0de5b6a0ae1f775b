"""A stand-in for a model: each prompt marks the pixels of one colour channel, so that masks are known."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tunevlseg_jax.prediction.forward import Answer, Question, sigmoid

CHANNELS = {"red": 0, "green": 1, "blue": 2}


class FakePredictor:
    """Logits from -4 to 4 of a channel from 0 to 255, at the image's own size.

    Attributes:
      asked: the number of images that were asked for.
      has_presence: whether it answers the presence of each prompt's object, the largest value of its channel.
    """

    fingerprint = "f" * 64

    def __init__(self) -> None:
        self.asked = 0
        self.has_presence = False

    def probability(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(logits)

    def check(self, phrases: Sequence[str]) -> None:
        """No prompt is too long."""

    def logits(self, questions: Iterable[Question], phrases: Sequence[str]) -> Iterator[Answer]:
        return (answer for answer, _ in self.answers(questions, phrases))

    def answers(
        self, questions: Iterable[Question], phrases: Sequence[str]
    ) -> Iterator[tuple[Answer, np.ndarray | None]]:
        for question in questions:
            self.asked += bool(question.phrases)
            channels = [question.image[..., CHANNELS[phrases[index]]] for index in question.phrases]
            logits = np.stack(channels).astype(np.float32) * (8 / 255) - 4 if channels else None
            presence = np.array([channel.max() / 255 for channel in channels], np.float32)
            yield Answer(question.key, logits), presence if channels and self.has_presence else None
