"""KgCoOp on SAM 3: CoOp whose sentence vector stays near that of a hand-written prompt.

    python -m tunevlseg_jax.train --config configs/sam3_kgcoop.py --data.name NAME

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import KgCoOp

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=KgCoOp(depth=9),
    upsampling="blend",
    train=Train(batch_size=8, recompute="blocks"),
    workdir="runs/sam3_kgcoop",
)
