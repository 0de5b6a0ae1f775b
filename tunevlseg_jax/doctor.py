"""Says what is installed and what is missing, and tests the installation: `python -m tunevlseg_jax.doctor`."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass

import rich.markup
import rich.table
from rich.console import Console

from tunevlseg_jax import cli

COLOURS = {"ok": "green", "note": "yellow", "failed": "red"}


@dataclass(frozen=True)
class Options:
    """How to print the answer.

    Attributes:
      json: whether to print JSON instead of a table.
    """

    json: bool = False


def main() -> None:
    """Prints a row for each check, and exits with 1 if something fails that nothing works without."""
    options = cli.options(Options, "python -m tunevlseg_jax.doctor", __doc__ or "")

    from tunevlseg_jax.diagnosis import checks

    found = list(checks.run())
    if options.json:
        print(json.dumps([dataclasses.asdict(check) for check in found], indent=2))
    else:
        table = rich.table.Table("check", "state", "found", "what to do", title="tunevlseg doctor", show_lines=True)
        for check in found:
            colour = COLOURS[check.state]
            cells = map(rich.markup.escape, (check.found, check.remedy))
            table.add_row(check.name, f"[{colour}]{check.state}[/]", *cells)
        Console().print(table)
    if any(check.state == "failed" for check in found):
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
