"""Tests of training on several devices: eight simulated ones give what one gives."""

from __future__ import annotations

import dataclasses
import json

import pytest
import small
from numpy.testing import assert_allclose
from rich.console import Console

from tunevlseg_jax.config import Train
from tunevlseg_jax.train import train

quick_compilation = small.quick_compilation

SIZES = (4, 8)
"""Records in a batch: eight devices divide one of them, and the last batch of neither is full."""
SCRIPT = """
import sys
from rich.console import Console
from tunevlseg_jax import config, train
for path in sys.argv[1:]:
    train.train(config.load(path), Console())
"""


def run(folder, size: int):
    """A configuration with that many records in a batch, and a folder of its own; the larger batches are resident."""
    config = small.config(folder / str(size), train=Train(epochs=3, batch_size=size))
    placement = "resident" if size == SIZES[-1] else "streaming"
    return dataclasses.replace(config, data=dataclasses.replace(config.data, placement=placement))


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The folder of runs on eight devices, in a process that has them."""
    folder = tmp_path_factory.mktemp("eight")
    paths = [small.write_config(folder / f"{size}.py", run(folder, size)) for size in SIZES]
    process = small.start("-c", SCRIPT, *paths, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    status, out, err = small.finish(process)
    assert (status, err) == (0, "") and "8 cpu devices" in out
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_eight_devices_give_the_losses_of_one(eight, tmp_path, size):
    results = train(run(tmp_path, size), Console(quiet=True))
    one, other = (
        [json.loads(line) for line in (folder / str(size) / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path, eight)
    )
    for part in ("train", "val"):
        assert_allclose([row[part]["loss"] for row in other], [row[part]["loss"] for row in one], rtol=1e-5)
    theirs = json.loads((eight / str(size) / "results.json").read_text())
    for row in results:
        for split in ("val", "test"):
            assert_allclose(theirs[row][split]["loss"], results[row][split]["loss"], rtol=1e-5)
            assert_allclose(theirs[row][split]["dice"], results[row][split]["dice"], atol=1e-3)
