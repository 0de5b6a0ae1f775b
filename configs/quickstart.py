"""Adapts the embedded model to ultrasound-like scenes with visual prompts; nothing to download.

    python -m tunevlseg_jax.train --config configs/quickstart.py

takes about a minute on two CPU cores, compilation included, and ends near Dice 0.52 on the test split, where the model
as it is has 0.00: it has seen bright digits on photographs, never dark ones in speckle. The same command takes a real
checkpoint: --model.checkpoint checkpoints/clipseg-rd64.
"""

from tunevlseg_jax.config import Config, Data, Optim, Scenes, Train
from tunevlseg_jax.learners import VPT

config = Config(
    learner=VPT(depth=5, num_context=8),
    upsampling="blend",
    data=Data(name="scenes/ultrasound", scenes=Scenes(train=400, val=100, test=200)),
    optim=Optim(learning_rate=5e-3),
    train=Train(epochs=20, batch_size=32, augment=False),
    workdir="runs/quickstart",
)
