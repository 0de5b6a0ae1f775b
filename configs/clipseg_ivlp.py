"""IVLP: learnt words and learnt vision tokens, independent of each other.

    python -m tunevlseg_jax.train --config configs/clipseg_ivlp.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import IVLP

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=IVLP(depth=9),
    upsampling="blend",
    workdir="runs/clipseg_ivlp",
)
