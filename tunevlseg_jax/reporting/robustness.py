"""Tables of Dice on corrupted images and over paraphrases, from the files of `evaluate --corrupt` and `--phrases`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunevlseg_jax.evaluation.corruptions import KINDS
from tunevlseg_jax.evaluation.robustness import FOLDER
from tunevlseg_jax.reporting import headings, precision, recomputed, scores
from tunevlseg_jax.reporting.cells import Cell, Cells, Key, summary
from tunevlseg_jax.reporting.evaluations import is_finite
from tunevlseg_jax.reporting.runs import Run
from tunevlseg_jax.reporting.table import OTHER_PRECISION, Entry, Row, Table
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import read_object

NAMES = {"corrupted": "robustness_corrupted", "phrases": "robustness_phrases"}
"""Of the tables, by the kind of the files."""
_TITLES = {"corrupted": "Dice on corrupted images", "phrases": "Dice over paraphrases of the prompts"}
_COLUMNS = {"corrupted": ("clean", "corrupted", *KINDS), "phrases": ("mean", "worst", "spread")}
_RECOMPUTED = {"corrupted": recomputed.corrupted, "phrases": recomputed.phrases}
_CAPTIONS = {
    "corrupted": "Dice in % on the test records at the model's size. A kind's number is a mean over five strengths, "
    "and corrupted is the mean over kinds.",
    "phrases": "Dice in % on the test records at the model's size. Mean, worst and spread (best minus worst) are over "
    "the paraphrases of a class, then averaged over classes by their records. Runs with other paraphrases than most "
    "are left out.",
}


Stored = Mapping[Key, Sequence[Mapping[str, Any]]]
"""The files of a kind by the cells of their runs."""


def read(cells: Cells, *, from_records: bool = False) -> tuple[dict[str, Stored], list[str]]:
    """The files of each kind, and a line for each file that can't be used.

    Of a data set those with the paraphrases that most have are taken.

    Args:
      cells: the runs.
      from_records: whether the scores are computed again from the CSVs of single records.
    """
    unread: list[str] = []
    return {kind: _fitting(cells, kind, unread, from_records) for kind in NAMES}, unread


def tables(cells: Cells, stored: Mapping[str, Stored]) -> list[Table]:
    """The tables of the kinds that have files."""
    return [_table(cells, kind, found) for kind, found in stored.items() if found]


def precisions(stored: Stored) -> dict[Key, precision.Names]:
    """The precisions behind each cell's files."""
    return precision.together((key, file["precisions"]) for key, files in stored.items() for file in files)


def _fitting(cells: Cells, kind: str, unread: list[str], from_records: bool) -> Stored:
    found = {cell.key: [_stored(run, kind, unread, from_records) for run in cell.runs] for cell in cells.ordered}
    asked: dict[str, list[Any]] = defaultdict(list)
    for key, each in found.items():
        asked[key.data] += [one.get("phrases") for one in each if one is not None]
    usual = {data: max(phrases, key=phrases.count) for data, phrases in asked.items() if phrases}
    fitting = {
        key: [one for one in each if one is not None and one.get("phrases") == usual[key.data]]
        for key, each in found.items()
        if key.data in usual
    }
    return {key: each for key, each in fitting.items() if each}


def _stored(run: Run, kind: str, unread: list[str], from_records: bool) -> dict[str, Any] | None:
    """The file of a run's own test records; None if there is none."""
    own = run.card["data"]
    for path in sorted((run.folder / FOLDER).glob(f"*_{kind}*.json")):
        try:
            stored = _read(path, kind)
            if from_records:
                stored |= {"means": _RECOMPUTED[kind](path.with_suffix(".csv"))}
        except UserError as error:
            unread.append(f"{path}: {error.line}")
            continue
        same = (stored.get("data"), stored.get("data_sha256")) == (own["name"], own.get("test"))
        if same and stored.get("split") == "test":
            return stored | {"precisions": precision.of_file(run, stored)}
    return None


def _read(path: Path, kind: str) -> dict[str, Any]:
    """Reads a file, with the scores of each column as numbers.

    Raises:
      UserError: it is broken.
    """
    stored = read_object(path)
    values = stored.get("scores")
    if stored.get("kind") != kind or not isinstance(values, dict):
        raise UserError(f"{path.name} isn't a file of evaluate's", "bad-evaluation")
    means = {name: _mean(values.get(name)) for name in _COLUMNS[kind]}
    strengths = KINDS if kind == "corrupted" else {}
    whole = all(
        isinstance(values.get(name), list) and len(values[name]) == len(each) for name, each in strengths.items()
    )
    if not whole or not all(map(is_finite, means.values())):
        raise UserError(f"the scores of {path.name} must be numbers; evaluate again", "bad-evaluation")
    return stored | {"means": means}


def _mean(value: Any) -> Any:
    """The mean of a list of numbers; another value as it is."""
    if isinstance(value, list) and value and all(map(is_finite, value)):
        return sum(value) / len(value)
    return value


def _table(cells: Cells, kind: str, found: Stored) -> Table:
    rows: list[Row] = []
    names = precisions(found)
    common = precision.most(names.values())
    notes = [precision.note_on(key, each, common, OTHER_PRECISION) for key, each in names.items()]
    for data in headings.ordered({key.data for key in found}):
        here = [cell for cell in cells.ordered if cell.key.data == data and cell.key in found]
        for number, cell in enumerate(here):
            sign = OTHER_PRECISION * (names[cell.key] != common)
            entries = _entries(kind, found[cell.key], sign)
            rows.append(Row(_labels(data, cell), entries, ruled=bool(rows) and not number))
    return Table(
        name=NAMES[kind],
        title=_TITLES[kind],
        caption=" ".join(filter(None, (_CAPTIONS[kind], precision.caption(common)))),
        head=("data set", "model", "combination"),
        columns=_COLUMNS[kind],
        rows=tuple(rows),
        notes=tuple(note for note in notes if note is not None),
    )


def _labels(data: str, cell: Cell) -> tuple[str, ...]:
    return (data, *scores.labels(cell.key.row))


def _entries(kind: str, fitting: Sequence[Mapping[str, Any]], sign: str) -> tuple[Entry, ...]:
    return tuple(Entry.of_score(summary([one["means"][name] for one in fitting]), sign) for name in _COLUMNS[kind])
