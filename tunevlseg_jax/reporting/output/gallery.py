"""Every figure that there is something to show in, why the others aren't made, and the samples of the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunevlseg_jax.reporting import cells, pictures
from tunevlseg_jax.reporting.cells import Cell, Cells, Key, RowKey
from tunevlseg_jax.reporting.figures import style
from tunevlseg_jax.reporting.figures.curves import curves
from tunevlseg_jax.reporting.figures.embeddings import embeddings, vectors
from tunevlseg_jax.reporting.figures.examples import ROWS, examples
from tunevlseg_jax.reporting.figures.importance import FEW, importance
from tunevlseg_jax.reporting.figures.parameters import parameters
from tunevlseg_jax.reporting.figures.trends import AXES, trend
from tunevlseg_jax.reporting.pictures import Found
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Gallery:
    """What there is to look at.

    Attributes:
      figures: in the order to show them in.
      undrawn: for each figure that isn't made, why, in one line.
      samples: test records with what was found in them, by data set.
    """

    figures: Sequence[style.Picture]
    undrawn: Sequence[str]
    samples: Mapping[str, Sequence[pictures.Picture]]


def draw_figures(runs: Sequence[Run], found: Cells, samples: int, tell: Callable[[str], None]) -> Gallery:
    """Draws everything.

    Args:
      runs: all that count.
      found: the cells that they stand for.
      samples: test records to look at of each data set; 0 for none, which needs no base model.
      tell: what is going on, in a few words.
    """
    keyed = keys(runs, found)
    trials = [(key, run) for key, run in keyed if run.role == "trial"]
    chosen = main_cells(found)
    figures: list[style.Picture] = []
    undrawn: list[str] = []

    def add(name: str, figure: style.Picture | None, reason: str) -> None:
        if figure is None:
            undrawn.append(f"{name}: not drawn, since {reason}")
        else:
            figures.append(figure)

    for axis in AXES:
        tell(f"drawing {axis.title}")
        add(axis.title, trend(axis, trials), f"no learner has trials that differ in {axis.field}")
    first = {key: cell.runs[0] for key, cell in chosen.items()}
    add("Training curves", curves(first), "nothing was trained")
    dice = {key: score.mean for key, cell in chosen.items() if (score := cell.score("dice")) is not None}
    add(
        "Dice against the number of parameters",
        parameters(first, dice),
        "no combination that learns was tested on every data set",
    )
    tell("weighing hyperparameters")
    add("Importance of hyperparameters", importance(_studies(trials)), f"no search in a journal has {FEW} trials")
    seen = {}
    if samples:
        seen = _look(chosen, samples, tell, undrawn)
        for number, (data, own) in enumerate(seen.items()):
            for place, model in enumerate(dict.fromkeys(model for model, _ in own[0].found)):
                name = f"examples_{number}_{place}"
                figure = examples(name, data, model, own) if {*ROWS} <= {picture.why for picture in own} else None
                add(f"Examples, {data}, {model}", figure, "it has too few test records")
        _embed(chosen, tell, add)
    else:
        undrawn.append("Examples and embeddings: not drawn, since no samples were asked for")
    return Gallery(figures, undrawn, seen)


def keys(runs: Sequence[Run], found: Cells) -> list[tuple[Key, Run]]:
    """The runs that were compared, each with its cell, in the order of the tables."""
    names = {run.card["model_sha256"]: key.model for key, cell in found.by_key.items() for run in cell.runs}
    left_out = {skipped.path for skipped in found.left_out}
    keyed = [
        (cells.key(run.config, names[run.card["model_sha256"]]), run) for run in runs if run.folder not in left_out
    ]
    return sorted(keyed, key=lambda pair: (found.rows.index(RowKey(*pair[0][:3])), pair[0].data, str(pair[1].folder)))


def main_cells(found: Cells) -> dict[Key, Cell]:
    """The cells of each model and combination without their ablations, in the order of the tables."""
    rows = {}
    for row in found.rows:
        rows.setdefault(row[:2], row)
    order = list(rows.values())
    inside = [key for key in found.by_key if key[:3] in order]
    return {key: found.by_key[key] for key in sorted(inside, key=lambda key: (order.index(key[:3]), key.data))}


def _studies(trials: Sequence[tuple[Key, Run]]) -> dict[RowKey, list[Path]]:
    """The folders of the studies of each row of the tables."""
    studies: dict[RowKey, dict[Path, None]] = defaultdict(dict)
    for key, run in trials:
        if run.study is not None:
            studies[RowKey(*key[:3])][run.study] = None
    return {row: list(folders) for row, folders in studies.items()}


def _look(
    chosen: Mapping[Key, Cell], samples: int, tell: Callable[[str], None], undrawn: list[str]
) -> dict[str, list[pictures.Picture]]:
    """Samples of every data set whose runs were evaluated on the same test split."""
    by_data: dict[str, dict[Found, tuple[Run, pictures.StoredEvaluation]]] = defaultdict(dict)
    for key, cell in chosen.items():
        run = cell.runs[0]
        if run.own_test is not None:
            by_data[key.data][key[:2]] = (run, run.own_test)
    for data in sorted({key.data for key in chosen} - by_data.keys()):
        undrawn.append(
            f"Examples, {data}: not drawn, since no run there was evaluated (python -m tunevlseg_jax.evaluate)"
        )
    seen = {}
    for data, runs in sorted(by_data.items()):
        tell(f"looking at samples of {data}")
        try:
            seen[data] = pictures.look(runs, samples)
        except UserError as error:
            undrawn.append(f"Examples, {data}: not drawn, since {error}")
    return seen


def _embed(
    chosen: Mapping[Key, Cell], tell: Callable[[str], None], add: Callable[[str, style.Picture | None, str], None]
) -> None:
    """The maps of each model, over the data sets that it was run on."""
    by_model: dict[str, dict[str, Run]] = defaultdict(dict)
    for key, cell in chosen.items():
        by_model[key.model].setdefault(key.data, cell.runs[0])
    for number, (model, runs) in enumerate(by_model.items()):
        tell(f"mapping what {model} sees")
        try:
            figure = embeddings(f"embeddings_{number}", model, {data: vectors(run) for data, run in runs.items()})
            add(f"Embeddings of {model}", figure, "there are too few images")
        except UserError as error:
            add(f"Embeddings of {model}", None, str(error))
