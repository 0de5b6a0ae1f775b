"""Two learners at once on SAM 3: visual prompts (VPT) and low-rank paths (LoRA).

    python -m tunevlseg_jax.train --config configs/sam3_vpt_lora.py --data.name NAME

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny --learner.of.0.depth 5 --learner.of.1.depth 5.
"""

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import VPT, Combined, LoRA

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=Combined(of=(VPT(), LoRA(depth=32))),
    upsampling="blend",
    train=Train(batch_size=8, recompute="blocks"),
    workdir="runs/sam3_vpt_lora",
)
