"""PromptSRC: IVLP near the frozen model's vectors and masks, its prompts averaged over epochs.

    python -m tunevlseg_jax.train --config configs/clipseg_promptsrc.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny --learner.depth 5. The average is centred on epoch 15 of 20; for another number of
epochs set --learner.average-epoch, too. With --train.augmented-views 4 the frozen model encodes each view once.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import PromptSRC

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=PromptSRC(depth=9),
    upsampling="blend",
    workdir="runs/clipseg_promptsrc",
)
