"""Tests of a run whose model is a SAM 3, loaded from Hugging Face's folder: training, evaluation and prediction."""

import dataclasses

import numpy as np
import pytest
import small
import small_sam3
from rich.console import Console

from tunevlseg_jax.config import Model, Train
from tunevlseg_jax.learners import LoRA, MaPLe, Projector
from tunevlseg_jax.pretrained import sam3_folder
from tunevlseg_jax.run import load_run
from tunevlseg_jax.runs import trainer

quick_compilation = small.quick_compilation
LEARNERS = {
    "MaPLe": MaPLe(depth=2, max_depth=3, projector=Projector(hidden=(8,))),
    "LoRA": LoRA(depth=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_trains_evaluates_and_predicts(name, tmp_path):
    sam3_folder.save(tmp_path / "model", small_sam3.model(), {"made by": "tests"})
    config = small.config(
        tmp_path / "run",
        model=Model(checkpoint=str(tmp_path / "model")),
        learner=LEARNERS[name],
        train=Train(epochs=2, batch_size=4, augment=False, recompute="blocks"),
    )
    if name == "LoRA":
        config = dataclasses.replace(config, upsampling="none")
    trainer.train(config, Console(quiet=True))
    first, last = small.metrics(tmp_path / "run")
    assert last["train"]["loss"] < first["train"]["loss"]
    run = load_run(tmp_path / "run")
    assert 0 <= run.evaluate()["dice"] <= 1
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert run.predict(image, "a circle").shape == (50, 70)
