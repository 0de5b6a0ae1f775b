"""SAM 3's rows of the miniature: five combinations on sam3-tiny and the four domains; nothing to download.

    python -m tunevlseg_jax.study --config configs/study_scenes_sam3.py

Data, epochs, trials and learning rates are those of configs/study_scenes.py, with three seeds of each best trial. Both
studies can stand in one report: python -m tunevlseg_jax.report --runs runs.
"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train
from tunevlseg_jax.learners import VPT, AnyLearner, CoOp, LoRA, MaPLe, ZeroShot
from tunevlseg_jax.models.upsampler import Upsampling
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.studies.grid import Combination, Study

DOMAINS = ("scenes/photo", "scenes/xray", "scenes/endoscopy", "scenes/ultrasound")


def run(learner: AnyLearner, upsampling: Upsampling = "blend") -> Config:
    """What all combinations have in common, and where they differ."""
    return Config(
        model=Model(checkpoint="sam3-tiny"),
        learner=learner,
        upsampling=upsampling,
        data=Data(scenes=Scenes(train=160, val=64, test=200)),
        optim=Optim(learning_rate=1e-3),
        train=Train(epochs=8, batch_size=16, augment=False, precision="float32"),
    )


study = Study(
    folder="runs/study_scenes_sam3",
    data=DOMAINS,
    combinations=(
        Combination(config=run(ZeroShot(), "none")),
        Combination(config=run(CoOp())),
        Combination(config=run(VPT())),
        Combination(config=run(LoRA())),
        Combination(config=run(MaPLe()), space=("projector.kind=mlp",)),
    ),
    search=Search(trials=2, parallel=4, seeds=3, space=("learning_rate=1e-3..2e-2",)),
    across=(DOMAINS,),
)
