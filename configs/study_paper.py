"""draft"""

from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.grid import Ablation, Combination, Study
from tunevlseg_jax.learners import VPT, AnyLearner, CoCoOp, CoOp, MaPLe, SharedAttention, SharedSeparate
from tunevlseg_jax.network import Upsampling
from tunevlseg_jax.partition import Tune
from tunevlseg_jax.tuning import Search

CLIPSEG, CRIS = Model(checkpoint="checkpoints/clipseg-rd64"), Model(checkpoint="checkpoints/cris-rn50")
NONRADIOLOGY = ("kvasir", "clinicdb", "bkai", "isic2016", "dfu2022")
RADIOLOGY = ("camus", "busi", "chexlocalize")
OPEN_DOMAIN = ("cityscapes", "voc2012")


def as_it_is(model: Model, tune: Tune = "prompts") -> Combination:
    """Zero-shot, or fine-tuned."""
    return Combination(config=Config(model=model, optim=Optim(learning_rate=1e-4), train=Train(tune=tune)))


def learning(model: Model, learner: AnyLearner, upsampling: Upsampling = "blend") -> Combination:
    """Prompts, searched with the paper's Table 2."""
    return Combination(config=Config(model=model, learner=learner, upsampling=upsampling))


study = Study(
    folder="runs/study_paper",
    data=(*NONRADIOLOGY, *RADIOLOGY, *OPEN_DOMAIN),
    combinations=(
        as_it_is(CLIPSEG),
        as_it_is(CLIPSEG, "decoder"),
        as_it_is(CLIPSEG, "all"),
        *(learning(CLIPSEG, cls()) for cls in (CoOp, CoCoOp, VPT, MaPLe, SharedSeparate, SharedAttention)),
        as_it_is(CRIS),
        as_it_is(CRIS, "decoder"),
        as_it_is(CRIS, "all"),
        *(learning(CRIS, cls()) for cls in (CoOp, CoCoOp)),
    ),
    ablations=(
        Ablation(name="Gaussian context", field="learner.words", value=None, learners=("MaPLe",)),
        Ablation(name="no upsampler", field="upsampling", value="none"),
    ),
    search=Search(trials=20),
    across=(("kvasir", "clinicdb", "bkai"),),
)
