"""VLSM-Adapter on SAM 3: small layers in both frozen towers; none on the sentence vector, which nothing reads.

    python -m tunevlseg_jax.train --config configs/sam3_vlsm_adapter.py --data.name NAME

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import VLSMAdapter

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=VLSMAdapter(depth=9, sentence=False),
    train=Train(batch_size=8, recompute="blocks"),
    workdir="runs/sam3_vlsm_adapter",
)
