"""Norm tuning on CRIS: scales and shifts of the norms of text tower, neck and decoder; the ResNet's stay.

    python -m tunevlseg_jax.train --config configs/cris_norm_tuning.py --data.name NAME

needs a converted CRIS in checkpoints/cris-rn50 (see configs/cris_coop.py). To try it on the embedded model instead, add
--model.checkpoint cris-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import NormTuning

config = Config(
    model=Model(checkpoint="checkpoints/cris-rn50"),
    learner=NormTuning(depth=12, towers="text", decoder=True),
    workdir="runs/cris_norm_tuning",
)
