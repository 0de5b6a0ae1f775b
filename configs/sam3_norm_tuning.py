"""Norm tuning on SAM 3: only scales and shifts of the norms are learnt, the decoder's too.

    python -m tunevlseg_jax.train --config configs/sam3_norm_tuning.py --data.name NAME

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import NormTuning

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=NormTuning(depth=32, decoder=True),
    train=Train(batch_size=8, recompute="blocks"),
    workdir="runs/sam3_norm_tuning",
)
