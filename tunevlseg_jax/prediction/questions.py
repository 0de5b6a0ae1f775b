"""The images and prompts of a call from Python, as questions to a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.data.builders import arrays
from tunevlseg_jax.data.builders.arrays import check_prompt, check_prompts, for_each, to_rgb
from tunevlseg_jax.data.medical import inputs
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.prediction.forward import Question
from tunevlseg_jax.prediction.frames import first_values
from tunevlseg_jax.runtime.errors import UserError


def as_questions(
    image: Any, prompt: str | Sequence[str], window: Window | None
) -> tuple[list[Question], tuple[str, ...], bool]:
    """The questions of a call, the phrases that they index, and whether the call asks for one answer or for a list.

    Args:
      image: as in `Run.predict`; the key of its question is its (height, width).
      prompt: likewise.
      window: as in `read_images`.

    Raises:
      UserError: an image or a prompt is invalid, or their numbers differ.
    """
    images, is_list = read_images(image, window)
    if not is_list and not isinstance(prompt, str):
        phrases = check_prompts(prompt)
        questions = [Question(images[0].shape[:2], images[0], range(len(phrases)))]
    else:
        prompts = for_each(prompt, len(images), "prompts")
        for index, text in enumerate(prompts):
            check_prompt(text, f"prompt {index}" if len(set(prompts)) > 1 else "prompt")
        phrases = tuple(dict.fromkeys(prompts))
        pairs = zip(images, prompts, strict=True)
        questions = [Question(one.shape[:2], one, [phrases.index(text)]) for one, text in pairs]
    return questions, phrases, not is_list and isinstance(prompt, str)


def read_images(image: Any, window: Window | None) -> tuple[list[np.ndarray], bool]:
    """The (height, width, 3) uint8 images of a call, and whether it gives several.

    Args:
      image: as in `Run.predict`.
      window: of images of more than 8 bits; None for that of `windows.default` for all of them.

    Raises:
      UserError: an image is invalid.
    """
    is_list = isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4)
    given = list(image) if is_list else [image]
    arrays_ = [_first_values(Path(item)) if isinstance(item, str | Path) else item for item in given]
    window = arrays.array_window(arrays_, window)
    names = [f"image {index}" if is_list else "the image" for index in range(len(given))]
    return [to_rgb(array, name, window) for array, name in zip(arrays_, names, strict=True)], is_list


def _first_values(path: Path) -> np.ndarray:
    """The values of a file's first frame; raises a UserError for a medical file, which has slices."""
    if inputs.kind_of(path):
        raise UserError(f"{path} is a medical file, which Run.predict_volume predicts slice by slice", "medical-file")
    return first_values(path)
