"""Makes a run that trained its model a model: `python -m conversion.run --run runs/all --output checkpoints/all`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from conversion import output
from conversion.output import Precision
from tunevlseg_jax import cli
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained, check_shapes
from tunevlseg_jax.runs.card import LEARNT_FILE, load_learnt
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.files import sha256


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
    folder = Path(options.output)
    output.check(folder)
    model = load(Path(options.run))
    source = {"made by": "conversion.run", "run": output.portable(options.run), "sha256": model.sha256}
    print(output.write(folder, model, source, options.dtype))
    config, _, _ = load_learnt(Path(options.run))
    height, width = config.model.image_size or (0, 0)
    if height != width:
        print(
            f"note: it was trained on images of {height}x{width} pixels, which a model folder can't tell: "
            f"train with --model.image-size {height} {width}"
        )


def load(run: Path) -> Pretrained:
    """The base model of a run with the weights that the run trained.

    Raises:
      UserError: the run hasn't finished, trained something else than its model, or its base model isn't there any more.
    """
    config, learnt, card = load_learnt(run)
    beside = sorted(name for name in learnt if not name.startswith("model/"))
    if len(beside) == len(learnt):
        raise UserError(f"{run} trained no weights of its model, {config.model.checkpoint}", "not-convertible")
    if beside:
        raise UserError(f"{run} trained {beside[0]} too, which a model folder can't hold", "not-convertible")
    base = load_pretrained(config.model.checkpoint, weights=not config.model.fresh)
    if base.sha256 != card["model_sha256"]:
        raise UserError(f"{config.model.checkpoint} is no longer the model that {run} was trained on", "model-changed")
    trained = {name.removeprefix("model/"): tensor.astype(np.float32) for name, tensor in learnt.items()}
    weights = {**base.weights, **trained}
    path = run / LEARNT_FILE
    check_shapes(weights, base.config, path)
    height, width = config.model.image_size or (base.config.image_size, base.config.image_size)
    sizes = dataclasses.replace(base.config, image_size=height) if height == width else base.config
    return Pretrained(sizes, weights, base.tokenizer, sha256(path))


if __name__ == "__main__":
    cli.run(main)
