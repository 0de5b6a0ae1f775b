"""What the page's addresses do: each takes what a browser sent, checks it, and returns what the page shows."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from tunevlseg_jax.demonstration import answers, downloads, uploads
from tunevlseg_jax.demonstration.examples import ShownExample
from tunevlseg_jax.demonstration.learning import EPOCHS, MOST_EPOCHS, TrainFunction
from tunevlseg_jax.demonstration.models import MOST_PHRASES, Shown, unique
from tunevlseg_jax.demonstration.sessions import Session, Sessions
from tunevlseg_jax.demonstration.uploads import Limits
from tunevlseg_jax.evaluation.settings import check_threshold
from tunevlseg_jax.runtime.errors import UserError, nearest


@dataclass(frozen=True)
class Demo:
    """What the page shows.

    Attributes:
      models: of everybody.
      load_examples: loads the images to try, when the page first asks for them.
      sessions: of the users.
      limits: of uploads.
      train: `tunevlseg_jax.api.train`.
    """

    models: Sequence[Shown]
    load_examples: Callable[[], Sequence[ShownExample]]
    sessions: Sessions
    limits: Limits
    train: TrainFunction

    @cached_property
    def examples(self) -> Sequence[ShownExample]:
        """The images to try."""
        return self.load_examples()

    def models_of(self, session: Session) -> list[Shown]:
        """Those of everybody, and the user's own runs."""
        shown = list(self.models)
        for one in session.learnt:
            shown.append(Shown(unique(one.name, shown), one.run, one.about, one.lock))
        return shown

    def chosen(self, session: Session, names: Sequence[str]) -> list[Shown]:
        """The models of these names, all without any.

        Raises:
          UserError: there is no model of a name.
        """
        known = {one.name: one for one in self.models_of(session)}
        for name in names:
            if name not in known:
                raise UserError(f"there is no model {name!r}{nearest(name, known)}", "unknown-choice")
        return [known[name] for name in dict.fromkeys(names)] or list(known.values())

    def state(self, session: Session) -> dict[str, Any]:
        """What the page shows when it is loaded."""
        return {
            "models": [{"name": one.name, "about": one.about} for one in self.models_of(session)],
            "limits": {"bytes": self.limits.bytes, "phrases": MOST_PHRASES, "epochs": MOST_EPOCHS},
            "epochs": EPOCHS,
            **session.shown(),
        }

    def examples_shown(self) -> list[dict[str, Any]]:
        """The examples in the page's list."""
        return [{"name": one.name, "phrases": one.phrases, "thumbnail": one.thumbnail} for one in self.examples]

    def example(self, number: str) -> bytes:
        """The encoded image of an example."""
        index = _number(number, int, "the number")
        if not 0 <= index < len(self.examples):
            raise UserError(f"there is no example {index}; reload the page", "no-such-file")
        return self.examples[index].image

    def segment(self, session: Session, data: bytes, phrases: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
        """The answer to an image and phrases, see `answers.answer`."""
        uploads.check(data, self.limits)
        return answers.answer(data, answers.checked_phrases(phrases), self.chosen(session, names))

    def download(
        self, session: Session, data: bytes, name: str, phrases: Sequence[str], names: Sequence[str], threshold: str
    ) -> bytes:
        """The ZIP file of an image, see `downloads.archive`."""
        uploads.check(data, self.limits)
        least = _number(threshold, float, "the threshold")
        check_threshold(least)
        asked, models = answers.checked_phrases(phrases), self.chosen(session, names)
        return downloads.archive(data, name, asked, models, least)

    def correct(self, session: Session, body: bytes) -> dict[str, Any]:
        """Keeps a corrected mask."""
        given = _json_object(body)
        (phrase,) = answers.checked_phrases([str(given.get("phrase", ""))])
        image, mask = (_bytes(given.get(name), f"the {name}") for name in ("image", "mask"))
        for data in (image, mask):
            uploads.check(data, self.limits)
        painted = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_GRAYSCALE)
        if painted is None:
            raise UserError("can't decode the mask: it is not an image, or a broken one", "undecodable")
        pixels = uploads.decode(image, self.models[0].run.preprocessing.window)
        if painted.shape not in (pixels.shape[:2], answers.shown_size((pixels.shape[0], pixels.shape[1]))):
            raise UserError(f"the mask is {painted.shape}, but its image is {pixels.shape[:2]}", "mask-size")
        with session.lock:
            session.corrections.add(pixels, painted > 127, phrase)
        return session.shown()

    def forget(self, session: Session, number: str) -> dict[str, Any]:
        """Removes a correction."""
        with session.lock:
            session.corrections.remove(_number(number, int, "the number"))
        return session.shown()

    def start(self, token: str, body: bytes) -> dict[str, Any]:
        """Starts a training on the user's corrections."""
        given, session = _json_object(body), self.sessions.of(token)
        (start,) = self.chosen(session, [str(given.get("model", self.models[-1].name))])
        epochs = _number(given.get("epochs", EPOCHS), int, "the number of epochs")
        self.sessions.start(token, start, epochs, self.train)
        return session.progress()

    def cancel(self, session: Session) -> dict[str, Any]:
        """Ends the user's training after its present epoch."""
        if session.training is not None:
            session.training.cancel()
        return session.progress()


def _number(value: Any, kind: type, name: str) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be a number, got {value!r}", "wrong-type") from error


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError("the request is no JSON object; reload the page", "wrong-type") from error
    if not isinstance(given, dict):
        raise UserError("the request is no JSON object; reload the page", "wrong-type")
    return given


def _bytes(value: Any, name: str) -> bytes:
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UserError(f"{name} isn't base64; reload the page", "wrong-type") from error
