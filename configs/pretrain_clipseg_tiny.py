"""Pre-trains the embedded model, clipseg-tiny, on scenes/photo: first its towers as CLIP's are, then all of it on masks.

    python -m conversion.tiny --output checkpoints/clip-tiny
    python -m tunevlseg_jax.train --config configs/pretrain_clipseg_tiny.py
    python -m conversion.clipseg --checkpoint runs/pretrain_clipseg_tiny --output checkpoints/clipseg-tiny --dtype float16

The last folder is what lies in tunevlseg_jax/embedded/clipseg-tiny.
"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train

config = Config(
    model=Model(checkpoint="checkpoints/clip-tiny"),
    data=Data(name="scenes/photo", scenes=Scenes(train=12000, val=200, test=400, varied=True, prompts_per_image=3)),
    optim=Optim(learning_rate=7e-4, weight_decay=0.02, warmup_steps=100, cosine=True, plateau_factor=1.0),
    train=Train(tune="all", epochs=6, batch_size=96, seed=0),
    workdir="runs/pretrain_clipseg_tiny",
)
