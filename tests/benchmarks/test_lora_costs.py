"""The memory of LoRA's step, and of its trials side by side, counted in programs that never run."""

import abstract_step
import pytest

from tunevlseg_jax.learners import VPT, LoRA
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.clip import TextConfig, VisionConfig
from tunevlseg_jax.models.clipseg import CLIPSegConfig

WIDE = CLIPSegConfig(
    text=TextConfig(width=128, blocks=2, heads=2, hidden=512, vocabulary=16, context_length=8),
    vision=VisionConfig(width=256, blocks=2, heads=2, hidden=1024, patch=16, image_size=32),
    embedding_width=16,
    taps=(0, 1),
    decoder_width=8,
    decoder_heads=2,
    decoder_hidden=8,
    image_size=32,
)
"""A model whose weights are much larger than the activations of its few tokens."""


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_eight_trials_hold_one_copy_of_the_frozen_weights():
    learner = LoRA(depth=2, products=("query", "key", "value", "out", "up", "down"))
    weights = 4 * sum(size_of(dims) for dims in weight_shapes(WIDE).values())
    one, eight = (memory(WIDE, learner, trials, batch=1) for trials in (1, 8))
    own = abstract_step.learnt_bytes(WIDE, learner)
    assert eight.argument_size_in_bytes - one.argument_size_in_bytes <= 7 * own + 2**16
    assert one.argument_size_in_bytes >= weights
    # Each trial has activations and gradients of its own, and no copy of the weights.
    assert eight.temp_size_in_bytes - one.temp_size_in_bytes < weights


@pytest.mark.slow
def test_a_step_needs_no_more_memory_than_vpts():
    """Beside the arguments, with three of CLIPSeg's blocks a tower, whose other sizes are the real ones.

    The dropout of the published configuration is drawn again for the gradient; stored, it took 48 MiB more.
    """
    sizes = CLIPSegConfig(text=TextConfig(blocks=3), vision=VisionConfig(blocks=3), taps=(0, 1, 2))
    lora = LoRA(depth=3)
    assert lora.dropout > 0
    least, most = (memory(sizes, each, batch=8).temp_size_in_bytes for each in (lora, VPT(depth=3, max_depth=3)))
    assert least <= most + abstract_step.learnt_bytes(sizes, lora)


def memory(sizes: CLIPSegConfig, learner: Learner, trials: int = 1, batch: int = 4):
    compiled = abstract_step.traced(sizes, learner, trials, batch, augmented=False).lower().compile()
    return compiled.memory_analysis()


def size_of(dims: tuple[int, ...]) -> int:
    product = 1
    for side in dims:
        product *= side
    return product
