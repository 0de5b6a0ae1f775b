"""Makes tables, figures and a page of the runs under a folder: `python -m tunevlseg_jax.report --runs runs`."""

from __future__ import annotations

from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.reporting.output.write import PROGRAM, Options, report


def main() -> None:
    """Gathers, makes the report, and shows its first table."""
    report(cli.options(Options, PROGRAM, __doc__ or ""), Console())


if __name__ == "__main__":
    cli.run(main)
