"""Tests of `python -m conversion.run`: a run that trained its model becomes a model, whichever model it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import chex
import mistakes
import numpy as np
import pytest
import small
import small_cris

from conversion import run as conversion
from tunevlseg_jax import cli
from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.runs.card import make_card, save_learnt
from tunevlseg_jax.runtime import schema
from tunevlseg_jax.runtime.files import read_json, sha256, write_json


@pytest.fixture(params=["clipseg", "cris"])
def base(request, tmp_path) -> Path:
    """The model that runs start from."""
    if request.param == "cris":
        return small_cris.write_folder(tmp_path / "base")
    return Path(shutil.copytree(small.model_folder(), tmp_path / "base"))


@pytest.fixture
def convert(monkeypatch, capsys) -> Callable[..., str]:
    """Runs the command in this process; gives what it prints, or raises a UserError with its line of error."""

    def run(*arguments: object) -> str:
        try:
            small.run(monkeypatch, conversion.main, *arguments)
        except SystemExit as stop:
            assert stop.code == cli.MISTAKEN
            captured = capsys.readouterr()
            assert captured.out == ""
            raise mistakes.printed(captured.err) from None
        return capsys.readouterr().out

    return run


def make_run(
    folder: Path,
    base: Path,
    learnt: dict[str, np.ndarray],
    *,
    fresh: bool = False,
    digest: str | None = None,
    size: tuple[int, int] | None = None,
) -> Path:
    """What a run that ended leaves behind, as far as a conversion reads it."""
    model = Model(checkpoint=str(base), fresh=fresh, image_size=size)
    config = Config(model=model, train=Train(tune="all" if fresh else "decoder"))
    digest = ("" if fresh else sha256(base / "model.safetensors")) if digest is None else digest
    save_learnt(folder, learnt, make_card(config, digest, (64, 64), {}))
    write_json(folder / "config.json", schema.to_json(config))
    return folder


def decoder_of(model: Pretrained) -> dict[str, np.ndarray]:
    return {f"model/{name}": weight + 1 for name, weight in model.weights.items() if name.startswith("decoder/")}


def assert_is(folder: Path, model: Pretrained, weights: dict[str, np.ndarray]) -> None:
    loaded = load_pretrained(str(folder))
    assert loaded.config == model.config
    assert loaded.tokenizer.backend.to_str() == model.tokenizer.backend.to_str()
    chex.assert_trees_all_equal(loaded.weights, weights, strict=True)


def test_a_run_that_trained_the_decoder(base, tmp_path, convert):
    model = load_pretrained(str(base))
    run = make_run(tmp_path / "run", base, decoder_of(model))
    output = convert("--run", run, "--output", tmp_path / "ours")
    weights = {name: weight + 1 if name.startswith("decoder/") else weight for name, weight in model.weights.items()}
    assert_is(tmp_path / "ours", model, weights)
    digest = sha256(run / "prompts.safetensors")
    assert digest in output
    source = read_json(tmp_path / "ours" / "config.json")["source"]
    assert source == {"made by": "conversion.run", "run": "run", "sha256": digest}


@pytest.mark.parametrize("size", [(96, 96), (96, 64)])
def test_the_size_of_the_training_images(base, tmp_path, convert, size):
    model = load_pretrained(str(base))
    run = make_run(tmp_path / "run", base, decoder_of(model), size=size)
    output = convert("--run", run, "--output", tmp_path / "ours")
    square = size[0] == size[1]
    assert load_pretrained(str(tmp_path / "ours")).config.image_size == (96 if square else model.config.image_size)
    assert ("--model.image-size 96 64" in output) != square


def test_a_run_that_trained_everything_from_scratch(base, tmp_path, convert):
    model = load_pretrained(str(base))
    (base / "model.safetensors").unlink()
    learnt = {f"model/{name}": weight + 1 for name, weight in model.weights.items()}
    run = make_run(tmp_path / "run", base, learnt, fresh=True)
    (run / "config.json").unlink()  # the learnt tensors and their card are enough
    convert("--run", run, "--output", base, "--dtype", "float16")  # in the place of the sizes that it started from
    halves = {name: (weight + 1).astype(np.float16).astype(np.float32) for name, weight in model.weights.items()}
    assert_is(base, model, halves)


CONTEXT = {"learner/context": np.zeros((1, 4, 32), np.float32)}
NO_MODELS = {
    "prompts alone": (lambda learnt: CONTEXT, "not-convertible: no weights"),
    "prompts too": (lambda learnt: learnt | CONTEXT, "not-convertible: learner/context"),
    "unknown": (
        lambda learnt: learnt | {"model/decoder/more": np.zeros(1, np.float32)},
        "wrong-weights: unknown decoder/more",
    ),
    "shape": (lambda learnt: {name: x[..., None] for name, x in learnt.items()}, "wrong-weights: shape of decoder/"),
    "too large": (lambda learnt: {name: x * 1e6 for name, x in learnt.items()}, "beyond-float16: decoder/"),
}


@pytest.mark.parametrize("name", NO_MODELS)
def test_runs_that_are_no_models(name, base, tmp_path, convert):
    change, message = NO_MODELS[name]
    run = make_run(tmp_path / "run", base, change(decoder_of(load_pretrained(str(base)))))
    with mistakes.raises(message):
        convert("--run", run, "--output", tmp_path / "ours", "--dtype", "float16")
    assert not (tmp_path / "ours").exists()


def test_runs_of_another_base_and_folders_that_are_no_runs(base, tmp_path, convert):
    run, decoder = tmp_path / "run", decoder_of(load_pretrained(str(base)))
    make_run(run, base, decoder, digest="0" * 64)
    with mistakes.raises("model-changed: base"):
        convert("--run", run, "--output", tmp_path / "ours")
    make_run(run, base, decoder, fresh=True)
    with mistakes.raises("wrong-weights: lacks logit_scale"):
        convert("--run", run, "--output", tmp_path / "ours")
    with mistakes.raises(r"not-a-model: conversion\.run"):
        load_pretrained(str(run))
    (run / "card.json").unlink()
    with mistakes.raises("run-unfinished: training"):
        convert("--run", run, "--output", tmp_path / "ours")
    with mistakes.raises("run-unfinished: card.json in .*base"):
        convert("--run", base, "--output", tmp_path / "ours")
    with mistakes.raises("other-folder: run .*model"):
        convert("--run", run, "--output", run)
