"""KgCoOp: CoOp whose sentence vector stays near that of a hand-written prompt.

    python -m tunevlseg_jax.train --config configs/clipseg_kgcoop.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5. --learner.templates gives other hand-written prompts, each with {}
for the phrase.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import KgCoOp

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=KgCoOp(depth=9),
    upsampling="blend",
    workdir="runs/clipseg_kgcoop",
)
