"""The benchmark's peer: a process of its own, as people run it."""

import contextlib
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from tunevlseg_jax.benchmarks import peer, peer_process
from tunevlseg_jax.benchmarks.peer import Peer
from tunevlseg_jax.benchmarks.peer_process import Learnt
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.clipseg_config import config_to_huggingface
from tunevlseg_jax.pretrained.load import load_pretrained
from tunevlseg_jax.runtime.errors import UserError
from tunevlseg_jax.runtime.huge_pages import VARIABLE

IMAGES = np.zeros((2, small.IMAGE, small.IMAGE, 3), np.uint8)
TOKENS = np.ones((1, small.CONTEXT), np.int32)


def started(learnt: Learnt | None = None) -> contextlib.AbstractContextManager[Peer]:
    return peer.started(config(), IMAGES, TOKENS, learnt)


def config() -> CLIPSegConfig:
    sizes = load_pretrained(str(small.model_folder())).config
    assert isinstance(sizes, CLIPSegConfig)
    return sizes


def children() -> list[int]:
    return [int(number) for number in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.mark.slow
def test_the_peer_runs_in_both_precisions_without_our_huge_pages_and_ends(monkeypatch):
    monkeypatch.setenv(VARIABLE, "glibc.malloc.hugetlb=1")
    before = children()
    with started(Learnt("vision", 2, 1)) as running:
        (process,) = set(children()) - set(before)
        assert VARIABLE not in Path(f"/proc/{process}/environ").read_text()
        assert "jaxlib" not in Path(f"/proc/{process}/maps").read_text()
        assert set(running.forward) == set(running.training) == {"float32", "autocast"}
        for run in (*running.forward.values(), *running.training.values()) * 2:
            run()
    assert children() == before


@pytest.mark.slow
def test_a_peer_that_ends_is_an_error_of_one_line():
    before = children()
    with (
        pytest.raises(UserError, match="--peer transformers: its process ended"),
        started() as running,
    ):
        assert not running.training
        (process,) = set(children()) - set(before)
        os.kill(process, signal.SIGKILL)
        running.forward["float32"]()


@pytest.fixture(scope="module")
def theirs() -> tuple[Any, Any, Any]:
    """A small CLIPSeg of transformers with random weights and frozen parameters, images, and tokens."""
    torch = pytest.importorskip("torch")
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    torch.manual_seed(0)
    sizes = config_to_huggingface(config())
    model = CLIPSegForImageSegmentation(CLIPSegConfig(**sizes)).eval().requires_grad_(False)
    ids = torch.tensor([[1, 5, 9, 3], [1, 7, 9, 2]])
    return model, torch.randn(2, 3, small.IMAGE, small.IMAGE), ids


@pytest.mark.slow
@pytest.mark.parametrize(("tower", "depth"), [("text", 1), ("text", 2), ("vision", 1), ("vision", 2)])
def test_the_peer_learns_every_prompt(theirs, tower, depth):
    """Each one changes in a step, alone, and steps lower the loss."""
    torch = pytest.importorskip("torch")
    model, pixels, ids = theirs
    sizes = model.config.text_config if tower == "text" else model.config.vision_config
    prompts = torch.nn.Parameter(0.02 * torch.randn(depth, 3, sizes.hidden_size))
    before, masks = prompts.detach().clone(), torch.rand(2, small.IMAGE, small.IMAGE).round()
    optimizer, scaler = torch.optim.AdamW([prompts], lr=1e-4), torch.amp.GradScaler("cpu", enabled=False)

    answer = partial(peer_process.logits, model, pixels, ids, **{tower: prompts})

    def loss() -> float:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(answer(), masks).detach())

    first = loss()
    for _ in range(5):
        peer_process.training_step(answer, masks, contextlib.nullcontext, optimizer, scaler)
    assert bool(((prompts.detach() - before).abs().amax(dim=-1) > 0).all())
    assert loss() < first
    assert all(parameter.grad is None for parameter in model.parameters())
