"""A model that compiles in seconds, and the runs, files and commands that tests build around it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tunevlseg_jax import command, experiment, pretrained
from tunevlseg_jax.config import Config, Data, Model, Optim, Scenes, Train
from tunevlseg_jax.learners import VPT
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig
from tunevlseg_jax.network import random_model
from tunevlseg_jax.pretrained import EMBEDDED, Pretrained
from tunevlseg_jax.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
IMAGE = 48


@cache
def pretrained_model() -> Pretrained:
    """Three blocks a tower and random weights."""
    tokenizer = Tokenizer.load(EMBEDDED / "clipseg-tiny")
    end = tokenizer.backend.get_vocab_size() - 1
    config = CLIPSegConfig(
        text=TextConfig(width=32, blocks=3, heads=2, hidden=64, vocabulary=end + 1, context_length=24, end_token=end),
        vision=VisionConfig(width=32, blocks=3, heads=2, hidden=64, patch=12, image_size=IMAGE),
        embedding_width=32,
        taps=(0, 1, 2),
        decoder_width=16,
        decoder_heads=2,
        decoder_hidden=32,
        image_size=IMAGE,
    )
    weights = {path: np.asarray(array) for path, array in random_model(config, jax.random.key(7)).items()}
    return Pretrained(config, weights, tokenizer, "")
