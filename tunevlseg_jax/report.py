"""Writes tables, figures and a page of the runs under a folder: `python -m tunevlseg_jax.report --runs runs`."""

from pathlib import Path

from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.reporting.output.options import PROGRAM, Options
from tunevlseg_jax.runtime.errors import UserError


def main() -> None:
    """Writes the report and prints its first table, or prints its claims, or verifies its page."""
    options = cli.options(Options, PROGRAM, __doc__ or "")
    if options.claims and options.verify:
        raise UserError("--claims and --verify exclude each other", "options-conflict")

    from tunevlseg_jax.reporting.output import show_claims, write
    from tunevlseg_jax.reporting.output.verify import verify

    if options.claims:
        show_claims.show(options.runs, Console())
    elif options.verify:
        verify(options.runs, Path(options.output) / write.PAGE_FILE, Console())
    else:
        write.report(options, Console())


if __name__ == "__main__":
    cli.run(main)
