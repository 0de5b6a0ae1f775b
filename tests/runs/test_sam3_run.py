"""Tests of a run whose model is a SAM 3, loaded from Hugging Face's folder: training, evaluation and prediction."""

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import small
import small_sam3
from numpy.testing import assert_array_equal
from rich.console import Console

from tunevlseg_jax import evaluate, predict
from tunevlseg_jax.config import Model, Train
from tunevlseg_jax.learners import CoOp, LinearProbe, LoRA, MaPLe, Projector, ZeroShot
from tunevlseg_jax.models.parameters import Tune
from tunevlseg_jax.pretrained import sam3_folder
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.run import load_model, load_run
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.training.build import build_experiment

quick_compilation = small.quick_compilation
LEARNERS = {
    "MaPLe": MaPLe(depth=2, max_depth=3, projector=Projector(hidden=(8,))),
    "LoRA": LoRA(depth=2),
}
IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)


def write_folder(folder: Path) -> Path:
    """Hugging Face's folder of a SAM 3 that is sure of what is there, and of some instances."""
    model = small_sam3.model()
    weights = dict(model.weights)
    weights["instances/presence/2/bias"] = np.full(1, 20, np.float32)
    weights["instances/scoring/query/kernel"] = 100 * weights["instances/scoring/query/kernel"]
    sam3_folder.save(folder, dataclasses.replace(model, weights=weights), {"made by": "tests"})
    return folder


def config(folder: Path, tune: Tune = "prompts", **changes):
    return small.config(
        folder / "run",
        model=Model(checkpoint=str(write_folder(folder / "model"))),
        train=Train(epochs=2, batch_size=4, augment=False, recompute="blocks", tune=tune),
        **changes,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_trains_evaluates_and_predicts(name, tmp_path):
    trainer.train(
        config(tmp_path, learner=LEARNERS[name], upsampling="none" if name == "LoRA" else "blend"), Console(quiet=True)
    )
    first, last = small.metrics(tmp_path / "run")
    assert last["train"]["loss"] < first["train"]["loss"]
    run = load_run(tmp_path / "run")
    assert 0 <= run.evaluate()["dice"] <= 1
    assert run.predict(IMAGE, "a circle").shape == (50, 70)


@pytest.mark.slow
def test_a_fine_tuned_decoder_finds_instances(tmp_path, monkeypatch, capsys):
    """Fine-tuning trains every weight of the decoder and no other; the run answers with both kinds of masks."""
    trainer.train(config(tmp_path, "decoder", learner=ZeroShot(), upsampling="none"), Console(quiet=True))
    first, last = small.metrics(tmp_path / "run")
    assert last["train"]["loss"] < first["train"]["loss"]
    run = load_run(tmp_path / "run", masks="instances")
    weights = load_pretrained(run.config.model.checkpoint).weights
    before = {f"model/{path}": weight for path, weight in weights.items()}
    assert run._learnt.keys() == {path for path in before if path.startswith("model/decoder/")}
    assert all(np.abs(run._learnt[path] - before[path]).max() > 0 for path in run._learnt)

    prompts = ["a circle", "a square"]
    found = run.candidates(IMAGE, prompts, least_score=0.0)
    masks = run.predict(IMAGE, prompts)
    for one, mask in zip(found, masks, strict=True):
        assert one.presence == pytest.approx(1, abs=1e-3) and len(one.scores) == 5
        assert one.masks.shape == (len(one.scores), 50, 70) and one.boxes.shape == (len(one.scores), 4)
        assert (np.diff(one.scores) <= 0).all()
        chosen = one.masks[one.scores > 0.5].any(axis=0)
        assert np.mean(chosen != mask) < 0.1  # resized before the union, not after it
    alone = run.candidates(IMAGE, prompts[0], least_score=0.0).scores
    for least in (0.5 * alone.min(), alone.min(), alone.max()):
        kept = run.candidates(IMAGE, prompts[0], least_score=float(least)).scores
        assert kept.tolist() == alone[alone > least].tolist()
    assert load_run(tmp_path / "run").predictor.fingerprint != run.predictor.fingerprint

    plain = load_run(tmp_path / "run").evaluation(ask_absent=True, output=tmp_path / "plain")
    asked = run.evaluation(ask_absent=True, output=tmp_path / "asked")
    assert asked.name == f"{plain.name}_instances" and "presence_auroc" not in plain.scores
    assert asked.scores["presence_true_rate"] == asked.scores["presence_false_rate"] == 1
    assert 0 <= asked.scores["presence_auroc"] <= 1
    lines = (tmp_path / "asked" / f"{asked.name}.csv").read_text().splitlines()
    assert lines[0].endswith(",presence") and all(float(line.rpartition(",")[2]) > 0.99 for line in lines[1:])
    for refused in (run.calibrate, run.robustness):
        with pytest.raises(UserError, match="needs semantic masks, got instances"):
            refused()

    cv2.imwrite(str(tmp_path / "photo.png"), IMAGE[..., ::-1])
    run_of = "--run", tmp_path / "run", "--masks", "instances"
    asked_for = "--image", tmp_path / "photo.png", "--prompt", *prompts, "--output", tmp_path / "found"
    small.run(monkeypatch, predict.main, *run_of, *asked_for)
    for prompt, mask in zip(prompts, masks, strict=True):
        path = tmp_path / "found" / f"photo_{prompt.replace(' ', '-')}_mask.png"
        assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0, mask)
    with (tmp_path / "found" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and all(float(row["presence"]) > 0.99 for row in rows)
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "80")
    small.run(monkeypatch, evaluate.main, *run_of, "--ask-absent", "--output", tmp_path / "again")
    text = capsys.readouterr().out
    assert "presence: the model's probability" in text and "every image asked for every class" in text
    assert "…" not in text, "no score is cut on a narrow terminal"


def test_what_the_masks_of_instances_do_not_fit_is_refused(tmp_path):
    usual = config(tmp_path, learner=CoOp(depth=1), upsampling="none")
    for changes, trains, says in (
        ({}, True, "masks must be semantic, got instances; they don't train"),
        ({"upsampling": "blend"}, False, "upsampling must be none, got blend"),
        ({"learner": LinearProbe()}, False, "LinearProbe computes the mask itself"),
        (
            {"model": Model(checkpoint="sam3-tiny")},
            False,
            "sam3-tiny: masks must be semantic for this SAM3, got inst",
        ),
        (
            {"model": Model(checkpoint=str(small.model_folder()))},
            False,
            "masks must be semantic for this CLIPSeg, got inst",
        ),
    ):
        with pytest.raises(UserError, match=says) as refusal:
            build_experiment(dataclasses.replace(usual, **changes), trains=trains, masks="instances")
        assert refusal.value.code == "masks-unfit"
    with pytest.raises(UserError, match='candidates need masks="instances"'):
        load_model(small.model_folder()).candidates(IMAGE, "a circle")
