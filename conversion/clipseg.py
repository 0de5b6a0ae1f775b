"""Converts CLIPSeg: `python -m conversion.clipseg --checkpoint CIDAS/clipseg-rd64 --output checkpoints/rd64`."""

from conversion.settings import Options
from tunevlseg_jax import cli


def main() -> None:
    """Converts, and prints a line that describes the result."""
    options = cli.options(Options, "python -m conversion.clipseg", __doc__ or "")

    from conversion import clipseg_verify, huggingface
    from tunevlseg_jax.pretrained import clipseg_folder

    convert = huggingface.convert
    convert(options, "conversion.clipseg", clipseg_folder.clipseg_config, clipseg_verify.verify, clipseg_folder.save)


if __name__ == "__main__":
    cli.run(main)
