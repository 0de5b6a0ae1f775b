"""CoCoOp on CRIS: learnt words that each image shifts by a projection of its C5, averaged over the grid.

    python -m tunevlseg_jax.train --config configs/cris_cocoop.py --data.name NAME --workdir runs/cris_cocoop

needs a converted CRIS in checkpoints/cris-rn50:

    python -m conversion.cris --checkpoint cris_best.pth --tokenizer CIDAS/clipseg-rd64 --output checkpoints/cris-rn50

To try it on the embedded model instead, add --model.checkpoint cris-tiny --learner.depth 5. Images are resized to
416 x 416 (cris-tiny: 128 x 128); --model.prompt-offset 1 reproduces the published code's injection, a block late.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import CoCoOp

config = Config(
    model=Model(checkpoint="checkpoints/cris-rn50"),
    learner=CoCoOp(depth=9),
    upsampling="blend",
    workdir="runs/cris_cocoop",
)
