"""Adapts the embedded SAM 3 to endoscopy-like scenes with visual prompts; nothing to download.

    python -m tunevlseg_jax.train --config configs/quickstart_sam3.py

takes about two and a half minutes of CPU time, compilation included, and ends near Dice 0.59 on the test split, where
the model as it is has 0.07: it has seen photographs alone. For a real checkpoint take configs/sam3_vpt.py: images of
1008 x 1008 pixels need its smaller batches and less memory for each.
"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train
from tunevlseg_jax.learners import VPT

config = Config(
    model=Model(checkpoint="sam3-tiny"),
    learner=VPT(depth=5, num_context=8),
    upsampling="blend",
    data=Data(name="scenes/endoscopy", scenes=Scenes(train=400, val=100, test=200)),
    optim=Optim(learning_rate=5e-3),
    train=Train(epochs=20, batch_size=32, augment=False),
    workdir="runs/quickstart_sam3",
)
