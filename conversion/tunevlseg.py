"""Converts a checkpoint of the published TuneVLSeg code into a run, and with --export back."""

from conversion.published.options import PROGRAM, Options
from tunevlseg_jax import cli


def main() -> None:
    """Converts, and prints what was written and what was assumed."""
    options = cli.options(Options, f"python -m {PROGRAM}", __doc__ or "")

    from conversion.published.convert import export_run, import_checkpoint

    for line in export_run(options) if options.export else import_checkpoint(options):
        print(line)


if __name__ == "__main__":
    cli.run(main)
