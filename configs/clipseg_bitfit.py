"""BitFit: only biases of the frozen towers are learnt.

    python -m tunevlseg_jax.train --config configs/clipseg_bitfit.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import BitFit

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=BitFit(depth=12),
    workdir="runs/clipseg_bitfit",
)
