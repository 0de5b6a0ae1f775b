"""Makes a run that trained its model a model: `python -m conversion.run --run runs/all --output checkpoints/all`."""

from dataclasses import dataclass
from pathlib import Path

from conversion.settings import Precision
from tunevlseg_jax import cli


@dataclass(frozen=True)
class Options:
    """The run to convert, and the folder to write.

    Attributes:
      run: folder of a run that trained the model itself (train.tune "decoder" or "all").
      output: folder to write; it must be empty, or hold a model that a conversion wrote, which is replaced.
      dtype: type of the stored weights.
    """

    run: str
    output: str
    dtype: Precision = "float32"


def main() -> None:
    """Converts, and prints a line that describes the result."""
    options = cli.options(Options, "python -m conversion.run", __doc__ or "")

    from conversion import output
    from tunevlseg_jax.runs.card import load_learnt
    from tunevlseg_jax.runs.locate import find_run
    from tunevlseg_jax.runs.trained_model import load

    folder = Path(options.output)
    output.check(folder)
    run = find_run(options.run)
    model = load(run)
    source = {"made by": "conversion.run", "run": output.portable(options.run), "sha256": model.sha256}
    print(output.write(folder, model, source, options.dtype))
    config, _, _ = load_learnt(run)
    height, width = config.model.image_size or (0, 0)
    if height != width:
        print(
            f"note: it was trained on images of {height}x{width} pixels, which a model folder can't tell: "
            f"train with --model.image-size {height} {width}"
        )


if __name__ == "__main__":
    cli.run(main)
