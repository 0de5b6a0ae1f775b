"""PromptSRC on SAM 3: IVLP near the frozen model's vectors and masks, its prompts averaged over epochs.

    python -m tunevlseg_jax.train --config configs/sam3_promptsrc.py --data.name NAME

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny --learner.depth 5. The average is centred on epoch 15 of 20; for another number of epochs
set --learner.average-epoch, too.
"""

from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import PromptSRC

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=PromptSRC(depth=9),
    upsampling="blend",
    train=Train(batch_size=8, recompute="blocks"),
    workdir="runs/sam3_promptsrc",
)
