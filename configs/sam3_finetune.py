"""The fine-tuning baselines on SAM 3: no prompts, the decoder or everything trains.

    python -m tunevlseg_jax.train --config configs/sam3_finetune.py --train.tune decoder --workdir runs/sam3_decoder
    python -m tunevlseg_jax.train --config configs/sam3_finetune.py --train.tune all --workdir runs/sam3_all

needs a converted SAM 3 in checkpoints/sam3 (see docs/configuration.md); to try it on the embedded model instead, add
--model.checkpoint sam3-tiny.
"""

from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.learners import ZeroShot

config = Config(
    model=Model(checkpoint="checkpoints/sam3"),
    learner=ZeroShot(),
    optim=Optim(learning_rate=1e-4),
    train=Train(tune="decoder", batch_size=8, recompute="blocks"),
    workdir="runs/sam3_finetune",
)
