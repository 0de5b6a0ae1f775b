"""The style of all figures: a colour and a marker for each combination, plain axes, and the files."""

import io
import re
import textwrap
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from tunevlseg_jax.reporting import cells
from tunevlseg_jax.reporting.cells import Key, RowKey
from tunevlseg_jax.reporting.headings import shown
from tunevlseg_jax.runtime.files import atomic_file

LOOKS: Mapping[str, tuple[str, str]] = {
    "CoOp": ("#e69f00", "o"),
    "CoCoOp": ("#d55e00", "s"),
    "VPT": ("#009e73", "^"),
    "MaPLe": ("#0072b2", "D"),
    "SharedSeparate": ("#56b4e9", "v"),
    "SharedAttention": ("#cc79a7", "P"),
    "LoRA": ("#999933", "*"),
    "VLSMAdapter": ("#882255", "<"),
    "BitFit": ("#7ad151", "8"),
    "NormTuning": ("#004488", ">"),
    "LinearProbe": ("#bb5566", "H"),
    "IVLP": ("#661100", "+"),
    "KgCoOp": ("#ddcc77", "d"),
    "PromptSRC": ("#117733", "1"),
    cells.ZERO_SHOT: ("#8f4bd1", "X"),
    cells.DECODER: ("#8c6d31", "h"),
    cells.MODEL: ("#c1121f", "p"),
}
"""Colour and marker of each combination; of learners Okabe and Ito's, which colour-blind people can tell apart.

None is grey, since masks are drawn in them over grey images."""
SPARE = (("#332288", "H"), ("#aa4466", "8"), ("#44aa99", ">"))
"""For combinations that a user has added."""
TRUTH = "#f0e442"
"""The one of Okabe and Ito's colours that no learner has."""
DASHES = ("-", "--", ":", "-.")
"""Lines of the models, where a figure has several."""
INK = "#24292f"
"""Text and lines; the page puts its own colour in its place."""

WIDTH = 7.2
"""Inches."""
DPI = 130
SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "scatter.edgecolors": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "tunevlseg_jax",
    "text.parse_math": False,  # a data set may be called $x$
} | dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK)
styled = mpl.rc_context(SETTINGS)
"""Decorates functions that draw or write figures."""


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
      name: of its files.
      title: a short one.
      caption: what is drawn, and where the numbers come from.
      figure: as drawn.
      cells: those whose numbers are drawn.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    cells: Collection[Key] = ()


def grid(count: int, columns: int, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, `columns` in a row, each row `height` inches high; the options are `subplots`'."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, rows * height), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def two_lines(name: str) -> str:
    """A method's name, such as "clipseg-tiny, CoOp", with its parts after the first in a second line."""
    return name.replace(", ", "\n", 1)


def names(rows: Iterable[RowKey]) -> dict[RowKey, tuple[str, str]]:
    """The names of rows of the tables, in two lines each; the model is named only where there are several."""
    rows = list(rows)
    several = len({row.model for row in rows}) > 1
    return {
        row: (shown(row.combination), ", ".join(filter(None, (row.ablation, row.model if several else ""))))
        for row in rows
    }


def legend(figure: Figure, handles: Mapping[str, Artist]) -> None:
    """One legend above all panels, for which the figure grows."""
    columns = max(1, int(WIDTH / (0.45 + 0.075 * max(map(len, handles)))))
    rows = -(-len(handles) // columns)
    width, height = figure.get_size_inches()
    room = 0.1 + 0.17 * rows
    figure.set_size_inches(width, height + room)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine), "as grid makes it"
    engine.set(rect=(0, 0, 1, height / (height + room)))
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="upper center",
        ncols=columns,
        borderaxespad=0,
        bbox_to_anchor=(0.5, 1),
        bbox_transform=figure.transFigure,  # not the figure's box, which a file's caption makes larger
    )


def headline(ax: Axes, name: str, *details: str) -> None:
    """A panel's title in bold, and smaller lines of details below it."""
    lines = [detail for detail in details if detail]
    ax.set_title(name, loc="left", fontweight="bold", pad=4 + 9 * len(lines))
    ax.text(0, 1, "\n".join(lines), transform=ax.transAxes, va="bottom", fontsize=6.5, alpha=0.8, linespacing=1.25)


def look(combination: str) -> tuple[str, str]:
    """The colour and the marker of a combination, in all figures."""
    return LOOKS.get(combination) or SPARE[zlib.crc32(combination.encode()) % len(SPARE)]


def colour(combination: str) -> str:
    """The colour of a combination, in all figures and on the page."""
    return look(combination)[0]


def dashes(models: Sequence[str], model: str) -> str:
    """The line of one of the models of a figure."""
    return DASHES[models.index(model) % len(DASHES)]


def handle(combination: str, **changes: Any) -> Line2D:
    """A combination's mark in a legend."""
    colour, marker = look(combination)
    return Line2D([], [], **({"color": colour, "marker": marker, "linestyle": "none", "markersize": 5} | changes))


def interval(ax: Axes, combination: str, place: int, value: float, limits: tuple[float, float] | None) -> Line2D:
    """Draws a combination's mark in a row of a panel, and the line between its limits if there are any."""
    mark = handle(combination)
    mark.set_data([value], [place])
    if limits is not None:
        ax.plot(limits, [place, place], color=mark.get_color(), linewidth=1.6)
    ax.add_line(mark)
    return mark


def without_axes(ax: Axes) -> None:
    """Removes ticks and grid."""
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)


def logarithmic(ax: Axes) -> None:
    """A logarithmic x axis with ticks such as 10⁻³ and 3·10⁻³."""
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, position: power_of_ten(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())


def power_of_ten(value: float) -> str:
    """A number as text, such as 10⁻³ or 3·10⁻³."""
    digits, exponent = f"{value:.0e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digits == "1" else f"{digits}·10{raised}"


@styled
def write(picture: Picture, folder: Path) -> list[Path]:
    """Writes a figure as PNG and SVG, its caption below it.

    Raises:
      UserError: they can't be written.
    """
    width = picture.figure.get_figwidth()
    caption = "\n".join(textwrap.wrap(picture.caption, round(20 * width)))
    below = picture.figure.text(0.01, -0.01, caption, va="top", fontsize=6.5, alpha=0.8)
    options = {".png": {"dpi": DPI}, ".svg": {"metadata": {"Date": None}}}
    paths = [folder / f"{picture.name}{suffix}" for suffix in options]
    for path in paths:
        with atomic_file(path) as temporary:
            picture.figure.savefig(temporary, bbox_inches="tight", **options[path.suffix])
    below.remove()
    return paths


@styled
def svg(picture: Picture) -> str:
    """A figure as a transparent <svg> element for a page: with the page's ink, and with ids of its own."""
    file = io.StringIO()
    picture.figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{picture.name}-", text)


@styled
def png(picture: Picture) -> bytes:
    """A figure as a PNG for a page."""
    file = io.BytesIO()
    picture.figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()
