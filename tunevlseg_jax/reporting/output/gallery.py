"""Draws the figures of a report, and the samples of its page."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tunevlseg_jax.reporting import comparisons, headings, over_sets, pictures, precision, reliability, robustness
from tunevlseg_jax.reporting.cells import Cell, Cells, Key, RowKey
from tunevlseg_jax.reporting.figures import reliability as reliability_figure
from tunevlseg_jax.reporting.figures import robustness as robustness_figures
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.cases import cases
from tunevlseg_jax.reporting.figures.curves import curves
from tunevlseg_jax.reporting.figures.differences import differences
from tunevlseg_jax.reporting.figures.embeddings import embeddings, vectors
from tunevlseg_jax.reporting.figures.examples import ROWS, examples
from tunevlseg_jax.reporting.figures.importance import FEW, importance
from tunevlseg_jax.reporting.figures.parameters import parameters
from tunevlseg_jax.reporting.figures.ranks import critical_difference, rank_frequencies
from tunevlseg_jax.reporting.figures.shots import learning_curve
from tunevlseg_jax.reporting.figures.trends import AXES, trend
from tunevlseg_jax.reporting.output.content import Content
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.reporting.statistics.rankings import FEWEST_METHODS, FEWEST_SETS
from tunevlseg_jax.runtime.errors import UserError

Precisions = Mapping[Key, precision.Names]
"""Those behind each cell's numbers."""


@dataclass
class _Gallery:
    """The figures of a report, and why others aren't drawn."""

    figures: list[style.Picture] = field(default_factory=list)
    undrawn: list[str] = field(default_factory=list)

    def add(self, name: str, figure: style.Picture | None, reason: str, of: Precisions = MappingProxyType({})) -> None:
        """Adds a figure, whose caption names the precisions if several are behind its cells, or why it isn't drawn."""
        if figure is None:
            self.undrawn.append(f"{name}: not drawn, since {reason}")
        else:
            caption = " ".join((figure.caption, *precision.mixed({key: of[key] for key in figure.cells})))
            self.figures.append(dataclasses.replace(figure, caption=caption))


def draw_figures(content: Content, samples: int, tell: Callable[[str], None]) -> Content:
    """The content with all figures that can be drawn, and the reasons why others can't.

    Args:
      content: of a report.
      samples: test records to show of each data set; 0 for none, which needs no base model.
      tell: receives the progress, in a few words.
    """
    cells = content.cells
    trials = [(key, run) for key, run in cells.compared if run.role == "trial"]
    chosen = _main_cells(cells)
    gallery = _Gallery()
    _compare(content, tell, gallery)
    tell("drawing calibration and robustness")
    of_chosen = {key: precision.of_cell(cell) for key, cell in chosen.items()}
    _reliability(chosen.values(), of_chosen, gallery)
    _robustness(content, gallery)
    of_trials = _of_trainings(trials)
    for axis in AXES:
        tell(f"drawing {axis.title}")
        reason = f"no learner has trials that differ in {axis.field}"
        gallery.add(axis.title, trend(axis, trials), reason, of_trials)
    first = {key: cell.runs[0] for key, cell in chosen.items()}
    gallery.add("Training curves", curves(first), "nothing was trained", _of_trainings(first.items()))
    dice = {key: score.mean for key, cell in chosen.items() if (score := cell.score("dice")) is not None}
    reason = "no combination that learns was tested on every data set"
    name = "Dice against the number of parameters"
    gallery.add(name, parameters(first, dice), reason, of_chosen)
    tell("computing the importance of hyperparameters")
    studies: dict[RowKey, dict[Path, None]] = defaultdict(dict)
    for key, run in trials:
        if run.study is not None:
            studies[key.row][run.study] = None
    gallery.add("Importance of hyperparameters", importance(studies), f"no search in a journal has {FEW} trials")
    if not samples:
        gallery.undrawn.append("Examples and embeddings: not drawn, since no samples were asked for")
        return dataclasses.replace(content, figures=gallery.figures, undrawn=gallery.undrawn)
    shown = _samples(chosen, samples, tell, gallery.undrawn)
    for number, (data, records) in enumerate(shown.items()):
        for place, model in enumerate(dict.fromkeys(model for model, _ in records[0].predicted)):
            name = f"examples_{number}_{place}"
            enough = {*ROWS} <= {record.why for record in records}
            figure = examples(name, data, model, records) if enough else None
            gallery.add(f"Examples, {data}, {model}", figure, "it has too few test records")
    _embed(first, tell, gallery)
    return dataclasses.replace(content, figures=gallery.figures, undrawn=gallery.undrawn, samples=shown)


def _compare(content: Content, tell: Callable[[str], None], gallery: _Gallery) -> None:
    """The figures that compare methods case by case."""
    tell("drawing comparisons of methods")
    compared = content.comparisons
    unpaired = "no data set has two methods with evaluations of the same test records"
    of = comparisons.precisions(compared)
    gallery.add("Differences from the best", differences(compared), unpaired, of)
    few = f"it needs {FEWEST_METHODS} methods on all of {FEWEST_SETS} data sets"
    gallery.add("Critical-difference diagram", critical_difference(over_sets.rank(compared)), few, of)
    gallery.add("How often each method takes each rank", rank_frequencies(compared), unpaired, of)
    lines = content.learning_curves
    of_lines = precision.together(
        (Key(*row, data), point.precisions) for data in lines for row, points in lines[data].items() for point in points
    )
    gallery.add("Learning curve", learning_curve(lines), "no runs of a method differ in data.shots", of_lines)
    for number, each in enumerate(compared):
        gallery.add(f"Cases, {each.data}", cases(f"cases_{number}", each), "", of)


def _of_trainings(runs: Iterable[tuple[Key, Run]]) -> Precisions:
    """The precisions of the trainings."""
    return precision.together((key, frozenset({precision.trained(run)})) for key, run in runs)


def _reliability(cells: Iterable[Cell], of: Precisions, gallery: _Gallery) -> None:
    """The reliability diagrams of each model."""
    methods, lacking = reliability.methods(cells)
    for number, model in enumerate(dict.fromkeys(method.key.model for method in methods)):
        ours = [method for method in methods if method.key.model == model]
        figure = reliability_figure.reliability(f"reliability_{number}", model, ours)
        gallery.add(f"Reliability of pixels, {model}", figure, "", of)
    if lacking or not methods:
        names = [headings.place(key) for key in lacking]
        others = f" of {names[0]}{f' and {len(names) - 1} others' * (len(names) > 1)}" if methods else ""
        reason = "evaluations hold no bins of probabilities (python -m tunevlseg_jax.evaluate writes them)"
        gallery.add(f"Reliability of pixels{others}", None, reason)


def _robustness(content: Content, gallery: _Gallery) -> None:
    """The figures of Dice on corrupted images, for each data set, and over paraphrases."""
    corrupted, phrases = (content.robustness.get(kind, {}) for kind in ("corrupted", "phrases"))
    sets, of = headings.ordered({key.data for key in corrupted}), robustness.precisions(corrupted)
    for number, data in enumerate(sets):
        here = {key: files for key, files in corrupted.items() if key.data == data}
        figure = robustness_figures.corrupted(f"robustness_corrupted_{number}", data, here)
        gallery.add(f"Dice on corrupted images, {data}", figure, "", of)
    if not sets:
        gallery.add("Dice on corrupted images", None, "no run was evaluated with --corrupt")
    unasked = "no run was evaluated with --phrases"
    figure = robustness_figures.phrases(phrases)
    gallery.add("Dice over paraphrases of the prompts", figure, unasked, robustness.precisions(phrases))


def _main_cells(cells: Cells) -> dict[Key, Cell]:
    """The cells of each model and combination without their ablations, in the order of the tables."""
    rows = {row[:2]: row for row in reversed(cells.rows)}
    return {cell.key: cell for cell in cells.ordered if rows[cell.key[:2]] == cell.key.row}


def _samples(
    chosen: Mapping[Key, Cell], samples: int, tell: Callable[[str], None], undrawn: list[str]
) -> dict[str, list[pictures.Picture]]:
    """Samples of every data set whose runs were evaluated on the same test split."""
    by_data: dict[str, dict[pictures.Predictor, tuple[Run, pictures.StoredEvaluation]]] = defaultdict(dict)
    for key, cell in chosen.items():
        run = cell.runs[0]
        if run.own_test is not None:
            by_data[key.data][key[:2]] = (run, run.own_test)
    for data in sorted({key.data for key in chosen} - by_data.keys()):
        reason = "no run there was evaluated (python -m tunevlseg_jax.evaluate)"
        undrawn.append(f"Examples, {data}: not drawn, since {reason}")
    shown = {}
    for data, runs in sorted(by_data.items()):
        tell(f"predicting samples of {data}")
        try:
            shown[data] = pictures.predict(runs, samples)
        except UserError as error:
            undrawn.append(f"Examples, {data}: not drawn, since {error}")
    return shown


def _embed(chosen: Mapping[Key, Run], tell: Callable[[str], None], gallery: _Gallery) -> None:
    """The maps of each model, over the data sets that it was run on."""
    by_model: dict[str, dict[str, Run]] = defaultdict(dict)
    for key, run in chosen.items():
        by_model[key.model].setdefault(key.data, run)
    for number, (model, runs) in enumerate(by_model.items()):
        tell(f"drawing the embeddings of {model}")
        try:
            figure = embeddings(f"embeddings_{number}", model, {data: vectors(run) for data, run in runs.items()})
            gallery.add(f"Embeddings of {model}", figure, "there are too few images")
        except UserError as error:
            gallery.add(f"Embeddings of {model}", None, str(error))
