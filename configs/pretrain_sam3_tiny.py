"""Pre-trains the embedded SAM 3, sam3-tiny, on scenes/photo: its towers as CLIP's are, then its decoder on masks.

    python -m conversion.tiny --model sam3 --start clipseg-tiny --steps 500 --output checkpoints/clip-sam3-tiny
    python -m tunevlseg_jax.train --config configs/pretrain_sam3_tiny.py
    python -m conversion.run --run runs/pretrain_sam3_tiny --output checkpoints/sam3-tiny --dtype float16

takes about ten minutes of CPU time in all. The last folder is what lies in tunevlseg_jax/embedded/sam3-tiny: test Dice
0.865 on scenes/photo, where a model that marks every digit, whichever is asked for, has 0.709.

The first step begins with the towers of clipseg-tiny, as far as their weights have the same shapes: all but the
positions, which SAM 3 repeats in each window and rotates. It trains the cells of all three grids of the pyramid. See
configs/pretrain_clipseg_tiny.py for why the towers come first and stay frozen.
"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train

config = Config(
    model=Model(checkpoint="checkpoints/clip-sam3-tiny"),
    data=Data(name="scenes/photo", scenes=Scenes(train=6000, val=200, test=400, varied=True, prompts_per_image=3)),
    optim=Optim(learning_rate=2e-3, weight_decay=0.02, warmup_steps=100, cosine=True, plateau_factor=1.0),
    train=Train(tune="decoder", epochs=2, batch_size=48, augment=False),
    workdir="runs/pretrain_sam3_tiny",
)
