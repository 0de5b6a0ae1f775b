"""Pre-trains the embedded model, clipseg-tiny, from nothing on scenes/photo."""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train

config = Config(
    model=Model(checkpoint="clipseg-tiny", fresh=True),
    data=Data(name="scenes/photo", scenes=Scenes(train=16000, val=200, test=400, varied=True)),
    optim=Optim(learning_rate=1e-3, weight_decay=0.05, warmup_steps=500, cosine=True, plateau_factor=1.0),
    train=Train(tune="all", epochs=15, batch_size=64, patience=15),
    workdir="runs/pretrain_clipseg_tiny",
)
