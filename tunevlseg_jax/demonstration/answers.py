"""Answers for the browser: probabilities as grey images, of which it draws the masks of any threshold by itself."""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from tunevlseg_jax.data.builders.arrays import check_prompt
from tunevlseg_jax.data.images import encode_png, resize, size_with_side
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.demonstration import uploads
from tunevlseg_jax.demonstration.models import MOST_PHRASES, Shown
from tunevlseg_jax.prediction import forward
from tunevlseg_jax.runtime.errors import UserError

SHOWN_SIDE = 1024
"""Pixels of the longer side of the images that the browser shows; larger ones are shown smaller."""
THUMBNAIL = 112
"""Pixels of the longer side of a thumbnail."""
LEVELS = 100
"""Grey values of a map: n says that a probability is above n/100, and not above (n + 1)/100."""
QUALITY = 90
"""Of the JPEG files of shown images."""


def checked_phrases(phrases: Sequence[str]) -> tuple[str, ...]:
    """The phrases without surrounding spaces, each once.

    Raises:
      UserError: there are none, or too many.
    """
    asked = tuple(dict.fromkeys(" ".join(phrase.split()) for phrase in phrases if phrase.strip()))
    if not asked:
        check_prompt("", "the phrase")
    if len(asked) > MOST_PHRASES:
        raise UserError(f"there may be {MOST_PHRASES} phrases at most, got {len(asked)}", "out-of-range")
    return asked


def answer(data: bytes, phrases: Sequence[str], models: Sequence[Shown]) -> dict[str, Any]:
    """What the browser shows of an image.

    Args:
      data: a checked upload.
      phrases: checked phrases.
      models: to ask.

    Returns:
      "width" and "height" of the image; "preview", the image as it is shown; "phrases"; "models" with "name", "about"
      and a map for each phrase: "levels", see `levels`, and "highest", the highest probability, calibrated where the
      run is.

    Raises:
      UserError: the image is broken, or a phrase is too long.
    """
    windows: set[Window | None] = {one.run.preprocessing.window for one in models}
    images = {window: uploads.decode(data, window) for window in windows}
    first = images[models[0].run.preprocessing.window]
    height, width = first.shape[:2]
    size = shown_size((height, width))
    found = [(one, one.logits(images[one.run.preprocessing.window], phrases)) for one in models]
    return {
        "width": width,
        "height": height,
        "preview": preview(first, size),
        "phrases": list(phrases),
        "models": [
            {
                "name": one.name,
                "about": one.about,
                "maps": [_map(one, small, size) for small in logits],
            }
            for one, logits in found
        ],
    }


def levels(logits: np.ndarray) -> np.ndarray:
    """(height, width) uint8 from 0 to 99: n where the probability is above n/100 and not above (n + 1)/100.

    A pixel is in the mask of threshold t/100 where its level is at least t, as in `Run.predict`.
    """
    scaled = np.ceil(forward.sigmoid(logits) * np.float32(LEVELS)) - 1
    return np.clip(scaled, 0, LEVELS - 1).astype(np.uint8)


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which the browser shows an image of a (height, width)."""
    return size if max(size) <= SHOWN_SIDE else size_with_side(size, SHOWN_SIDE)


def thumbnail(image: np.ndarray) -> str:
    """The data URL of a small copy of an image (height, width, 3)."""
    height, width = image.shape[:2]
    return data_url(encode_png(resize(image, size_with_side((height, width), THUMBNAIL), cv2.INTER_AREA)), "png")


def preview(image: np.ndarray, size: tuple[int, int]) -> str:
    """The data URL of an image (height, width, 3) at the size that is shown."""
    small = image if image.shape[:2] == size else resize(image, size, cv2.INTER_AREA)
    if max(size) <= 256:  # the blocks of JPEG show in small images
        return data_url(cv2.imencode(".png", small[..., ::-1])[1].tobytes(), "png")
    return data_url(cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(), "jpeg")


def data_url(data: bytes, kind: str) -> str:
    """An encoded image of a kind such as "png" as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _map(model: Shown, logits: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    large = forward.enlarge(logits, size)
    highest = float(model.run.predictor.probability(large.max()))
    grey = cv2.imencode(".png", levels(large), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return {"levels": data_url(grey.tobytes(), "png"), "highest": round(highest, 4)}
