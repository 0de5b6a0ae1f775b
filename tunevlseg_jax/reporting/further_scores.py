"""Tables of the scores beside Dice and IoU: outlines, lesions, and calibration."""

from collections import Counter
from collections.abc import Mapping

from tunevlseg_jax.evaluation.calibration import CALIBRATED
from tunevlseg_jax.reporting import headings, precision, scores
from tunevlseg_jax.reporting.cells import Cell, Cells
from tunevlseg_jax.reporting.table import OTHER_PRECISION, Entry, Row, Table

DISTANCES = {
    "hd95_both_nonempty": "HD95 px, both not empty",
    "hd95_px_or_diagonal": "HD95 px, or diagonal",
    "assd_px": "ASSD px, both not empty",
    "hd95_mm": "HD95 mm, both not empty",
    "hd95_mm_or_diagonal": "HD95 mm, or diagonal",
    "assd_mm": "ASSD mm, both not empty",
}
SHARES = {
    "surface_dice_2px": "surface Dice 2 px",
    "nsd": "NSD",
    "volumetric_similarity": "volumetric similarity",
    "lesion_recall_pooled": "lesion recall",
    "lesion_precision_pooled": "lesion precision",
    "lesion_f1_pooled": "lesion F1",
}
CALIBRATION = {
    "ece": "calibration error",
    "brier": "Brier",
    "nll": "NLL",
    "ece_balanced": "calibration error, balanced",
    "brier_balanced": "Brier, balanced",
    "nll_balanced": "NLL, balanced",
    "ece_calibrated": "calibration error, calibrated",
    "brier_calibrated": "Brier, calibrated",
    "nll_calibrated": "NLL, calibrated",
}
FROM_PIXELS = frozenset(title for score, title in CALIBRATION.items() if score not in ("ece", "ece_calibrated"))
"""Columns of scores that are sums over pixels, which can't be computed again from records."""
NAMES = ("outline_distances", "outline_shares", "calibration")
_DISTANCES = (
    "Means over test records, of all runs of a cell. Both not empty: over the records in which something is true and "
    "something is marked, so that a model improves by marking nothing where it is unsure. Or diagonal: over all "
    "records, with the image's diagonal where only one mask is empty, and 0 where both are. Lower is better."
)
_SHARES = (
    "In %. Surface Dice and NSD: the shares of both outlines within a tolerance of the other, which for NSD is 2 mm "
    "where the spacing is known, else 2 pixels. Lesions: connected parts, matched where their IoU is over 0.1; one "
    "ratio over all lesions of all records."
)


_CALIBRATION = (
    "Times 100, over all pixels of all test records at the model's size; lower is better. Calibration error: the mean "
    "distance between probability and share of true pixels in 15 bins of the probability. NLL: negative "
    "log-likelihood. Balanced: true pixels together weigh as much as all others. Calibrated: with the temperature that "
    "evaluate --calibrate fitted on the validation split."
)


def tables(cells: Cells) -> list[Table]:
    """The tables, without columns that no cell has; none where no evaluation has any."""
    shown = (
        _table(cells, NAMES[0], "Distances between outlines", _DISTANCES, DISTANCES, 1.0),
        _table(cells, NAMES[1], "Shares of outlines and of lesions", _SHARES, SHARES, 100.0),
        _table(cells, NAMES[2], "Calibration of pixels", _CALIBRATION, CALIBRATION, 100.0, _fewer_calibrated(cells)),
    )
    return [table for table in shown if table is not None]


def _fewer_calibrated(cells: Cells) -> tuple[str, ...]:
    """A note on cells of which some runs were calibrated, and others not."""
    numbers = Counter[tuple[int, int]]()
    for cell in cells.ordered:
        trained, calibrated = cell.score("ece"), cell.score("ece" + CALIBRATED)
        if trained is not None and calibrated is not None and calibrated.runs < trained.runs:
            numbers[calibrated.runs, trained.runs] += 1
    if not numbers:
        return ()
    parts = (f"{some} of {all} runs in {n} cell{'s' * (n > 1)}" for (some, all), n in sorted(numbers.items()))
    return (f"Calibrated scores are of fewer runs than the others: {', '.join(parts)}.",)


def _table(
    cells: Cells,
    name: str,
    title: str,
    caption: str,
    columns: Mapping[str, str],
    scale: float,
    notes: tuple[str, ...] = (),
) -> Table | None:
    rows: list[Row] = []
    used: list[Cell] = []
    common = precision.usual(cells.ordered)
    for data in headings.ordered({key.data for key in cells.by_key}):
        found = [(cell, _entries(cell, columns, common)) for cell in cells.ordered if cell.key.data == data]
        measured = [(cell, entries) for cell, entries in found if any(entry.value is not None for entry in entries)]
        for number, (cell, entries) in enumerate(measured):
            rows.append(Row((data, *scores.labels(cell.key.row)), entries, ruled=bool(rows) and not number))
            used.append(cell)
    kept = [place for place in range(len(columns)) if any(row.entries[place].value is not None for row in rows)]
    if not kept:
        return None
    others = [note for cell in used if (note := precision.note(cell, common, OTHER_PRECISION)) is not None]
    return Table(
        name=name,
        title=title,
        caption=f"{caption} {precision.caption(common)}",
        head=("data set", "model", "combination"),
        columns=tuple(list(columns.values())[place] for place in kept),
        rows=tuple(Row(row.labels, tuple(row.entries[place] for place in kept), row.ruled) for row in rows),
        notes=(*others, *notes),
        scale=scale,
    )


def _entries(cell: Cell, columns: Mapping[str, str], common: precision.Names) -> tuple[Entry, ...]:
    sign = OTHER_PRECISION * (precision.of_cell(cell) != common)
    return tuple(Entry.of_score(cell.score(metric), sign) for metric in columns)
