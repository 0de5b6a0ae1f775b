"""A model that compiles in seconds, and the runs that tests build around it."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import compilation
import numpy as np
import pytest
from rich.console import Console

from tunevlseg_jax import cli
from tunevlseg_jax.config import Config, Model, Optim, Train
from tunevlseg_jax.data.settings import Data, Scenes
from tunevlseg_jax.learners import VPT
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.load import EMBEDDED, save_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.tokenizer import Tokenizer
from tunevlseg_jax.runs import trainer
from tunevlseg_jax.runs.card import TIMING_FIELDS
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join(map(str, [ROOT, *sorted({path.parent for path in (ROOT / "tests").rglob("*.py")})]))
"""For the processes that tests start: the project, and the modules of the tests."""
TPU = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu isn't installed (the extra `tpu`)")
IMAGE = 48
BLOCKS = 3
CONTEXT = 24

FOLDER = Path(tempfile.mkdtemp(dir=compilation.session_folder()))
"""Of this process; pytest removes the folder of the session, which it is in."""
os.environ["TUNEVLSEG_CACHE"] = str(FOLDER / "cache")  # not the user's


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """For the test files that name this fixture: they compile much and compute little."""
    with compilation.quick():
        yield


@cache
def model_folder() -> Path:
    """A converted model: three blocks a tower, random weights, the embedded model's tokenizer."""
    tokenizer = Tokenizer.load(EMBEDDED / "clipseg-tiny")
    end = tokenizer.backend.get_vocab_size() - 1
    config = CLIPSegConfig(
        text=TextConfig(
            width=32, blocks=BLOCKS, heads=2, hidden=64, vocabulary=end + 1, context_length=CONTEXT, end_token=end
        ),
        vision=VisionConfig(width=32, blocks=BLOCKS, heads=2, hidden=64, patch=12, image_size=IMAGE),
        embedding_width=32,
        taps=(0, 1, 2),
        decoder_width=16,
        decoder_heads=2,
        decoder_hidden=32,
        image_size=IMAGE,
    )
    save_pretrained(FOLDER / "model", Pretrained(config, random_weights(config), tokenizer, ""), {"made by": "tests"})
    return FOLDER / "model"


def random_weights(config: CLIPSegConfig) -> dict[str, np.ndarray]:
    """Such that no stage is idle."""
    rng = np.random.default_rng(7)
    return {
        path: (path.endswith("scale") + 0.15 * rng.normal(size=shape)).astype(np.float32)
        for path, shape in weight_shapes(config).items()
    }


def config(workdir: Path | str = "unused", **changes) -> Config:
    """Three epochs of three steps with visual prompts, the last step half empty."""
    usual = Config(
        model=Model(checkpoint=str(model_folder())),
        learner=VPT(depth=2, max_depth=BLOCKS, num_context=2),
        upsampling="blend",
        data=Data(name="scenes/photo", scenes=Scenes(train=10, val=5, test=6)),
        optim=Optim(learning_rate=1e-2),
        train=Train(epochs=3, batch_size=4, augment=False),
        workdir=str(workdir),
    )
    return dataclasses.replace(usual, **changes)


@cache
def build(config: Config) -> Experiment:
    """`build_experiment`, once for each configuration."""
    return build_experiment(config)


def write_config(path: Path, config: Config) -> Path:
    """A configuration file that defines `config`."""
    path.write_text(
        "from numpy import inf\n"
        "from tunevlseg_jax.config import *\n"
        "from tunevlseg_jax.learners import *\n"
        f"config = {config!r}\n",
        encoding="utf-8",
    )
    return path


def run(monkeypatch: pytest.MonkeyPatch, main, *arguments: object) -> None:
    """Runs a command in this process, as from the command line."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    cli.run(main)


def start(*arguments: object, stdin: bool = False, **environment: str) -> subprocess.Popen:
    """Starts Python with these arguments, such as ("-m", module), as a process in which every warning is an error.

    With `stdin` the test writes what the process reads.
    """
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",  # as in conftest.py: the same programs, so that they load
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": PYTHONPATH,
        "COLUMNS": "200",
        **{name.upper(): str(value) for name, value in compilation.settings().items()},
    }
    return subprocess.Popen(
        [sys.executable, "-W", "error", *map(str, arguments)],
        env=os.environ | settings | environment,
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


@cache
def finished() -> Path:
    """The folder of a run that `config` describes."""
    trainer.train(config(FOLDER / "run"), Console(quiet=True))
    return FOLDER / "run"


def metrics(folder: Path) -> list[dict]:
    """The epochs of a run, without what the clock decides."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: row[name] for name in row if name not in TIMING_FIELDS} for row in rows]


def check_that_it_continues(folder: Path) -> None:
    """A run that `config` describes and that was cut short goes on, and ends as if it had not been."""
    trainer.train(config(folder), Console(quiet=True))
    for name in ("prompts.safetensors", "results.json"):
        assert (folder / name).read_bytes() == (finished() / name).read_bytes()
    assert metrics(folder) == metrics(finished())


def finish(process: subprocess.Popen, seconds: float = 180) -> tuple[int, str, str]:
    """The exit status, stdout and stderr of a process that ends by itself, without what Gloo's threads print."""
    out, err = process.communicate(timeout=seconds)
    # Its threads write at once, so that a line may begin in the middle of another.
    ours = [line for line in out.splitlines(keepends=True) if "[Gloo]" not in line and "peer ranks" not in line]
    return process.returncode, "".join(ours), err
