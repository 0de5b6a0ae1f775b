"""Adapts the embedded model to ultrasound-like scenes with visual prompts; nothing to download."""

from tunevlseg_jax.config import Config, Data, Optim, Scenes, Train
from tunevlseg_jax.learners import VPT

config = Config(
    learner=VPT(depth=6, num_context=8),
    upsampling="blend",
    data=Data(name="scenes/ultrasound", scenes=Scenes(train=400, val=100, test=200)),
    optim=Optim(learning_rate=5e-3),
    train=Train(epochs=20, batch_size=32),
    workdir="runs/quickstart",
)
