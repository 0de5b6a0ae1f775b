"""Tests of the forward passes: how many there are, of which sizes, and that the answers don't depend on them."""

import compilation
import cv2
import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tunevlseg_jax.prediction import forward
from tunevlseg_jax.prediction.forward import Predictor, Question
from tunevlseg_jax.run import load_run

quick_compilation = small.quick_compilation


class Counted(Predictor):
    """A predictor whose logits are an image's first value plus the index of the prompt.

    Attributes:
      passes: (images, prompts) of each forward pass.
    """

    def __init__(self) -> None:
        self.passes = []

    def _forward(self, questions, phrases):
        self.passes.append((len(questions), len(questions[0].phrases)))
        logits = [[np.full((2, 2), one.image[0, 0, 0] + index) for index in one.phrases] for one in questions]
        return np.asarray(logits, np.float32), [None] * len(questions)


def image(value: int, size: tuple[int, int] = (1, 1)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


@pytest.mark.parametrize(
    ("images", "prompts", "passes"),
    [
        (1, 1, [(1, 1)]),
        (3, 1, [(1, 1)] * 3),
        (9, 1, [(8, 1), (1, 1)]),
        (16, 1, [(8, 1)] * 2),
        (5, 3, [(2, 3), (2, 3), (1, 3)]),
        (2, 8, [(1, 8)] * 2),
        (2, 20, [(1, 20)] * 2),
    ],
)
def test_passes(images, prompts, passes):
    """Two sizes at most, and no image passes more often than once."""
    predictor = Counted()
    questions = (Question(number, image(number), range(prompts)) for number in range(images))
    answers = list(predictor.logits(questions, ["a"] * prompts))
    assert predictor.passes == passes
    assert [answer.key for answer in answers] == list(range(images))
    for number, logits in answers:
        assert_array_equal(logits[:, 0, 0], number + np.arange(prompts))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.booleans(), max_size=30), st.integers(1, 9))
def test_known_answers_keep_their_place(asked, prompts):
    predictor = Counted()
    questions = [Question(n, image(n), range(prompts) if one else ()) for n, one in enumerate(asked)]
    answers = list(predictor.logits(questions, ["a"] * prompts))
    assert [answer.key for answer in answers] == list(range(len(asked)))
    assert [answer.logits is not None for answer in answers] == asked
    assert sum(images for images, _ in predictor.passes) == sum(asked)
    assert len(set(predictor.passes)) <= 2


def test_large_images_do_not_wait(monkeypatch):
    """The images in memory are bounded by their pixels, not by their number."""
    monkeypatch.setattr(forward, "MOST_PIXELS", 100)
    predictor, alive = Counted(), []
    read = 0

    def questions():
        nonlocal read
        for number in range(20):
            read += 1
            yield Question(number, image(number, (6, 6)), [0])

    for number, _ in predictor.logits(questions(), ["a"]):
        alive.append(read - number)
    assert max(alive) == 3 and set(predictor.passes) == {(1, 1)}


def test_the_label_map_is_the_argmax_above_the_threshold():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 6, 7)).astype(np.float32)
    large = np.stack([cv2.resize(one, (23, 19), interpolation=cv2.INTER_LINEAR) for one in logits])
    for least in (-10.0, 0.0, 0.7):
        expected = np.where(large.max(axis=0) > least, large.argmax(axis=0) + 1, 0)
        assert_array_equal(forward.best_label(logits, (19, 23), least), expected)


@pytest.mark.slow  # it compiles
def test_phrases_of_other_lengths_need_no_other_program():
    run = load_run(small.finished())
    picture = image(9, (60, 80))
    run.predict(picture, "seven")
    with compilation.counted() as compiled:
        run.predict(picture, "a photo of a seven")
    assert not {"answer_step", "encode_text_step"} & compiled.keys()
