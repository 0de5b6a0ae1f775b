"""KgCoOp on CRIS: CoOp whose sentence vector stays near that of a hand-written prompt.

    python -m tunevlseg_jax.train --config configs/cris_kgcoop.py --data.name NAME

needs a converted CRIS in checkpoints/cris-rn50 (see configs/cris_coop.py); to try it on the embedded model instead, add
--model.checkpoint cris-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import KgCoOp

config = Config(
    model=Model(checkpoint="checkpoints/cris-rn50"),
    learner=KgCoOp(depth=9),
    upsampling="blend",
    workdir="runs/cris_kgcoop",
)
