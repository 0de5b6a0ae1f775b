"""Converts SAM 3: `python -m conversion.sam3 --checkpoint facebook/sam3 --output checkpoints/sam3`.

A checkpoint that holds the tracker of videos as well is converted without it.
"""

from conversion.settings import Options
from tunevlseg_jax import cli


def main() -> None:
    """Converts, and prints a line that describes the result."""
    options = cli.options(Options, "python -m conversion.sam3", __doc__ or "")

    from conversion import huggingface, sam3_verify
    from tunevlseg_jax.pretrained import sam3_folder
    from tunevlseg_jax.pretrained.model import WEIGHTS_FILE, tensor_names

    convert = huggingface.convert
    checkpoint = convert(options, "conversion.sam3", sam3_folder.sam3_config, sam3_verify.verify, sam3_folder.save)
    left_out = [name for name in tensor_names(checkpoint / WEIGHTS_FILE) if name.startswith(sam3_folder.TRACKER)]
    if left_out:
        starts = " and ".join(f"{name}*" for name in sam3_folder.TRACKER)
        print(f"left out {len(left_out)} tensors of the tracker, {starts}")


if __name__ == "__main__":
    cli.run(main)
