"""The benchmark's peer: CLIPSeg of transformers, with the same sizes and images, in a process of its own."""

import contextlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from tunevlseg_jax.benchmarks.peer_process import PRECISIONS, Learnt
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.pretrained.clipseg_config import config_to_huggingface
from tunevlseg_jax.runtime import huge_pages
from tunevlseg_jax.runtime.errors import UserError

Runs = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Peer:
    """Functions that run the peer once.

    Attributes:
      forward: its forward pass, by precision.
      training: its training step by precision; empty if it has none for the learner.
    """

    forward: Runs = field(default_factory=dict)
    training: Runs = field(default_factory=dict)


@contextlib.contextmanager
def started(
    config: CLIPSegConfig, images: np.ndarray, tokens: np.ndarray, learnt: Learnt | None = None
) -> Iterator[Peer]:
    """The peer with random weights, as people run it: in a process without JAX and without this package's huge pages.

    Args:
      config: sizes.
      images: (batch, height, width, 3) uint8, RGB.
      tokens: (1, length) int32; the peer encodes them for every image.
      learnt: the prompts of its training step; None for no training step.

    Raises:
      UserError: the peer's process has ended, perhaps because PyTorch isn't installed.
    """
    command = [sys.executable, "-c", "from tunevlseg_jax.benchmarks.peer_process import serve; serve()"]
    environment = huge_pages.without_huge_pages(os.environ)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def ask(message: bytes) -> None:
            with contextlib.suppress(BrokenPipeError):
                requests.write(message)
                requests.flush()
            if not answers.readline():
                raise UserError("--peer transformers: its process ended; its own lines above say why", "lost-process")

        def runs(kind: str) -> Runs:
            return {precision: partial(ask, f"{kind}{precision}\n".encode()) for precision in PRECISIONS}

        try:
            ask(pickle.dumps((config_to_huggingface(config), config.mean, config.std, images, tokens, learnt)))
            yield Peer(runs(""), runs("training ") if learnt else {})
        finally:
            with contextlib.suppress(BrokenPipeError):
                requests.close()  # which ends the process
