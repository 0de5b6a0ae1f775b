"""Draws masks of what a prompt names: `python -m tunevlseg_jax.predict --run runs/x --image a.jpg --prompt polyp`."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tunevlseg_jax import cli
from tunevlseg_jax.api import BATCH, check_threshold, load_run
from tunevlseg_jax.data import images, windows
from tunevlseg_jax.data.builders.arrays import check_prompt
from tunevlseg_jax.data.images import SUFFIXES, read_rgb, write_png
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import check_name, write_csv

COLOUR = (255, 64, 64)
OPACITY = 0.4
LIST_FILE = "predictions.csv"
"""The list of the masks in a folder. Only the masks in it, and their overlays, may be replaced."""
COLUMNS: tuple[str, ...] = ("image", "prompt", "mask", "marked")


@dataclass(frozen=True)
class Options:
    """The run, the images and the prompt.

    Attributes:
      run: folder of the run.
      image: image files, or folders of them.
      prompt: the name of the object, such as "polyp".
      output: folder for the masks, which may hold earlier masks; a file that predict didn't write is never replaced.
      threshold: probability above which a pixel belongs to the mask.
      checkpoint: the base model's new place, if it has moved since training.
      window: for images of more than 8 bits, LOW HIGH (the values that become black and white), or "percentile" (of
        each image). None: the window of the run's data set; where it had none, one for all images given, the range of
        the fewest of 8, 10, 12, 14 and 16 bits that hold their values.
    """

    run: str
    image: tuple[str, ...]
    prompt: str
    output: str = "predictions"
    threshold: float = 0.5
    checkpoint: str | None = None
    window: tuple[str, ...] = ()


def main() -> None:
    """Writes `NAME_mask.png`, at the image's size, and `NAME_overlay.png` for each image, and a list of them."""
    options = cli.options(Options, "python -m tunevlseg_jax.predict", __doc__ or "")
    check_prompt(options.prompt, "--prompt")
    check_threshold(options.threshold, "--threshold")
    window = windows.parse(options.window)
    paths = _find(options.image)
    names = _names(paths)
    output = Path(options.output)
    listed = _listed(output / LIST_FILE)
    _check_output(output, names, listed)
    run = load_run(options.run, checkpoint=options.checkpoint)
    console = Console()
    common = images.common_window(paths)
    window = window or run.preprocessing.window or common
    if common is not None and window is not None:
        console.print(f"values of images of more than 8 bits: {windows.described(window)} (--window)", soft_wrap=True)
    report = Table(title=f"{options.prompt!r} in {len(paths)} image{'s' if len(paths) > 1 else ''}")
    for column in ("image", "size", "marked"):
        report.add_column(column, justify="left" if column == "image" else "right")
    for start in track(range(0, len(paths), BATCH), "segmenting", console=console, transient=True):
        pixels = [read_rgb(path, window) for path in paths[start : start + BATCH]]
        masks = run.predict(pixels, options.prompt, threshold=options.threshold)
        for path, image, mask in zip(paths[start : start + BATCH], pixels, masks, strict=True):
            name = f"{names[path]}_mask.png"
            listed[name] = dict(zip(COLUMNS, (path, options.prompt, name, float(mask.mean())), strict=True))
            write_csv(output / LIST_FILE, list(listed.values()))  # before the mask: each mask is listed
            write_png(output / name, mask.astype(np.uint8) * 255)
            write_png(output / f"{names[path]}_overlay.png", overlay(image, mask))
            report.add_row(str(path), f"{image.shape[1]}x{image.shape[0]}", f"{mask.mean():.1%}")
    console.print(report)
    console.print(f"masks and overlays: {output}, listed in {output / LIST_FILE}", soft_wrap=True)


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image (height, width, 3) with the mask (height, width) tinted and outlined."""
    tinted = image * (1 - OPACITY) + np.asarray(COLOUR) * OPACITY
    drawn = np.where(mask[..., None], tinted, image).round().astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(mask.shape) / 400))
    return cv2.drawContours(np.ascontiguousarray(drawn), outlines, -1, COLOUR, width)


def _listed(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of earlier predictions in a folder's list, by mask; none without a list.

    Raises:
      UserError: the file isn't such a list.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"can't read {path}: {error}", "unreadable") from error
    if rows[:1] != [[*COLUMNS]] or any(len(row) != len(COLUMNS) for row in rows):
        raise UserError(f"{path} lacks the columns {', '.join(COLUMNS)}; choose another --output", "other-folder")
    predictions = [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]]
    return {row["mask"]: row for row in predictions}


def _check_output(folder: Path, names: Mapping[Path, str], listed: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises a UserError where a mask would replace another image's, or a file that isn't a prediction."""
    for path, name in names.items():
        earlier = listed.get(f"{name}_mask.png")
        if earlier is not None:
            other = Path(earlier["image"])
            if other.exists() and not other.samefile(path):
                raise UserError(
                    f"{folder} has {other}'s mask where {path}'s would be; choose another --output",
                    "duplicate-name",
                )
            continue
        for part in ("mask", "overlay"):
            if (folder / f"{name}_{part}.png").exists():
                raise UserError(f"{folder} holds another {name}_{part}.png; choose another --output", "other-folder")


def _find(given: Sequence[str]) -> list[Path]:
    """The image files that are meant, those of a folder in the order of their names.

    Raises:
      UserError: nothing is given, a path doesn't exist, a folder holds no images, or a name isn't UTF-8.
    """
    if not given:
        raise UserError("--image needs the names of image files, or of folders of them", "missing-option")
    paths = []
    for path in map(Path, given):
        if not path.exists():
            raise UserError(f"there is no {path}", "no-such-file")
        if path.is_dir():
            files = (file for file in path.iterdir() if not file.name.startswith("."))  # such as macOS's ._a.jpg
            inside = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"{path} holds no images ({', '.join(SUFFIXES)})", "no-images")
            paths += inside
        else:
            paths.append(path)
    for path in paths:
        check_name(str(path))
    return list(dict.fromkeys(paths))


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each image's masks are called: its name without the suffix, or with it where two would collide.

    Raises:
      UserError: two images have the same name.
    """
    stems = Counter(path.stem for path in paths)
    names = {path: path.stem if stems[path.stem] == 1 else path.name for path in paths}
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise UserError(f"{count} images are called {name}, and so would their masks be", "duplicate-name")
    return names


if __name__ == "__main__":
    cli.run(main)
