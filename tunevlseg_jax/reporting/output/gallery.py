"""Draws the figures of a report, and the samples of its page."""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tunevlseg_jax.reporting import headings, over_sets, pictures, reliability, robustness
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
    figures: list[style.Picture] = []
    undrawn: list[str] = []

    def add(name: str, figure: style.Picture | None, reason: str) -> None:
        if figure is None:
            undrawn.append(f"{name}: not drawn, since {reason}")
        else:
            figures.append(figure)

    _compare(content, tell, add)
    tell("drawing calibration and robustness")
    _reliability(chosen.values(), add)
    _robustness(cells, add)
    for axis in AXES:
        tell(f"drawing {axis.title}")
        add(axis.title, trend(axis, trials), f"no learner has trials that differ in {axis.field}")
    first = {key: cell.runs[0] for key, cell in chosen.items()}
    add("Training curves", curves(first), "nothing was trained")
    dice = {key: score.mean for key, cell in chosen.items() if (score := cell.score("dice")) is not None}
    reason = "no combination that learns was tested on every data set"
    add("Dice against the number of parameters", parameters(first, dice), reason)
    tell("computing the importance of hyperparameters")
    studies: dict[RowKey, dict[Path, None]] = defaultdict(dict)
    for key, run in trials:
        if run.study is not None:
            studies[key.row][run.study] = None
    add("Importance of hyperparameters", importance(studies), f"no search in a journal has {FEW} trials")
    if not samples:
        undrawn.append("Examples and embeddings: not drawn, since no samples were asked for")
        return dataclasses.replace(content, figures=figures, undrawn=undrawn)
    shown = _samples(chosen, samples, tell, undrawn)
    for number, (data, records) in enumerate(shown.items()):
        for place, model in enumerate(dict.fromkeys(model for model, _ in records[0].predicted)):
            name = f"examples_{number}_{place}"
            enough = {*ROWS} <= {record.why for record in records}
            figure = examples(name, data, model, records) if enough else None
            add(f"Examples, {data}, {model}", figure, "it has too few test records")
    _embed(first, tell, add)
    return dataclasses.replace(content, figures=figures, undrawn=undrawn, samples=shown)


def _compare(
    content: Content, tell: Callable[[str], None], add: Callable[[str, style.Picture | None, str], None]
) -> None:
    """The figures that compare methods case by case."""
    tell("drawing comparisons of methods")
    compared = content.comparisons
    unpaired = "no data set has two methods with evaluations of the same test records"
    add("Differences from the best", differences(compared), unpaired)
    few = f"it needs {FEWEST_METHODS} methods on all of {FEWEST_SETS} data sets"
    add("Critical-difference diagram", critical_difference(over_sets.rank(compared)), few)
    add("How often each method takes each rank", rank_frequencies(compared), unpaired)
    add("Learning curve", learning_curve(content.learning_curves), "no runs of a method differ in data.shots")
    for number, each in enumerate(compared):
        add(f"Cases, {each.data}", cases(f"cases_{number}", each), "")


def _reliability(cells: Iterable[Cell], add: Callable[[str, style.Picture | None, str], None]) -> None:
    """The reliability diagrams of each model."""
    methods, lacking = reliability.methods(cells)
    for number, model in enumerate(dict.fromkeys(method.key.model for method in methods)):
        ours = [method for method in methods if method.key.model == model]
        add(f"Reliability of pixels, {model}", reliability_figure.reliability(f"reliability_{number}", model, ours), "")
    if lacking or not methods:
        names = [headings.place(key) for key in lacking]
        others = f" of {names[0]}{f' and {len(names) - 1} others' * (len(names) > 1)}" if methods else ""
        reason = "evaluations hold no bins of probabilities (python -m tunevlseg_jax.evaluate writes them)"
        add(f"Reliability of pixels{others}", None, reason)


def _robustness(cells: Cells, add: Callable[[str, style.Picture | None, str], None]) -> None:
    """The figures of Dice on corrupted images, for each data set, and over paraphrases."""
    stored = {kind: robustness.stored(cells, kind)[0] for kind in robustness.NAMES}
    sets = headings.ordered({key.data for key in stored["corrupted"]})
    for number, data in enumerate(sets):
        here = {key: files for key, files in stored["corrupted"].items() if key.data == data}
        figure = robustness_figures.corrupted(f"robustness_corrupted_{number}", data, here)
        add(f"Dice on corrupted images, {data}", figure, "")
    if not sets:
        add("Dice on corrupted images", None, "no run was evaluated with --corrupt")
    unasked = "no run was evaluated with --phrases"
    add("Dice over paraphrases of the prompts", robustness_figures.phrases(stored["phrases"]), unasked)


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


def _embed(
    chosen: Mapping[Key, Run], tell: Callable[[str], None], add: Callable[[str, style.Picture | None, str], None]
) -> None:
    """The maps of each model, over the data sets that it was run on."""
    by_model: dict[str, dict[str, Run]] = defaultdict(dict)
    for key, run in chosen.items():
        by_model[key.model].setdefault(key.data, run)
    for number, (model, runs) in enumerate(by_model.items()):
        tell(f"drawing the embeddings of {model}")
        try:
            figure = embeddings(f"embeddings_{number}", model, {data: vectors(run) for data, run in runs.items()})
            add(f"Embeddings of {model}", figure, "there are too few images")
        except UserError as error:
            add(f"Embeddings of {model}", None, str(error))
