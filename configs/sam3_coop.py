"""CoOp on SAM 3: learnt words before the phrase, in the text tower.

    python -m tunevlseg_jax.train --config configs/sam3_coop.py --data.name NAME

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny --learner.depth 5. Images are resized to 1008 x 1008 (sam3-tiny: 96 x 96);
--model.image-size 504 504 has a quarter of the patches.
"""

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import CoOp

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=CoOp(depth=9),
    upsampling="blend",
    train=Train(batch_size=8, recompute="blocks"),
    workdir="runs/sam3_coop",
)
