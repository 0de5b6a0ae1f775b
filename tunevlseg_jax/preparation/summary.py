"""What `prepare` prints of a set: its counts, the coverage of its classes, and what looks wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tunevlseg_jax.data import prepared, preprocessing, windows
from tunevlseg_jax.data.audit import coverage
from tunevlseg_jax.data.audit.coverage import Survey
from tunevlseg_jax.data.builders.writer import Written
from tunevlseg_jax.data.seen_encodings import SeenEncodings
from tunevlseg_jax.preparation.folder_options import Folder

PAPER = "the paper's Table 1"
MIXED = (
    "In each file the larger or brighter value is taken as the object. If a value means neither, give --ignore-value; "
    "if values are classes, give --encoding palette or colour with --classes"
)


def print_written(written: Mapping[str, Written], folder: Path, console: Console, paper: Mapping[str, int]) -> None:
    """Prints the numbers of images and records beside the paper's."""
    table = Table(title=f"{folder.name} in {folder}")
    for column in ("split", "images", "records", *((f"records in\n{PAPER}",) if paper else ())):
        table.add_column(column, justify="left" if column == "split" else "right")
    counts = {split: written.get(split, Written(0, 0)) for split in (*written, *paper)}
    for split in counts:
        expected = (f"{paper[split]}",) if split in paper else ()
        table.add_row(split, *map(str, counts[split]), *expected)
    console.print(table)
    if (window := preprocessing.read(folder / prepared.VERSION).window) is not None:
        console.print(f"values of images of more than 8 bits: {windows.described(window)} (--window)", soft_wrap=True)
    if different := [split for split, count in paper.items() if count != counts[split].records]:
        console.print(f"note: {', '.join(different)} differ from {PAPER}", soft_wrap=True)


def print_survey(survey: Survey, console: Console, *, invertible: bool) -> None:
    """Prints the coverage of each class, and what looks wrong."""
    console.print(coverage.table(coverage.by_class(survey.stats)))
    for line in survey.warnings(invertible=invertible):
        console.print(f"warning: {line}", soft_wrap=True)


def print_ranges(ranges: Sequence[tuple[str, windows.Range]], folder: Path, console: Console) -> None:
    """Prints whether the set's window leaves nearly one shade of some images; `ranges` are as in `Contents`."""
    window = preprocessing.read(folder / prepared.VERSION).window
    if window is not None and (line := windows.flattened(ranges, window)):
        console.print(f"warning: {line}", soft_wrap=True, markup=False)


def print_values(options: Folder, survey: Survey, seen: SeenEncodings, console: Console) -> None:
    """Prints whether the masks' values differ between files, and how many images have no record."""
    for label, values in seen.mixed().items():
        console.print(f"warning: the masks of {label!r} differ in their values: {values}. {MIXED}", soft_wrap=True)
    if healthy := survey.without_records:
        remedy = "; --negatives keep gives them empty masks" * (options.encoding != "binary")
        count = f"{len(healthy)} of {len(survey.names)} images, such as {healthy[0]!r}, show"
        console.print(f"note: {count} none of the classes and have no record{remedy}", soft_wrap=True)
