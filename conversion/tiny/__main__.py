"""Writes the start of an embedded model: sizes, a tokenizer, and towers trained on `scenes` as CLIP's are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunevlseg_jax import cli
from tunevlseg_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Options:
    """The model to train.

    Attributes:
      output: folder to write.
      model: kind of the embedded model.
      steps: of training, at least 1.
      seed: of the weights and of the order.
      start: model to begin with: its weights whose path and shape are those of one here; None for random weights.
    """

    output: str
    model: Literal["clipseg", "cris", "sam3"] = "clipseg"
    steps: int = 2500
    seed: int = 0
    start: str | None = None


def main() -> None:
    """Writes the folder."""
    options = cli.options(Options, "python -m conversion.tiny", __doc__ or "")
    if options.steps < 1:
        raise UserError(f"--steps must be at least 1, got {options.steps}", "out-of-range")

    import numpy as np

    from conversion.tiny.contrastive import pretrain
    from conversion.tiny.sizes import clipseg_sizes, cris_sizes, sam3_sizes, train_tokenizer
    from tunevlseg_jax.pretrained.load import load_pretrained, save_pretrained
    from tunevlseg_jax.pretrained.model import Pretrained

    tokenizer = train_tokenizer()
    sizes = {"clipseg": clipseg_sizes, "cris": cris_sizes, "sam3": sam3_sizes}
    config = sizes[options.model](tokenizer)
    start = {} if options.start is None else load_pretrained(options.start).weights
    weights = pretrain(config, tokenizer, options.steps, options.seed, start)
    model = Pretrained(config, {path: np.asarray(array) for path, array in weights.items()}, tokenizer, "")
    save_pretrained(Path(options.output), model, {"made by": f"python -m conversion.tiny --model {options.model}"})


if __name__ == "__main__":
    cli.run(main)
