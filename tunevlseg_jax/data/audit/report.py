"""An audit as a table, and as a file."""

from __future__ import annotations

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


def table(title: str, looks: Sequence[ImageStats], found: Sequence[Finding]) -> Table:
    """A row for each kind of fault: how many there are, how bad it is, and the first of them."""
    made = Table(
        title=title, caption="; ".join(_size(split, looks) for split in dict.fromkeys(one.split for one in looks))
    )
    for column in ("", "found", "", "such as"):
        made.add_column(column, justify="right" if column == "found" else "left")
    for kind, severity in KINDS.items():
        own = [finding for finding in found if finding.kind == kind]
        verdict = severity if own else FINE
        shown = "\n".join(f"{finding.where}: {finding.details}" for finding in own[:SHOWN])
        made.add_row(kind, f"{len(own)}", Text(verdict, style=STYLES[verdict]), Text(shown))
    return made


def write(path: Path, found: Sequence[Finding]) -> None:
    """All findings as CSV: severity, kind, where, details."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("severity", *Finding._fields))
    writer.writerows((KINDS[finding.kind], *finding) for finding in found)
    with atomic_file(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def _size(split: str, looks: Sequence[ImageStats]) -> str:
    own = [look for look in looks if look.split == split]
    records = sum(len(look.asked) for look in own)
    return f"{split}: {len(own)} image{'s' * (len(own) != 1)}, {records} record{'s' * (records != 1)}"
