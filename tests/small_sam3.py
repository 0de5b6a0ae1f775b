"""A SAM 3 that compiles in seconds, as sizes, weights and a model folder."""

from functools import cache
from pathlib import Path
from typing import Any

import small_cris

from tunevlseg_jax.models.clip import TextConfig
from tunevlseg_jax.models.sam3 import SAM3Config
from tunevlseg_jax.models.sam3_instances import SAM3InstancesConfig
from tunevlseg_jax.models.sam3_unused import SAM3UnusedConfig
from tunevlseg_jax.models.sam3_vision import SAM3VisionConfig
from tunevlseg_jax.pretrained.load import save_pretrained
from tunevlseg_jax.pretrained.model import Pretrained

BLOCKS = 3
IMAGE = 42


def sizes(image_size: int = IMAGE, scales: tuple[float, ...] = (4.0, 2.0, 1.0), **vision: Any) -> SAM3Config:
    """Three blocks a tower, of which one vision block attends to the whole image; other windows exceed the grid."""
    vocabulary = small_cris.tokenizer().backend.get_vocab_size()
    return SAM3Config(
        text=TextConfig(
            width=24,
            blocks=BLOCKS,
            heads=2,
            hidden=48,
            vocabulary=vocabulary,
            context_length=24,
            end_token=vocabulary - 1,
            activation="gelu",
        ),
        vision=SAM3VisionConfig(
            **{"width": 32, "blocks": BLOCKS, "heads": 2, "hidden": 40, "patch": 7, "image_size": 21}
            | {"window": 4, "global_blocks": (1,), "scales": scales}
            | vision
        ),
        unused=SAM3UnusedConfig(
            pixel_stages=4 - len(scales),
            box_layers=1,
            box_heads=2,
            box_hidden=28,
            roi_size=3,
        ),
        instances=SAM3InstancesConfig(layers=2, heads=4, hidden=28, queries=5),
        sentence_width=20,
        width=16,
        encoder_layers=2,
        encoder_heads=2,
        encoder_hidden=28,
        mask_heads=4,
        image_size=image_size,
    )


@cache
def model() -> Pretrained:
    """Random weights, and the embedded models' tokenizer."""
    return Pretrained(sizes(), small_cris.random_weights(sizes()), small_cris.tokenizer(), "")


def write_folder(folder: Path) -> Path:
    """Writes a model folder."""
    save_pretrained(folder, model(), {"made by": "tests"})
    return folder
