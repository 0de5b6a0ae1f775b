"""Downloads: the files that `predict` writes for an image, of each model, as one ZIP file."""

import io
import re
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from tunevlseg_jax.data.images import SUFFIXES
from tunevlseg_jax.demonstration.models import Shown
from tunevlseg_jax.prediction import planning, table
from tunevlseg_jax.prediction.coco import CocoFile
from tunevlseg_jax.prediction.planning import Settings
from tunevlseg_jax.prediction.session import Session
from tunevlseg_jax.prediction.walk import Found

LONGEST_NAME = 60


def archive(data: bytes, name: str, phrases: Sequence[str], models: Sequence[Shown], threshold: float) -> bytes:
    """A ZIP file with a folder for each model: masks, overlays, a label map of several phrases, tables and COCO JSON.

    Args:
      data: a checked upload.
      name: of the user's file, for the names of the masks.
      phrases: checked phrases.
      models: to ask.
      threshold: probability above which a pixel belongs to a mask.

    Raises:
      UserError: the image is broken, a phrase is too long, or pycocotools isn't installed.
    """
    content = io.BytesIO()
    path = safe_path(name, gif=data[:3] == b"GIF")
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as file:
        for number, model in enumerate(models, 1):
            folder = Path(temporary) / f"{number}_{safe_word(model.name)}"
            folder.mkdir()
            _predict(data, path, tuple(phrases), model, threshold, folder)
            for written in sorted(folder.rglob("*")):
                file.write(written, written.relative_to(temporary))
    return content.getvalue()


def safe_path(name: str, *, gif: bool) -> Path:
    """The name of a user's file without folders and special characters, with the ending of an image or none."""
    given = Path(re.split(r"[/\\]", name)[-1])
    ending = ".gif" if gif else given.suffix.lower() if given.suffix.lower() in SUFFIXES else ""
    return Path(f"{safe_word(given.stem)}{ending}")


def safe_word(name: str) -> str:
    """A name as a part of a path: letters, digits, "-" and "_", without dots."""
    return re.sub(r"[^\w-]+", "-", name)[:LONGEST_NAME].strip("-") or "image"


def _predict(data: bytes, path: Path, phrases: tuple[str, ...], model: Shown, threshold: float, output: Path) -> None:
    """Writes what the command predict writes."""
    masks, maps = table.masks_of(output), table.label_maps_of(output)
    settings = Settings(
        prompts=phrases,
        threshold=threshold,
        run=model.name,
        run_sha256=model.run.predictor.fingerprint[:12],
        output=output,
        window=model.run.preprocessing.window,
    )
    (plan,) = planning.plan([Found(path, path.stem)], settings, masks, maps)
    session = Session(model.run.predictor, settings, masks, maps, [CocoFile(output)])
    with model.lock:
        for _ in session.run([plan._replace(data=data)]):
            pass
    for failure in session.failures:
        raise failure
