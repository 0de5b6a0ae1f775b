"""Pre-trains the embedded model, clipseg-tiny, on scenes/photo: its towers as CLIP's are, then its decoder on masks.

    python -m conversion.tiny --model clipseg --output checkpoints/clip-tiny
    python -m tunevlseg_jax.train --config configs/pretrain_clipseg_tiny.py
    python -m conversion.run --run runs/pretrain_clipseg_tiny --output checkpoints/clipseg-tiny --dtype float16

takes about 7 and 5 minutes on two CPU cores. The last folder is what lies in tunevlseg_jax/embedded/clipseg-tiny: test
Dice 0.769 on scenes/photo, where a model that marks every digit, whichever is asked for, has 0.709.

The towers stay frozen in the second step, as CLIPSeg's do. Training all of it on masks at once ended in that blind
model: while the towers can't read, the sentence is noise, and the decoder learns to ignore it before they can.
"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train

config = Config(
    model=Model(checkpoint="checkpoints/clip-tiny"),
    data=Data(name="scenes/photo", scenes=Scenes(train=12000, val=200, test=400, varied=True, prompts_per_image=3)),
    optim=Optim(learning_rate=2e-3, weight_decay=0.02, warmup_steps=100, cosine=True, plateau_factor=1.0),
    train=Train(tune="decoder", epochs=4, batch_size=96, augment=False),
    workdir="runs/pretrain_clipseg_tiny",
)
