"""Pre-trains the embedded CRIS, cris-tiny, on scenes/photo: its towers as CLIP's are, then its decoder on masks.

    python -m conversion.tiny --model cris --steps 2000 --output checkpoints/clip-cris-tiny
    python -m tunevlseg_jax.train --config configs/pretrain_cris_tiny.py
    python -m conversion.run --run runs/pretrain_cris_tiny --output checkpoints/cris-tiny --dtype float16

takes about ten minutes of one CPU core for each of the first two. The last folder is what lies in
tunevlseg_jax/embedded/cris-tiny: test Dice 0.872 on scenes/photo, where a model that marks every digit, whichever is
asked for, has 0.709.

The first step normalises by the batch and ends with the statistics of BatchNorm, the decoder's too; from there on they
stay. See configs/pretrain_clipseg_tiny.py for why the towers come first and stay frozen.
"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train

config = Config(
    model=Model(checkpoint="checkpoints/clip-cris-tiny"),
    data=Data(name="scenes/photo", scenes=Scenes(train=12000, val=200, test=400, varied=True, prompts_per_image=3)),
    optim=Optim(learning_rate=2e-3, weight_decay=0.02, warmup_steps=100, cosine=True, plateau_factor=1.0),
    train=Train(tune="decoder", epochs=2, batch_size=48, augment=False),
    workdir="runs/pretrain_cris_tiny",
)
