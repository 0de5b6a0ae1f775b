"""A CRIS that compiles in seconds, as sizes, weights, a model folder and a published checkpoint."""

from functools import cache
from pathlib import Path

import numpy as np

from conversion.cris_tensors import cris_rules
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.catalogue import AnyModelConfig
from tunevlseg_jax.models.clip import TextConfig
from tunevlseg_jax.models.cris import CRISConfig
from tunevlseg_jax.models.resnet import ResNetConfig
from tunevlseg_jax.pretrained import rules
from tunevlseg_jax.pretrained.load import EMBEDDED, save_pretrained
from tunevlseg_jax.pretrained.model import Pretrained
from tunevlseg_jax.pretrained.tokenizer import Tokenizer

BLOCKS = 3
HEADS = 4
IMAGE = 64


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(EMBEDDED / "clipseg-tiny")


@cache
def sizes() -> CRISConfig:
    """Three text blocks, one bottleneck a stage, one decoder layer."""
    vocabulary = tokenizer().backend.get_vocab_size()
    return CRISConfig(
        text=TextConfig(width=64, blocks=BLOCKS, heads=1, hidden=96, vocabulary=vocabulary, context_length=24),
        vision=ResNetConfig(layers=(1, 2, 1, 1), width=8, embedding_width=32, image_size=IMAGE),
        neck_widths=(16, 64, 32),
        decoder_layers=1,
        decoder_heads=HEADS,
        decoder_hidden=48,
        image_size=IMAGE,
    )


@cache
def weights() -> dict[str, np.ndarray]:
    """Random ones; statistics of BatchNorm are such as training leaves, not zeros and ones."""
    return random_weights(sizes())


def random_weights(config: AnyModelConfig) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    weights = {}
    for path, shape in sorted(weight_shapes(config).items()):
        if path.endswith("variance"):
            weights[path] = rng.uniform(0.5, 2, shape).astype(np.float32)
        elif path.endswith(("kernel", "bias", "embedding")):
            fan_in = np.prod(shape[:-1], dtype=int) if path.endswith("kernel") else 100
            weights[path] = (rng.standard_normal(shape, np.float32) * fan_in**-0.5).astype(np.float32)
        else:
            weights[path] = (path.endswith("scale") + 0.1 * rng.standard_normal(shape, np.float32)).astype(np.float32)
    return weights


def model() -> Pretrained:
    return Pretrained(sizes(), weights(), tokenizer(), "")


def write_folder(folder: Path) -> Path:
    """Writes a model folder."""
    save_pretrained(folder, model(), {"made by": "tests"})
    return folder


def published() -> dict[str, np.ndarray]:
    """The weights under the published names, without counters."""
    return rules.to_theirs(cris_rules(sizes()), weights())
