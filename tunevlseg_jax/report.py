"""Writes tables, figures and a page of the runs under a folder: `python -m tunevlseg_jax.report --runs runs`."""

from __future__ import annotations

from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.reporting.output.content import PROGRAM
from tunevlseg_jax.reporting.output.write import Options, report


def main() -> None:
    """Writes the report and prints its first table."""
    report(cli.options(Options, PROGRAM, __doc__ or ""), Console())


if __name__ == "__main__":
    cli.run(main)
