"""Users of the page: each has corrections, runs and a training of its own, in a folder of its own."""

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from tunevlseg_jax.demonstration import learning, models
from tunevlseg_jax.demonstration.corrections import Corrections
from tunevlseg_jax.demonstration.learning import TrainFunction, Training
from tunevlseg_jax.demonstration.models import Shown
from tunevlseg_jax.run import Run, load_run
from tunevlseg_jax.runs.card import CARD_FILE
from tunevlseg_jax.runtime.errors import UserError

IN_MEMORY = 32
"""Users whose state is in memory; that of others is read from their folders when they return."""
RUNS_SHOWN = 3
"""The newest runs of a user, which stay loaded."""


class Session:
    """One user.

    Attributes:
      corrections: of this user.
      learnt: the newest runs, as models of the page.
      training: the latest one; None before the first.
      lock: held while the corrections change.
    """

    def __init__(self, folder: Path):
        """Reads what the folder holds.

        Raises:
          UserError: it is broken.
        """
        self.folder, self.lock = folder, threading.Lock()
        self.corrections = Corrections(folder / "corrections")
        self.learnt = list[Shown]()
        self.training: Training | None = None
        for path in _finished(folder / "runs")[-RUNS_SHOWN:]:
            self._show(load_run(path))

    @property
    def is_training(self) -> bool:
        """Whether a training runs."""
        return self.training is not None and self.training.is_alive

    def start(self, start: Shown, epochs: int, train: TrainFunction) -> None:
        """Starts a training on the corrections.

        Raises:
          UserError: there are too few corrections, or the number of epochs is out of range.
        """
        with self.lock:
            records = self.corrections.records()
        number = 1 + max((int(path.name) for path in (self.folder / "runs").glob("[0-9]*")), default=0)
        config = learning.configuration(start.run, records, epochs, self.folder / "runs" / f"{number:03d}")
        self.training = Training(config, records, train, self._show)

    def shown(self) -> dict[str, Any]:
        """Corrections and training, for the page."""
        with self.lock:
            corrections, images = self.corrections.shown(), self.corrections.images
        return {"corrections": corrections, "images": images, "folder": str(self.folder), **self.progress()}

    def progress(self) -> dict[str, Any]:
        """The training, for the page."""
        return {"training": None if self.training is None else self.training.shown()}

    def _show(self, run: Run) -> None:
        assert run.folder is not None
        name = models.unique(f"yours {int(run.folder.name)}", self.learnt)
        self.learnt = [*self.learnt, Shown(name, run, f"{run.config.learner.name}, your corrections")][-RUNS_SHOWN:]


class Sessions:
    """All users, by the token in their cookie."""

    def __init__(self, folder: Path):
        """`folder` holds a folder for each user; its name doesn't reveal the token."""
        self._folder, self._lock = folder, threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def of(self, token: str) -> Session:
        """The session of a token.

        Raises:
          UserError: there is no token, or its folder is broken.
        """
        if not token:
            raise UserError("there is no cookie; open the page first, and let it keep one", "missing-field")
        with self._lock:
            if token not in self._sessions:
                name = hashlib.sha256(token.encode()).hexdigest()[:16]
                self._sessions[token] = Session(self._folder / name)
            self._sessions.move_to_end(token)
            idle = [key for key, one in self._sessions.items() if key != token and not one.is_training]
            for key in idle[: max(0, len(self._sessions) - IN_MEMORY)]:
                del self._sessions[key]
            return self._sessions[token]

    def start(self, token: str, start: Shown, epochs: int, train: TrainFunction) -> None:
        """Starts a training of a user, if no other runs.

        Raises:
          UserError: a training runs, or as in `Session.start`.
        """
        session = self.of(token)
        with self._lock:
            if any(one.is_training for one in self._sessions.values()):
                raise UserError("a training runs already; wait for its end", "training-runs")
            session.start(start, epochs, train)

    def end(self) -> None:
        """Cancels what still trains, and waits for it."""
        with self._lock:
            running = [one.training for one in self._sessions.values() if one.training is not None]
        for training in running:
            training.cancel()
        for training in running:
            training.wait()


def _finished(folder: Path) -> list[Path]:
    """The folders of finished runs, in the order of their numbers."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*/{CARD_FILE}"))
