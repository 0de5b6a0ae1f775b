"""VLSM-Adapter: small layers in both frozen towers and on the sentence vector.

    python -m tunevlseg_jax.train --config configs/clipseg_vlsm_adapter.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5. The shallow variant is --learner.kind shallow --learner.depth 3
--learner.towers vision --learner.hidden 512.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import VLSMAdapter

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=VLSMAdapter(depth=9),
    workdir="runs/clipseg_vlsm_adapter",
)
