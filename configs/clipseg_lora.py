"""LoRA: low-rank paths beside the products of both towers; the usual rival of prompts.

    python -m tunevlseg_jax.train --config configs/clipseg_lora.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import LoRA

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=LoRA(depth=12),
    upsampling="blend",
    workdir="runs/clipseg_lora",
)
