"""A study over folds that is killed at random moments ends with the numbers of an undisturbed one."""

import json
import random
import time
from pathlib import Path

import killed
import pytest
from test_study import write
from test_study_folds import definition, prepared

KILLS = 4


def numbers(folder: Path) -> dict[str, tuple[bytes, dict]]:
    """What was learnt in each run of the finished cells, and its scores."""
    cells = json.loads((folder / "cells.json").read_text("utf-8"))
    runs = [run for cell in cells.values() for run in cell["runs"]]
    return {
        run: (
            (folder / run / "prompts.safetensors").read_bytes(),
            json.loads((folder / run / "evaluations" / "discs_test_model.json").read_text("utf-8"))["scores"],
        )
        for run in runs
    }


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_numbers(tmp_path):
    root = prepared(tmp_path)

    def options(name: str) -> tuple[str, Path]:
        study = definition(tmp_path / name, root, ablations=())
        return "--config", write(tmp_path / f"{name}.py", study)

    start = time.monotonic()
    with killed.command("tunevlseg_jax.study", *options("whole")) as command:
        assert command.run() == 0
    seconds, rng, kills = time.monotonic() - start, random.Random(0), 0
    with killed.command("tunevlseg_jax.study", *options("killed")) as command:
        for number in range(KILLS):
            kills += command.run(seconds * rng.uniform(0.1, 0.3 + 0.1 * number)) == -9
        assert command.run() == 0
    assert kills >= 2
    whole = numbers(tmp_path / "whole")
    assert len(whole) == 1 + 2 + 4 and numbers(tmp_path / "killed") == whole
