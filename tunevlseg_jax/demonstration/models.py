"""The models that the page compares: each base model as it is, and each run."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tunevlseg_jax.prediction.forward import Question
from tunevlseg_jax.run import Run, load_model, load_run

ZERO_SHOT = "zero-shot"
SIDES = (1, 2, 4, 8)
"""Numbers of phrases that programs are compiled for; a question is filled up to the next of them."""
MOST_PHRASES = SIDES[-1]


class Turns:
    """A lock that knows for how long it has been free."""

    def __init__(self) -> None:
        self._lock, self._freed = threading.Lock(), time.monotonic()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._freed = time.monotonic()
        self._lock.release()

    @property
    def idle_seconds(self) -> float:
        """Seconds since it was freed; 0 while it is held."""
        return 0.0 if self._lock.locked() else time.monotonic() - self._freed


@dataclass(frozen=True)
class Shown:
    """A model on the page.

    Attributes:
      name: unique on the page.
      run: answers for it.
      about: the learner and the data set of a run, or the base model.
      lock: held while it computes, so that many requests need no more memory than one.
    """

    name: str
    run: Run
    about: str
    lock: Turns = field(default_factory=Turns)

    def logits(self, image: np.ndarray, phrases: Sequence[str]) -> np.ndarray:
        """(phrase, height, width) float32 logits at the model's size of a (height, width, 3) uint8 image.

        Raises:
          UserError: a phrase is too long.
        """
        asked = next(side for side in SIDES if side >= len(phrases))
        with self.lock:
            logits = self._ask(image, (*phrases, *[phrases[-1]] * (asked - len(phrases))))
        return logits[: len(phrases)]

    def warm_up(self, phrases: int) -> None:
        """Compiles the program for this number of phrases, one of SIDES; others are answered meanwhile."""
        self._ask(np.zeros((8, 8, 3), np.uint8), ("a thing",) * phrases)

    def _ask(self, image: np.ndarray, phrases: Sequence[str]) -> np.ndarray:
        ((_, logits),) = self.run.predictor.logits([Question(None, image, range(len(phrases)))], phrases)
        assert logits is not None
        return logits


def load(folders: Sequence[str], model: str, checkpoint: str | None) -> list[Shown]:
    """The models of the page, each base model once before the first run on it.

    Args:
      folders: of runs.
      model: the base model to show as it is if there are no runs.
      checkpoint: the present place of the runs' base model, if it has moved.

    Raises:
      UserError: a run or the model can't be loaded.
    """
    if not folders:
        return [Shown(ZERO_SHOT, load_model(model), Path(model).name)]
    shown, bases = list[Shown](), set[str]()
    for folder in dict.fromkeys(folders):
        run = load_run(folder, checkpoint=checkpoint)
        base = run.config.model.checkpoint
        if base not in bases:
            bases.add(base)
            name = ZERO_SHOT if len(bases) == 1 else f"{ZERO_SHOT} {Path(base).name}"
            shown.append(Shown(unique(name, shown), run.zero_shot(), Path(base).name))
        shown.append(of_run(run, unique(Path(folder).resolve().name, shown)))
    return shown


def of_run(run: Run, name: str) -> Shown:
    """A run on the page."""
    return Shown(name, run, f"{run.config.learner.name}, {run.config.data.name}")


def unique(name: str, others: Sequence[Shown]) -> str:
    """The name, or with the first number that no other model has."""
    taken, number, free = {one.name for one in others}, 1, name
    while free in taken:
        number += 1
        free = f"{name} {number}"
    return free
