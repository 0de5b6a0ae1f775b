"""Converts CRIS: `python -m conversion.cris --checkpoint cris_best.pth --tokenizer CIDAS/clipseg-rd64 --output DIR`."""

from pathlib import Path

from conversion.cris_options import Options
from tunevlseg_jax import cli


def main() -> None:
    """Converts, and prints a line that describes the result."""
    options = cli.options(Options, "python -m conversion.cris", __doc__ or "")

    from conversion import cris_model, output

    folder = Path(options.output)
    output.check(folder)
    model = cris_model.load(options)
    if options.verify:
        from conversion import cris_verify

        for line in cris_verify.verify(model):
            print(line)
    print(output.write(folder, model, cris_model.source(options), options.dtype))


if __name__ == "__main__":
    cli.run(main)
