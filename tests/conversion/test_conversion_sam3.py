"""Tests of `python -m conversion.sam3`: exact round trips, a tracker that is left out, and mistakes."""

import dataclasses
import shutil
import sys
from pathlib import Path

import mistakes
import numpy as np
import pytest
import small_sam3
from huggingface_hub.errors import GatedRepoError
from safetensors.numpy import load_file, save_file

from conversion import sam3, sam3_verify
from tunevlseg_jax import cli
from tunevlseg_jax.pretrained import sam3_folder
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.runtime.files import read_json, write_json

TRACKER = {"tracker_model.memory.weight": np.ones(3, np.float32), "tracker_neck.bias": np.ones(2, np.float32)}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """A folder as `--to-huggingface` writes it."""
    folder = tmp_path_factory.mktemp("theirs")
    sam3_folder.save(folder, small_sam3.model(), {"made by": "conversion.sam3"})
    return folder


@pytest.fixture
def source(tmp_path, theirs) -> Path:
    """A copy of it to change."""
    shutil.copytree(theirs, tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def convert(monkeypatch, capsys):
    """Runs the command in this process; returns its output, or raises a UserError with its line of error."""

    def run(checkpoint, output, *options: str) -> str:
        arguments = ["--checkpoint", str(checkpoint), "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", ["sam3", *arguments])
        try:
            cli.run(sam3.main)
        except SystemExit:
            raise mistakes.printed(capsys.readouterr().err) from None
        return capsys.readouterr().out

    return run


def change_config(folder: Path, *sections: str, **changes) -> None:
    config = part = read_json(folder / "config.json")
    for name in sections:
        part = part[name]
    part.update(changes)
    write_json(folder / "config.json", config)


def with_tracker(folder: Path) -> None:
    """Turns a detector's folder into that of the published checkpoint, which has a tracker of videos too."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    detector = {f"detector_model.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(detector | TRACKER, weights)
    write_json(config, {"model_type": "sam3_video", "detector_config": read_json(config)})


def test_round_trip_is_exact(theirs, tmp_path, convert):
    assert "wrote" in convert(theirs, tmp_path / "ours")
    loaded = load_pretrained(str(tmp_path / "ours"))
    assert loaded.config == small_sam3.sizes()
    assert loaded.weights.keys() == small_sam3.model().weights.keys()
    assert all(np.array_equal(loaded.weights[name], w) for name, w in small_sam3.model().weights.items())
    convert(tmp_path / "ours", tmp_path / "back", "--to-huggingface")
    before, after = (load_file(folder / "model.safetensors") for folder in (theirs, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_folder_loads_as_it_is(theirs):
    loaded = load_pretrained(str(theirs))
    assert loaded.config == small_sam3.sizes()
    assert all(np.array_equal(loaded.weights[name], w) for name, w in small_sam3.model().weights.items())


def test_the_tracker_is_left_out_and_named(source, tmp_path, convert):
    with_tracker(source)
    out = convert(source, tmp_path / "ours")
    assert "left out 2 tensors of the tracker, tracker_model.* and tracker_neck.*" in out
    loaded = load_pretrained(str(tmp_path / "ours"))
    assert loaded.config == small_sam3.sizes()
    assert all(np.array_equal(loaded.weights[name], w) for name, w in small_sam3.model().weights.items())


@pytest.mark.slow  # transformers' model is built and runs
def test_verify_compares_with_transformers(source, tmp_path, convert):
    assert "largest difference from transformers' logits" in convert(source, tmp_path / "ours", "--verify")
    model, name = load_pretrained(str(source)), "vision_tower/blocks/1/mlp/up/bias"
    wrong = dataclasses.replace(model, weights={**model.weights, name: model.weights[name] + 1})
    with mistakes.raises("wrong-conversion: transformers' logits"):
        sam3_verify.verify(wrong, source)


MISTAKES = {
    "lacks": (
        lambda folder: save_file({"a": np.ones(1, np.float32)}, folder / "model.safetensors"),
        "wrong-weights: the checkpoint lacks text_encoder",
    ),
    "unknown": (
        lambda folder: save_file(
            load_file(folder / "model.safetensors") | {"extra.weight": np.ones(1, np.float32)},
            folder / "model.safetensors",
        ),
        "wrong-weights: doesn't know: extra.weight",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "not-a-model: model.safetensors"),
    "activation": (
        lambda folder: change_config(folder, "text_config", hidden_act="relu"),
        "model-config: hidden_act must be quick_gelu or gelu, got 'relu'",
    ),
    "rotation": (
        lambda folder: change_config(folder, "vision_config", "backbone_config", rope_parameters={"rope_theta": 5.0}),
        "model-config: rope_theta must be 10000.0, got 5.0",
    ),
    "width": (
        lambda folder: change_config(folder, "detr_encoder_config", hidden_size=32),
        "model-config: detr_encoder_config: hidden_size must be 16, got 32",
    ),
    "scales": (
        lambda folder: change_config(folder, "vision_config", scale_factors=[3.0, 1.0]),
        r"model-config: scale_factors must be .*, got \[3.0, 1.0\]",
    ),
    "size": (
        lambda folder: change_config(folder, "text_config", num_hidden_layers=2),
        "wrong-weights: doesn't know: text_encoder.text_model.encoder.layers.2",
    ),
    "model": (lambda folder: change_config(folder, model_type="sam2"), "unknown-model-type: 'sam3'.*got 'sam2'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name, source, tmp_path, convert):
    spoil, says = MISTAKES[name]
    spoil(source)
    with mistakes.raises(says):
        convert(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_another_model_is_refused(tmp_path, convert):
    with mistakes.raises("wrong-model: SAM 3, got CLIPSegConfig"):
        convert("clipseg-tiny", tmp_path / "ours")


@pytest.mark.parametrize("option", ["--to-huggingface", "--verify"])
def test_a_model_without_instances_has_no_folder_for_transformers(option, tmp_path, convert):
    with mistakes.raises("wrong-model: lacks SAM 3's boxes or instances, .*; only a folder of ours holds it"):
        convert("sam3-tiny", tmp_path / "theirs", option)
    assert not (tmp_path / "theirs").exists()


def test_a_gated_repository_says_what_to_do(tmp_path, convert, monkeypatch):
    class Refusal(GatedRepoError):
        def __init__(self):
            Exception.__init__(self, "401 Client Error\n\nCannot access gated repo\nMore lines")

    def refuse(*_, **__):
        raise Refusal

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with mistakes.raises("gated-model: 'facebook/sam3' is gated: accept its terms .* `hf auth login`"):
        convert("facebook/sam3", tmp_path / "ours")
