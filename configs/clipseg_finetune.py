"""The fine-tuning baselines: no prompts, the decoder or everything trains.

    python -m tunevlseg_jax.train --config configs/clipseg_finetune.py --train.tune decoder --workdir runs/decoder
    python -m tunevlseg_jax.train --config configs/clipseg_finetune.py --train.tune all --workdir runs/all

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny.
"""

from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.learners import ZeroShot

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=ZeroShot(),
    optim=Optim(learning_rate=1e-4),
    train=Train(tune="decoder"),
    workdir="runs/clipseg_finetune",
)
