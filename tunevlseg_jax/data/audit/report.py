"""An audit's findings as a table and as a CSV file."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tunevlseg_jax.data.audit.findings import KINDS, Finding
from tunevlseg_jax.data.audit.image_stats import ImageStats
from tunevlseg_jax.runtime.files import atomic_file

FINE = "fine"
STYLES = {"error": "red", "warning": "yellow", FINE: "green"}
SHOWN = 3


def table(title: str, stats: Sequence[ImageStats], findings: Sequence[Finding]) -> Table:
    """A row for each kind of finding: its number, severity and first examples."""
    table = Table(
        title=title, caption="; ".join(_size(split, stats) for split in dict.fromkeys(image.split for image in stats))
    )
    for column in ("", "found", "", "such as"):
        table.add_column(column, justify="right" if column == "found" else "left")
    for kind, severity in KINDS.items():
        of_kind = [finding for finding in findings if finding.kind == kind]
        verdict = severity if of_kind else FINE
        shown = "\n".join(f"{finding.where}: {finding.details}" for finding in of_kind[:SHOWN])
        table.add_row(kind, f"{len(of_kind)}", Text(verdict, style=STYLES[verdict]), Text(shown))
    return table


def write(path: Path, findings: Sequence[Finding]) -> None:
    """All findings as CSV: severity, kind, where, details."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("severity", *Finding._fields))
    writer.writerows((KINDS[finding.kind], *finding) for finding in findings)
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _size(split: str, stats: Sequence[ImageStats]) -> str:
    images = [image for image in stats if image.split == split]
    records = sum(len(image.records) for image in images)
    return f"{split}: {len(images)} image{'s' * (len(images) != 1)}, {records} record{'s' * (records != 1)}"
