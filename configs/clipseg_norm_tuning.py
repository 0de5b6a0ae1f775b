"""Norm tuning: only scales and shifts of the frozen model's layer norms are learnt, the decoder's too.

    python -m tunevlseg_jax.train --config configs/clipseg_norm_tuning.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import NormTuning

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=NormTuning(depth=12, decoder=True),
    workdir="runs/clipseg_norm_tuning",
)
