"""Sweeps of the learners beyond the paper on a small SAM 3: trials side by side are each as alone."""

import pytest
import small
import small_sam3
from sweep_cases import QUIET, curve, options

from tunevlseg_jax import sweep
from tunevlseg_jax.config import Model, Train
from tunevlseg_jax.learners import (
    IVLP,
    VPT,
    BitFit,
    Combined,
    KgCoOp,
    LinearProbe,
    LoRA,
    NormTuning,
    PromptSRC,
    VLSMAdapter,
)
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.search import run_sweep
from tunevlseg_jax.search.options import Replay

quick_compilation = small.quick_compilation
DEPTH = "depth=1..2"
SWEPT = {
    "LoRA": (LoRA(), (DEPTH, "rank=2,4")),
    "VLSMAdapter": (VLSMAdapter(sentence=False), (DEPTH, "hidden=8,16")),
    "BitFit": (BitFit(), (DEPTH,)),
    "NormTuning": (NormTuning(decoder=True), (DEPTH,)),
    "LinearProbe": (LinearProbe(), ()),
    "IVLP": (IVLP(), (DEPTH, "vision_depth=1..3")),
    "KgCoOp": (KgCoOp(), (DEPTH,)),
    "PromptSRC": (PromptSRC(average_epoch=1.0), (DEPTH,)),
    "Combined": (Combined(of=(VPT(depth=2), LoRA(depth=2))), ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEPT)
def test_a_trial_beside_another_is_the_trial_alone(name, tmp_path, monkeypatch):
    """To the bit, in the program of two trials."""
    monkeypatch.setattr(sharding, "num_cores", lambda: 1)
    learner, space = SWEPT[name]
    model = Model(checkpoint=str(small_sam3.write_folder(tmp_path / "model")))
    config = small.config(model=model, learner=learner, train=Train(epochs=1, batch_size=4))
    space = (*space, "learning_rate=1e-3..1e-2")
    run_sweep.sweep(options(tmp_path, config, trials=2, parallel=2, space=space), QUIET)
    sweep.replay(Replay(study="s", trial=1, folder=str(tmp_path)), QUIET)
    first, second, again = (tmp_path / "s" / part for part in ("trials/000", "trials/001", "replays/001"))
    assert small.metrics(second) == small.metrics(again)
    assert (second / "prompts.safetensors").read_bytes() == (again / "prompts.safetensors").read_bytes()
    assert curve(first)[0]["train"]["loss"] != curve(second)[0]["train"]["loss"]
