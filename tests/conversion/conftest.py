"""A Hugging Face folder of a CLIPSeg, and the command that converts it."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mistakes
import pytest
from clipseg_folders import GOLDEN, PREPROCESSOR

from conversion import clipseg
from conversion.tiny.sizes import train_tokenizer
from tunevlseg_jax import cli
from tunevlseg_jax.runtime.files import write_json


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer()


@pytest.fixture
def source(tmp_path, tokenizer) -> Path:
    """A Hugging Face folder as transformers 4 wrote it, with a tokenizer and a preprocessor."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / name, folder / name)
    tokenizer.save(folder)
    write_json(folder / "preprocessor_config.json", PREPROCESSOR)
    return folder


@pytest.fixture
def convert(monkeypatch, capsys) -> Callable[..., str]:
    """Runs the command in this process; returns its output, or raises a UserError with its line of error."""

    def run(checkpoint, output, *options: str) -> str:
        arguments = ["--checkpoint", str(checkpoint), "--output", str(output), *options]
        monkeypatch.setattr(sys, "argv", ["clipseg", *arguments])
        capsys.readouterr()  # what a fixture printed
        try:
            cli.run(clipseg.main)
        except SystemExit as stop:
            assert stop.code == cli.MISTAKEN
            captured = capsys.readouterr()
            assert captured.out == ""
            raise mistakes.printed(captured.err) from None
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run
