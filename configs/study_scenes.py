"""draft"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train
from tunevlseg_jax.grid import Ablation, Combination, Study
from tunevlseg_jax.learners import VPT, AnyLearner, CoCoOp, CoOp, MaPLe, SharedAttention, SharedSeparate, ZeroShot
from tunevlseg_jax.network import Upsampling
from tunevlseg_jax.partition import Tune
from tunevlseg_jax.tuning import Search

DOMAINS = ("scenes/photo", "scenes/xray", "scenes/endoscopy", "scenes/ultrasound")


def run(model: str, learner: AnyLearner, upsampling: Upsampling = "blend", tune: Tune = "prompts") -> Config:
    """A run of any of the combinations."""
    return Config(
        model=Model(checkpoint=model),
        learner=learner,
        upsampling=upsampling,
        data=Data(scenes=Scenes(train=240, val=100, test=200)),
        optim=Optim(learning_rate=1e-3),
        train=Train(epochs=8, batch_size=16, augment=False, tune=tune),
    )


MLP = ("projector.kind=mlp",)

study = Study(
    folder="runs/study_scenes",
    data=DOMAINS,
    combinations=(
        Combination(config=run("clipseg-tiny", ZeroShot(), "none")),
        Combination(config=run("clipseg-tiny", ZeroShot(), "none", "decoder")),
        Combination(config=run("clipseg-tiny", CoOp())),
        Combination(config=run("clipseg-tiny", CoCoOp()), space=MLP),
        Combination(config=run("clipseg-tiny", VPT())),
        Combination(config=run("clipseg-tiny", MaPLe()), space=MLP),
        Combination(config=run("clipseg-tiny", SharedSeparate())),
        Combination(
            config=run("clipseg-tiny", SharedAttention()), space=("heads=16", "hidden=176,195", "norm_first=true")
        ),
        Combination(config=run("cris-tiny", ZeroShot(), "none")),
        Combination(config=run("cris-tiny", CoOp())),
        Combination(config=run("cris-tiny", CoCoOp()), space=MLP),
    ),
    ablations=(
        Ablation(name="Gaussian context", field="learner.words", value=None, learners=("MaPLe",)),
        Ablation(name="no upsampler", field="upsampling", value="none"),
    ),
    search=Search(trials=4, parallel=4, space=("learning_rate=1e-3..2e-2",)),
    across=(DOMAINS,),
)
