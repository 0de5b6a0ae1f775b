"""Shared Attention: shared vectors, mixed by a transformer block for each depth.

    python -m tunevlseg_jax.train --config configs/clipseg_shared_attention.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import SharedAttention

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=SharedAttention(depth=9),
    upsampling="blend",
    workdir="runs/clipseg_shared_attention",
)
