"""LoRA on CRIS: low-rank paths beside the products of the text tower; the ResNet has no transformer blocks.

    python -m tunevlseg_jax.train --config configs/cris_lora.py --data.name NAME

needs a converted CRIS in checkpoints/cris-rn50 (see configs/cris_coop.py). To try it on the embedded model instead, add
--model.checkpoint cris-tiny --learner.depth 5.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import LoRA

config = Config(
    model=Model(checkpoint="checkpoints/cris-rn50"),
    learner=LoRA(depth=12, towers="text"),
    upsampling="blend",
    workdir="runs/cris_lora",
)
