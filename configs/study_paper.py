"""The paper's study: its ten data sets, both models, all learners, the baselines, and the ablations of Tables 4 and 5;
and learners beyond the paper.

    python -m tunevlseg_jax.study --config configs/study_paper.py --plan
    python -m tunevlseg_jax.study --config configs/study_paper.py

The first tells every cell with what it trains on, and what is missing; the second needs the prepared sets in `data`,
and converted checkpoints in checkpoints/clipseg-rd64 and checkpoints/cris-rn50 (see the README).

The cost: 370 cells train on 435 million images together, 423 million of them in the searches (22 combinations x 20
trials x 20 epochs x 48,096 training records). With `--rates` the plan tells hours at rates that were measured, or that
a TPU slice can have at most (see the README). Of the paper's combinations: 53,000 hours on two CPU cores without the
fine-tuned models; 5 chip hours of TPU v5e at least for VPT. Augmentation is the paper's, and exact. The three polyp
sets are evaluated across as well.
"""

from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.learners import (
    IVLP,
    PAPER,
    AnyLearner,
    BitFit,
    CoCoOp,
    CoOp,
    KgCoOp,
    LinearProbe,
    LoRA,
    NormTuning,
    PromptSRC,
    VLSMAdapter,
)
from tunevlseg_jax.models.settings import Tune, Upsampling
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.studies.grid import Ablation, Combination, Study

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


BEYOND = (
    learning(CLIPSEG, LoRA()),
    learning(CLIPSEG, VLSMAdapter()),
    learning(CLIPSEG, BitFit()),
    learning(CLIPSEG, NormTuning()),
    learning(CLIPSEG, LinearProbe()),
    learning(CLIPSEG, IVLP()),
    learning(CLIPSEG, KgCoOp()),
    learning(CLIPSEG, PromptSRC()),
    learning(CRIS, LoRA(towers="text")),
    learning(CRIS, VLSMAdapter(towers="text")),
    learning(CRIS, BitFit(towers="text")),
    learning(CRIS, NormTuning(towers="text", decoder=True)),
    learning(CRIS, LinearProbe()),
    learning(CRIS, KgCoOp()),
)
"""Learners beyond the paper, a group of its own in the report's tables."""

study = Study(
    folder="runs/study_paper",
    data=(*NONRADIOLOGY, *RADIOLOGY, *OPEN_DOMAIN),
    combinations=(
        as_it_is(CLIPSEG),
        as_it_is(CLIPSEG, "decoder"),
        as_it_is(CLIPSEG, "all"),
        *(learning(CLIPSEG, cls()) for cls in PAPER),
        as_it_is(CRIS),
        as_it_is(CRIS, "decoder"),
        as_it_is(CRIS, "all"),
        *(learning(CRIS, cls()) for cls in (CoOp, CoCoOp)),
        *BEYOND,
    ),
    ablations=(
        Ablation(name="Gaussian context", field="learner.init_phrase", value=None, learners=("MaPLe",)),
        Ablation(name="no upsampler", field="upsampling", value="none", learners=tuple(cls.__name__ for cls in PAPER)),
    ),
    search=Search(trials=20),
    across=(("kvasir", "clinicdb", "bkai"),),
)
