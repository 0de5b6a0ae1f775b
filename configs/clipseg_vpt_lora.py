"""Two learners at once: visual prompts (VPT) and low-rank paths (LoRA).

    python -m tunevlseg_jax.train --config configs/clipseg_vpt_lora.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.of.0.depth 5 --learner.of.1.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import VPT, Combined, LoRA

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=Combined(of=(VPT(), LoRA())),
    upsampling="blend",
    workdir="runs/clipseg_vpt_lora",
)
