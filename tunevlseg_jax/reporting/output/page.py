"""The report as one HTML file that needs no network: tables, figures, samples with masks over them, runs."""

import base64
import hashlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_rgb
from PIL import Image

from tunevlseg_jax import __version__
from tunevlseg_jax.config import Config
from tunevlseg_jax.reporting import cells
from tunevlseg_jax.reporting.cells import Key
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.headings import shown
from tunevlseg_jax.reporting.output.content import Content
from tunevlseg_jax.reporting.output.options import PROGRAM
from tunevlseg_jax.reporting.pictures import Picture, Predictor
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runs.card import CONFIG_FILE
from tunevlseg_jax.runtime import schema

LARGEST_SVG = 500_000
"""Bytes; a figure that is larger as an SVG becomes a PNG."""
QUALITY = 82
"""Of the samples' WebP."""


def render(content: Content) -> str:
    """The page's HTML; whatever users named is escaped, and no script but the page's own would run."""
    loader = PackageLoader("tunevlseg_jax.reporting.output", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    script, css = ((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    predictors = [who for records in content.samples.values() for who in records[0].predicted]
    data = {
        "sets": {data: [_record(picture) for picture in pictures] for data, pictures in content.samples.items()},
        "colours": {_name(who): style.colour(who[1]) for who in predictors},
        "truth": style.TRUTH,
        "runs": [_run(key, run) for key, run in content.cells.compared],
    }
    return environment.get_template("page.html.jinja").render(
        content=content,
        figures=[_figure(figure) for figure in content.figures],
        data=data,
        footer=f"Made by {PROGRAM}, tunevlseg_jax {__version__}.",
        style=Markup(css),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        json=Markup(json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")),  # ends no <script>
    )


def _figure(figure: style.Picture) -> dict[str, Any]:
    drawn = style.svg(figure)
    small = len(drawn.encode()) <= LARGEST_SVG
    details = {"name": figure.name, "title": figure.title, "caption": figure.caption}
    details |= {"inches": figure.figure.get_figwidth()}
    return details | {"svg": Markup(drawn) if small else None, "png": None if small else _uri("png", style.png(figure))}


def _run(key: Key, run: Run) -> dict[str, Any]:
    """A row of the table of runs, with the details of its dialog."""
    test = cells.tested(run)
    return {
        "data": key.data,
        "model": key.model,
        "combination": ", ".join(filter(None, (shown(key.combination), key.ablation))),
        "name": f"{run.role} {run.folder.name}" + ("" if (fold := run.config.data.fold) is None else f", fold {fold}"),
        "val": run.validation,
        "test": None if test is None else test["dice"],
        "folder": str(run.folder),
        "trained": not run.zero_shot,
        "command": command(run),
        "changes": {name: json.dumps(value, ensure_ascii=False) for name, value in changes(run.config).items()},
    }


def command(run: Run) -> str | None:
    """The command in a run's card, or else one that trains the run again beside it; None where nothing trains."""
    if run.zero_shot:
        return None
    if isinstance(stored := run.card.get("command"), str):
        return stored
    config = str(run.folder / CONFIG_FILE)
    return shlex.join(["python", "-m", "tunevlseg_jax.train", "--config", config, "--workdir", f"{run.folder}-again"])


def changes(config: Config) -> dict[str, Any]:
    """The fields of a run that differ from what `Config` and its classes have as defaults, by their names."""
    defaults = schema.flat(schema.to_json(Config(learner=type(config.learner)())))
    fields = schema.flat(schema.to_json(config))
    return {name: value for name, value in fields.items() if defaults.get(name) != value}


def _record(picture: Picture) -> dict[str, Any]:
    """A sample, its pixels as data URIs."""
    encoded = cv2.imencode(".webp", cv2.cvtColor(picture.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    predicted = {
        _name(who): {"dice": picture.dice[who], "mask": _layer(mask, style.colour(who[1]))}
        for who, mask in picture.predicted.items()
    }
    return {
        "id": picture.id,
        "why": picture.why,
        "prompt": picture.prompt,
        "image": _uri("webp", encoded[1].tobytes()),
        "truth": _layer(_outline(picture.truth), style.TRUTH),
        "predicted": predicted,
    }


def _outline(mask: np.ndarray) -> np.ndarray:
    """A mask's outermost pixels, so that what is predicted shows inside."""
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inside == 0)


def _layer(mask: np.ndarray, colour: str) -> str:
    """A mask as a PNG of one bit a pixel, transparent where it is empty."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, *(round(255 * part) for part in to_rgb(colour))])
    file = io.BytesIO()
    image.save(file, "PNG", bits=1, transparency=0, optimize=True)
    return _uri("png", file.getvalue())


def _name(who: Predictor) -> str:
    model, combination = who
    return f"{shown(combination)}, {model}"


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
