"""Linear probing: a new linear layer on the frozen decoder's last grid, the smallest thing to learn.

    python -m tunevlseg_jax.train --config configs/clipseg_linear_probe.py --data.name NAME

needs a converted CLIPSeg in checkpoints/clipseg-rd64 (see the README); to try it on the embedded model instead, add
--model.checkpoint clipseg-tiny. On CRIS it is --model.checkpoint checkpoints/cris-rn50.
"""

from tunevlseg_jax.config import Config, Model
from tunevlseg_jax.learners import LinearProbe

config = Config(
    model=Model(checkpoint="checkpoints/clipseg-rd64"),
    learner=LinearProbe(),
    workdir="runs/clipseg_linear_probe",
)
