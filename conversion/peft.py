"""Converts a LoRA to PEFT's format for Hugging Face's CLIPSeg and back, and with --merge into a model."""

from conversion.low_rank.options import PROGRAM, Options
from tunevlseg_jax import cli
from tunevlseg_jax.runtime.errors import UserError


def main() -> None:
    """Converts, and prints lines that describe the result."""
    options = cli.options(Options, f"python -m {PROGRAM}", __doc__ or "")
    if (options.run is None) == (options.adapter is None):
        raise UserError("give either --run or --adapter", "missing-option")
    if options.merge and options.run is None:
        raise UserError("--merge needs --run; import the adapter first, and merge the run", "options-conflict")

    from conversion.low_rank.convert import export_run, import_adapter, merge_run

    convert = import_adapter if options.run is None else merge_run if options.merge else export_run
    for line in convert(options):
        print(line)


if __name__ == "__main__":
    cli.run(main)
