"""The paper's study in miniature, on the embedded models and data; nothing to download.

    python -m tunevlseg_jax.study --config configs/study_scenes.py

trains 64 searches of two trials, repeats the better trial of each with two more seeds, and trains 16 ablations and four
fine-tuned decoders with three seeds: 316 runs of 8 epochs of 160 records, in about an hour on two cores.
docs/miniature.md has the results; `runs/study_scenes/report` gets the paper's tables and figures. The models have seen
`scenes/photo` alone, so the other domains are to them what medical images are to a model of photographs; the learners
that prompt the vision tower can adapt to that, and learnt words can't where nothing is seen.

What differs from the paper's search: three seeds; two trials instead of twenty, both of them random and others on each
data set, but the same for all learners as far as they have the same hyperparameters; learning rates around that of the
quickstart, since a run has 80 steps; one kind of projector, and feed-forward layers as wide as the small towers ask
for, so that each search is one compiled program; the upsampler is ablated for the plainest textual and the plainest
visual learner, and learners beyond the paper are on one model. All of this was decided by what runs cost. The precision
is named, so that all cells have the same one on every machine. Seeds: 0, 1 and 2 for runs; 0, 1, 2 and 3 for the
searches on the four domains.
"""

from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train
from tunevlseg_jax.learners import (
    IVLP,
    VPT,
    AnyLearner,
    BitFit,
    CoCoOp,
    CoOp,
    KgCoOp,
    LinearProbe,
    LoRA,
    MaPLe,
    NormTuning,
    PromptSRC,
    SharedAttention,
    SharedSeparate,
    VLSMAdapter,
    ZeroShot,
)
from tunevlseg_jax.models.settings import Tune, Upsampling
from tunevlseg_jax.search.options import Search
from tunevlseg_jax.studies.grid import Ablation, Combination, Study

DOMAINS = ("scenes/ultrasound", "scenes/endoscopy", "scenes/xray", "scenes/photo")


def run(model: str, learner: AnyLearner, upsampling: Upsampling = "blend", tune: Tune = "prompts") -> Config:
    """What all combinations have in common, and where they differ."""
    return Config(
        model=Model(checkpoint=model),
        learner=learner,
        upsampling=upsampling,
        data=Data(scenes=Scenes(train=160, val=64, test=200)),
        optim=Optim(learning_rate=1e-3),
        train=Train(epochs=8, batch_size=16, augment=False, tune=tune, precision="float32"),
    )


MLP = ("projector.kind=mlp",)

BEYOND = (
    Combination(config=run("clipseg-tiny", LoRA())),
    Combination(config=run("clipseg-tiny", VLSMAdapter())),
    Combination(config=run("clipseg-tiny", BitFit())),
    Combination(config=run("clipseg-tiny", NormTuning())),
    Combination(config=run("clipseg-tiny", LinearProbe())),
    Combination(config=run("clipseg-tiny", IVLP())),
    Combination(config=run("clipseg-tiny", KgCoOp())),
    Combination(config=run("clipseg-tiny", PromptSRC(average_epoch=6.0))),
)
"""Learners beyond the paper, a group of its own in the report's tables."""

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
        *BEYOND,
    ),
    ablations=(
        Ablation(name="Gaussian context", field="learner.init_phrase", value=None, learners=("MaPLe",)),
        Ablation(name="no upsampler", field="upsampling", value="none", learners=("CoOp", "VPT")),
    ),
    search=Search(trials=2, parallel=4, seeds=3, space=("learning_rate=1e-3..2e-2",)),
)
