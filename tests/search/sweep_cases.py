"""Studies and comparisons that the tests of sweeps share."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from numpy.testing import assert_allclose
from rich.console import Console

from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.learners import CoOp
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.parameters import nested, subtree
from tunevlseg_jax.runs.card import load_learnt
from tunevlseg_jax.search import run_sweep
from tunevlseg_jax.sweep import Options

COOP = CoOp(depth=1, num_context=2, init_phrase=None)


QUIET = Console(quiet=True)


def options(folder: Path, config: Config | None = None, **changes) -> Options:
    """A study of three trials at once."""
    config = config or small.config(learner=COOP)
    return Options(**({"study": "s", "trials": 3, "folder": str(folder), "config": config} | changes))


def curve(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def check_same_run(first: Path, second: Path, tolerance: float = 1e-4) -> None:
    """Two runs agree in their losses, their scores and the prompts that they learnt."""
    for ours, theirs in zip(curve(first), curve(second), strict=True):
        assert ours["learning_rate"] == theirs["learning_rate"]
        for part in ("train", "val"):
            for name in ours[part]:  # scores count pixels, and may differ by one of a few thousand
                close = {"rtol": tolerance, "atol": 0 if name == "loss" else 1e-4}
                assert_allclose(ours[part][name], theirs[part][name], **close, err_msg=f"{part} {name}")
    config, learnt, card = load_learnt(first)
    _, expected, other_card = load_learnt(second)
    if card["best_epoch"] != other_card["best_epoch"]:  # two epochs are equally good but for rounding
        best = {folder: max(line["val"]["dice"] for line in curve(folder)) for folder in (first, second)}
        assert_allclose(curve(first)[other_card["best_epoch"] - 1]["val"]["dice"], best[first], rtol=0, atol=1e-4)
        assert_allclose(curve(second)[card["best_epoch"] - 1]["val"]["dice"], best[second], rtol=0, atol=1e-4)
        return
    assert {path: array.shape for path, array in learnt.items()} == {
        path: array.shape for path, array in expected.items()
    }
    for ours, theirs in zip(prompts(config.learner, learnt), prompts(config.learner, expected), strict=True):
        assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


def prompts(learner: Learner, learnt: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What a learner gives a model, as far as its depth goes; CoCoOp's for one random image."""
    params = nested(subtree({path: jnp.asarray(array) for path, array in learnt.items()}, "learner"))
    depth, dropout = learner.traced_values()
    experiment = learner.prompts(params, jnp.asarray(depth), dropout=jnp.asarray(dropout), key=None)
    if "condition" in learner.changes:
        width = params["projector"]["layer0"]["kernel"].shape[1]
        experiment = learner.condition(params, experiment, jax.random.normal(jax.random.key(0), (1, width)))
    depths = np.broadcast_to(depth, 2)  # of the text tower, of the vision tower
    both = zip((experiment.text, experiment.vision), depths, strict=True)
    return [np.asarray(array)[:rows] for array, rows in both if array is not None]


def three_trials(folder: str, learner: str, space: Sequence[str]) -> Options:
    """A study of the small model: three trials at once, three epochs, rates as in the paper."""
    config = small.config(learner=run_sweep.BY_NAME[learner](), train=Train(epochs=3, batch_size=4))
    return options(Path(folder), config, parallel=3, space=space)


SPACES = {
    "coop": (),
    "cocoop": ("hidden=8,16", "projector.kind=mlp"),
    "vpt": (),
    "maple": ("hidden=8,16", "kind=low_rank"),
    "sharedseparate": ("width=8,16",),
    "sharedattention": ("heads=4", "hidden=32,48", "norm_first=true"),
    "lora": ("rank=2,4",),
    "vlsmadapter": ("hidden=8,16",),
    "bitfit": (),
    "normtuning": (),
    "linearprobe": (),
    "ivlp": ("vision_depth=1..3",),
    "kgcoop": (),
    "promptsrc": ("average_epoch=2..3",),
}
"""A search space of each learner."""


def each(*learners: str) -> pytest.MarkDecorator:
    """Repeats a test for these learners, with their spaces."""
    return pytest.mark.parametrize(("learner", "space"), [(name, SPACES[name]) for name in learners], ids=learners)
