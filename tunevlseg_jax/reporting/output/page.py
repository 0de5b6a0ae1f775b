"""The report as one HTML file that needs no network: tables, figures, samples with masks over them, runs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import to_rgb
from PIL import Image

from tunevlseg_jax.config import Config
from tunevlseg_jax.reporting import cells
from tunevlseg_jax.reporting.cells import Key
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.style import TRUTH
from tunevlseg_jax.reporting.headings import shown
from tunevlseg_jax.reporting.pictures import Found, Picture
from tunevlseg_jax.reporting.runs import Run, Skipped
from tunevlseg_jax.reporting.table import Table
from tunevlseg_jax.runs.card import CONFIG_FILE
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.files import atomic_file

LARGEST_SVG = 500_000
"""Bytes; a figure that is larger as an SVG becomes a PNG."""
QUALITY = 82
"""Of the samples' WebP."""


@dataclass(frozen=True)
class Content:
    """What the page shows.

    Attributes:
      title: of the page.
      summary: a sentence below it.
      footer: what made it, and when.
      tables: in their order.
      untabled: for each table that isn't made, why.
      figures: likewise.
      undrawn: for each figure that isn't made, why.
      samples: records to look at, by data set.
      runs: all that count, each with its cell.
      skipped: what doesn't.
    """

    title: str
    summary: str
    footer: str
    tables: Sequence[Table]
    untabled: Sequence[str]
    figures: Sequence[style.Picture]
    undrawn: Sequence[str]
    samples: Mapping[str, Sequence[Picture]]
    runs: Sequence[tuple[Key, Run]]
    skipped: Sequence[Skipped]


def write(path: Path, content: Content) -> None:
    """Writes the page.

    Raises:
      UserError: it can't be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_text(render(content), encoding="utf-8")


def render(content: Content) -> str:
    """The page's HTML; whatever users named is escaped, and no script but the page's own would run."""
    loader = PackageLoader("tunevlseg_jax.reporting.output", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    script, css = ((Path(__file__).parent / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    runs = [_run(key, run) for key, run in content.runs]
    data = {
        "sets": {data: [_record(picture) for picture in pictures] for data, pictures in content.samples.items()},
        "colours": {_name(who): style.colour(who[1]) for own in content.samples.values() for who in own[0].found},
        "truth": TRUTH,
        "runs": runs,
    }
    return environment.get_template("page.html.jinja").render(
        title=content.title,
        summary=content.summary,
        footer=content.footer,
        tables=content.tables,
        untabled=content.untabled,
        figures=[_figure(figure) for figure in content.figures],
        undrawn=content.undrawn,
        sets=data["sets"],
        runs=runs,
        skipped=content.skipped,
        style=Markup(css),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        data=in_script(data),
    )


def in_script(value: Any) -> Markup:
    """JSON for a <script> element, which no string in it can end."""
    return Markup(json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


def _figure(figure: style.Picture) -> dict[str, Any]:
    drawn = style.svg(figure)
    small = len(drawn.encode()) <= LARGEST_SVG
    details = {"name": figure.name, "title": figure.title, "caption": figure.caption}
    details |= {"inches": figure.figure.get_figwidth()}
    return details | {"svg": Markup(drawn) if small else None, "png": None if small else _uri("png", style.png(figure))}


def _run(key: Key, run: Run) -> dict[str, Any]:
    """What is to be told of a run."""
    test = cells.tested(run)
    return {
        "data": key.data,
        "model": key.model,
        "combination": ", ".join(filter(None, (shown(key.combination), key.ablation))),
        "name": f"{run.role} {run.folder.name}",
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
    found = {
        _name(who): {"dice": picture.dice[who], "mask": _layer(mask, style.colour(who[1]))}
        for who, mask in picture.found.items()
    }
    return {
        "id": picture.id,
        "why": picture.why,
        "prompt": picture.prompt,
        "image": _uri("webp", encoded[1].tobytes()),
        "truth": _layer(_outline(picture.truth), TRUTH),
        "found": found,
    }


def _outline(mask: np.ndarray) -> np.ndarray:
    """A mask's outermost pixels, so that what is predicted shows inside."""
    inside = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask & (inside == 0)


def _layer(mask: np.ndarray, colour: str) -> str:
    """A mask as a PNG of one bit a pixel, see-through where it is empty."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, *(round(255 * part) for part in to_rgb(colour))])
    file = io.BytesIO()
    image.save(file, "PNG", bits=1, transparency=0, optimize=True)
    return _uri("png", file.getvalue())


def _name(who: Found) -> str:
    model, combination = who
    return f"{shown(combination)}, {model}"


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
