"""Images and masks in memory, as a data set."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunevlseg_jax.data import prepared, registry, windows
from tunevlseg_jax.data.examples import LEVEL, SPLITS, Example, Record
from tunevlseg_jax.data.images import encode_png
from tunevlseg_jax.data.preprocessing import Preprocessing
from tunevlseg_jax.data.settings import Data
from tunevlseg_jax.data.windows import Window
from tunevlseg_jax.runtime.errors import UserError, nearest

NAME = "records"
"""The name of the prepared set that `write` writes."""


@dataclass(frozen=True)
class ArrayDataset:
    """Images, masks and prompts in memory.

    Attributes:
      splits: the examples of train, val and test, for the splits that have any.
      window: of the images of more than 8 bits; None without any.
    """

    splits: Mapping[str, tuple[Example, ...]]
    window: Window | None = None


def records(
    images: Sequence[Any] | np.ndarray,
    masks: Sequence[Any] | np.ndarray,
    prompts: str | Sequence[str],
    *,
    split: str | Sequence[str],
    window: Window | None = None,
) -> ArrayDataset:
    """A data set of images, one mask for each, and prompts.

    Args:
      images: (height, width), (height, width, 3) or (height, width, 4) each: grey, RGB, or RGBA, whose alpha is
        dropped. Sizes may differ. Other types than uint8 are scaled by `window`.
      masks: (height, width) each, of the image's size: bool, 0 and 1, or 0 and 255.
      prompts: one for all images, or one for each. Images with the same prompt form a class.
      split: "train", "val" or "test" for all images, or one for each.
      window: (low, high), the values that become 0 and 255, or "percentile", of images that aren't uint8; None for the
        one that `windows.default` finds for all of them.

    Raises:
      UserError: a length, shape, type or value is wrong; the message has the index.
    """
    count = len(images)
    if not count:
        raise UserError("there are no images", "no-images")
    if len(masks) != count:
        raise UserError(f"got {count} images but {len(masks)} masks", "counts-differ")
    window = array_window(images, window)
    prompts, splits = for_each(prompts, count, "prompts"), for_each(split, count, "splits")
    examples: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for index in range(count):
        if splits[index] not in SPLITS:
            raise UserError(f"split {index} is {splits[index]!r}{nearest(str(splits[index]), SPLITS)}", "unknown-split")
        check_prompt(prompts[index], f"prompt {index}")
        image = to_rgb(images[index], f"image {index}", window)
        mask = _to_mask(masks[index], image.shape[:2], index)
        record = Record(f"{index:06d}", prompts[index], 0, 1, {LEVEL: (prompts[index],)})
        example = Example(f"{index:06d}", "", encode_png(image), (encode_png(mask),), (record,))
        examples[splits[index]].append(example)
    return ArrayDataset({name: tuple(of_split) for name, of_split in examples.items() if of_split}, window)


def write(dataset: ArrayDataset, root: Path) -> None:
    """Writes the data set into `root` as a prepared set."""
    from tunevlseg_jax.data.builders import writer  # loads TensorFlow Datasets

    how = Preprocessing(dataset.window)
    writer.write(root, NAME, dataset.splits, "Images and masks from memory.", how)


def is_written(dataset: ArrayDataset, root: Path) -> bool:
    """Whether `root` holds exactly this data set as a prepared set."""
    if NAME not in prepared.names(root):
        return False
    stored = registry.splits(Data(name=NAME, root=str(root)))
    return set(stored) == set(dataset.splits) and all(
        tuple(prepared.load(root, NAME, name)) == dataset.splits[name] for name in stored
    )


def settings(data: Data, root: Path) -> Data:
    """The settings with the data set that `write` wrote into `root`."""
    return dataclasses.replace(data, name=NAME, root=str(root), protocol="paper", prompt_index=LEVEL)


def for_each(values: str | Sequence[str], count: int, name: str) -> list[str]:
    """One string for each of `count` images.

    Raises:
      UserError: there are more or fewer.
    """
    if isinstance(values, str):
        return [values] * count
    if len(values) != count:
        raise UserError(f"got {count} images but {len(values)} {name}; give one for all or for each", "counts-differ")
    return list(values)


def check_prompt(prompt: Any, name: str) -> None:
    """Raises a UserError unless a prompt is a string that says something."""
    if not isinstance(prompt, str):
        raise UserError(f"{name} must be a string, got {prompt!r}", "wrong-type")
    if not prompt.strip():
        raise UserError(f"{name} is empty; it must name the object", "empty-prompt")


def check_prompts(prompts: Any) -> tuple[str, ...]:
    """Several prompts for one image; raises a UserError unless they are strings that say something, at most 255."""
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    for index, text in enumerate(prompts):
        check_prompt(text, f"prompt {index}")
    if not 0 < len(prompts) < 256:
        raise UserError(f"there must be 1 to 255 prompts, got {len(prompts)}", "out-of-range")
    return prompts


def array_window(images: Iterable[Any], window: Window | None) -> Window | None:
    """The window given, else the default one for all arrays that aren't uint8, or None if all are.

    Raises:
      UserError: the window is invalid.
    """
    if window is not None:
        return windows.checked(window)
    deep = [array for image in images if (array := np.asarray(image)).dtype.kind in "uif" and array.dtype != np.uint8]
    return windows.default(windows.joined(map(windows.value_range, deep))) if deep else None


def to_rgb(image: Any, name: str, window: Window | None = None) -> np.ndarray:
    """(height, width, 3) uint8 of a grey, RGB or RGBA array; `name` is what to call it in an error.

    Args:
      image: the array.
      name: of the image, for error messages.
      window: scales arrays that aren't uint8.

    Raises:
      UserError: it has another shape or type.
    """
    array = np.asarray(image)
    if array.dtype != np.uint8 and (array.dtype.kind not in "uif" or window is None):
        raise UserError(f"{name} must be uint8, from 0 to 255, got {array.dtype}", "wrong-type")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise UserError(f"{name} must have shape (height, width[, 3 or 4]), got {array.shape}", "wrong-shape")
    array = array if array.dtype == np.uint8 or window is None else windows.scaled(array, window)
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else np.ascontiguousarray(array[..., :3])


def _to_mask(mask: Any, size: tuple[int, ...], index: int) -> np.ndarray:
    """(height, width) uint8 of 0 and 1."""
    array = np.asarray(mask)
    if array.shape != size:
        raise UserError(f"mask {index} has shape {array.shape}, but its image has height and width {size}", "mask-size")
    if array.dtype.kind not in "bui":
        raise UserError(f"mask {index} must be bool or integers, 0 and 1 or 0 and 255, got {array.dtype}", "wrong-type")
    values = set(np.unique(array).tolist())
    if not (values <= {0, 1} or values <= {0, 255}):
        raise UserError(f"mask {index} must hold 0 and 1 or 0 and 255, got {max(values - {0, 1})}", "mask-not-binary")
    return (array != 0).astype(np.uint8)
