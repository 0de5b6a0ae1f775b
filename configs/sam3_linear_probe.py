"""Linear probing on SAM 3: a new linear layer on the frozen pixel embedding.

    python -m tunevlseg_jax.train --config configs/sam3_linear_probe.py --data.name NAME

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny.
"""

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import LinearProbe

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=LinearProbe(),
    train=Train(batch_size=8, recompute="blocks"),
    workdir="runs/sam3_linear_probe",
)
