"""Shared parts of the tables of test scores: the numbers of cells, and the captions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tunevlseg_jax.reporting import headings, precision
from tunevlseg_jax.reporting.cells import Cell, Cells, Key, RowKey, tested
from tunevlseg_jax.reporting.table import OTHER_PRECISION, Entry, Row, Table, mean

METRICS = {
    "dice": ("Dice", "a mean over records, 1 where both masks are empty"),
    "iou": ("IoU", "one ratio over all pixels of all records"),
}
CARD = "†"
"""Marks numbers from a card."""


def line(cells: Cells, row: RowKey, data: Sequence[str], metric: str, labels: tuple[str, ...], ruled: bool) -> Row:
    """A combination's scores on every data set, and their mean."""
    common = precision.usual(cells.ordered)
    entries = [entry(cells.by_key.get(Key(*row, name)), metric, common) for name in data]
    return Row(labels, (*entries, mean(entries)), ruled)


def entry(cell: Cell | None, metric: str, common: precision.Names) -> Entry:
    """A cell's score; `common` is the precision that has no mark."""
    if cell is None:
        return Entry()
    sign = CARD * cell.from_card + OTHER_PRECISION * (precision.of_cell(cell) != common)
    return Entry.of_score(cell.score(metric), sign)


def labels(row: RowKey) -> tuple[str, str]:
    """The model, and the combination with its ablation."""
    model, combination, ablation = row
    return model, ", ".join(filter(None, (headings.shown(combination), ablation)))


def table(
    name: str,
    title: str,
    *,
    metric: str,
    head: tuple[str, ...],
    data: Sequence[str],
    rows: Sequence[Row],
    used: Sequence[Cell],
    common: precision.Names,
    legend: str,
    notes: Iterable[str] = (),
) -> Table:
    """A table of scores with its caption.

    `metric` is one of METRICS; `data` are the columns, before their mean where a row has one number more; `used` are
    the cells of the numbers; `common` is the precision of unmarked numbers; the caption begins with `legend`, and
    `notes` come after those on the rows and cells.
    """
    means = ("mean",) if len(rows[0].entries) > len(data) else ()
    groups = headings.grouped(data)
    return Table(
        name=name,
        title=title,
        caption=" ".join(filter(None, (legend, _conditions(used, metric), precision.caption(common)))),
        head=head,
        columns=(*data, *means),
        rows=tuple(rows),
        groups=(*groups, *(("", 1) for _ in means)) if groups else (),
        notes=tuple(dict.fromkeys((*_notes(rows, used, common), *notes))),
    )


def _conditions(used: Sequence[Cell], metric: str) -> str:
    """Metric, size, threshold, records, protocol, selection, seeds and folds."""
    name, meaning = METRICS[metric]
    sizes = _listed((cell.key.model, cell.condition["image size"]) for cell in used)
    records = _listed((cell.key.data, cell.records or "of unknown number") for cell in used)
    protocols = _listed((cell.key.data, cell.condition["protocol"]) for cell in used)
    shots = _listed((cell.key.data, cell.condition["shots"]) for cell in used if "shots" in cell.condition)
    configurations = sorted({cell.configurations for cell in used})
    return " ".join(
        (
            f"{name} in %: {meaning}; a pixel is marked where its probability is over 0.5.",
            f"Masks are compared at the size that the model sees, {sizes} pixels.",
            f"Test records: {records}. Training records of each class: {shots or 'none'}. Protocol: {protocols}.",
            "A cell's configuration is the one with the highest validation Dice",
            f"({_span(configurations)} to choose from); test scores chose nothing.",
            _repetitions(used),
        )
    )


def _repetitions(used: Sequence[Cell]) -> str:
    """The numbers of seeds and folds, and what the deviation is over."""
    seeds, folds = ({*map(number, used)} for number in (lambda cell: cell.seeds, lambda cell: len(cell.folds)))
    text = f"Seeds: {_span(sorted(seeds))}"
    if folds - {0}:
        text += f". Folds of train and val, each with the same test split: {_span(sorted(folds - {0}))}"
    over = {cell.spread for cell in used if cell.spread}
    if over == {"seeds"}:
        text += "; ± is the standard deviation over them (n - 1)"
    elif over:
        spreads = _listed((headings.shown(cell.key.combination), cell.spread) for cell in used if cell.spread)
        text += f"; ± is the standard deviation over the runs of all {spreads} (n - 1)"
    return f"{text}."


def _notes(rows: Sequence[Row], used: Sequence[Cell], common: precision.Names) -> list[str]:
    """Notes on missing numbers and on numbers from elsewhere."""
    entries = [entry for row in rows for entry in row.entries]
    notes = []
    if any(entry.value is None for entry in entries):
        notes.append("A dash: no run, or none with a test score.")
    if any(entry.of for entry in entries):
        notes.append("In parentheses: a mean that lacks data sets, not to be compared with the others.")
    if any(CARD in entry.sign for entry in entries):
        notes.append(f"{CARD}: from the card of a run without an evaluation of its test records.")
    notes += filter(None, (precision.note(cell, common, OTHER_PRECISION) for cell in used))
    for cell in used:
        otherwise = {run.search.chosen_by for run in cell.runs if run.search is not None} - {"validation Dice"}
        if otherwise:
            notes.append(f"{headings.place(cell.key)}: of its study's trials the one chosen by {', '.join(otherwise)}.")
        if changed := [str(run.folder) for run in cell.runs if run.card.get("earlier_data")]:
            went_on = f"its data changed while it trained, and it went on ({', '.join(changed)})"
            notes.append(f"{headings.place(cell.key)}: {went_on}.")
        others = {fold for other in used if other.key.data == cell.key.data for fold in other.folds}
        if cell.folds and (lacking := sorted(others.difference(cell.folds))):
            notes.append(f"{headings.place(cell.key)}: no run on fold {', '.join(map(str, lacking))}.")
        if untested := [str(run.folder) for run in cell.runs if tested(run) is None]:
            count = f"{len(untested)} of the {len(cell.runs)} runs that represent it have"
            notes.append(f"{headings.place(cell.key)}: {count} no test score ({', '.join(untested)}).")
    return notes


def _listed(pairs: Iterable[tuple[str, object]]) -> str:
    """Values of models or data sets, with their names where they differ: "64x64", or "64x64 (a), 128x128 (b, c)"."""
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for name, value in pairs:
        names[str(value)][name] = None
    return ", ".join(f"{value} ({', '.join(each)})" if len(names) > 1 else value for value, each in names.items())


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
