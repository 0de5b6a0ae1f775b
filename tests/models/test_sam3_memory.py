"""Tests of what makes a SAM 3 fit: cached features, recomputed blocks and shared passes."""

import dataclasses
from functools import cache

import abstract_step
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
import small_sam3
from numpy.testing import assert_allclose

from tunevlseg_jax.benchmarks import programs
from tunevlseg_jax.config import Config, Train
from tunevlseg_jax.data.feeding.scratch import num_bytes
from tunevlseg_jax.learners import VPT, CoOp, LoRA
from tunevlseg_jax.learners.contract import Learner
from tunevlseg_jax.models.build import weight_shapes
from tunevlseg_jax.models.catalogue import SAM3Config
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.experiment import Experiment
from tunevlseg_jax.training.losses import dice_ce

quick_compilation = small.quick_compilation
SIDE = small_sam3.IMAGE
REAL = dataclasses.replace(SAM3Config(), unused=None)


def built(learner: Learner, **train) -> Experiment:
    return build_experiment(Config(learner=learner, train=Train(**train)), small_sam3.model())


def inputs() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8), draw.integers(0, 2, (2, SIDE, SIDE)).astype(bool)


def gradients_of(experiment: Experiment):
    """A compiled loss with its gradient: a function of the trainable parameters and of images or their features."""
    masks, table = inputs()[1], experiment.encode_text(["a circle", "a tall square"])

    def loss_of(trainable, images):
        params, depth = {**experiment.frozen, **trainable}, jnp.int32(2)
        logits = experiment.network.logits(params, images, jnp.arange(2), table, depth=depth, dropout=jnp.zeros(()))
        return dice_ce(logits, jnp.asarray(masks)).sum()

    return jax.jit(jax.value_and_grad(loss_of))


def assert_same(ours, theirs, rtol: float) -> None:
    """Losses, and gradients as a share of the largest one."""
    (loss, gradients), (other, others) = ours, theirs
    assert_allclose(other, loss, rtol=rtol)
    largest = max(float(abs(gradient).max()) for gradient in gradients.values())
    assert largest > 0
    for path, gradient in gradients.items():
        assert_allclose(others[path], gradient, rtol=0, atol=rtol * largest, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cached_features_change_nothing(precision):
    """They are the cells before the pyramid, whose products round them to bfloat16 in any case."""
    experiment = built(CoOp(depth=2, init_phrase=None), precision=precision)
    images, run = jnp.asarray(inputs()[0]), gradients_of(experiment)
    features = experiment.encode_images(images)
    assert features.states[0].shape == (2, 6, 6, 32) and features.states[0].dtype == experiment.network.dtype
    assert_same(run(experiment.trainable, images), run(experiment.trainable, features), 1e-5)


@pytest.mark.slow
def test_the_features_of_an_image_at_full_size():
    """The cells of 72 x 72 patches and the image vector, in bfloat16; the pyramid would be five times as large."""
    network = dataclasses.replace(built(CoOp(depth=2, init_phrase=None), precision="bfloat16").network, config=REAL)
    weights = {f"model/{path}": jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in weight_shapes(REAL).items()}
    images = jax.ShapeDtypeStruct((1, 1008, 1008, 3), jnp.uint8)
    assert num_bytes(jax.eval_shape(network.encode_images, weights, images)) == 2 * (72 * 72 + 1) * 1024


@pytest.mark.slow
@pytest.mark.parametrize("learner", [VPT(depth=2, max_depth=3), LoRA(depth=2)], ids=lambda each: type(each).__name__)
def test_recomputed_blocks_change_nothing(learner):
    """Neither the loss nor its gradient; the program has more operations."""
    usual, other = (built(learner, recompute=recompute) for recompute in ("nothing", "blocks"))
    trainable = {path: array + 0.01 for path, array in usual.trainable.items()}  # a LoRA starts without gradients
    images, runs = jnp.asarray(inputs()[0]), [gradients_of(usual), gradients_of(other)]
    assert_same(*(run(trainable, images) for run in runs), 1e-4)
    less, more = (programs.flops(run.trace(trainable, images)) for run in runs)
    assert more > less


@cache
def operations(side: int, trials: int) -> float:
    """Of a step of CoOp at the real size, on four images of one class."""
    sizes = dataclasses.replace(REAL, image_size=side)
    return programs.flops(
        abstract_step.traced(sizes, CoOp(depth=9, init_phrase=None), trials, batch=4, upsampling="none")
    )


@pytest.mark.slow
@pytest.mark.parametrize(("side", "most"), [(336, 0.184), (504, 0.18), (672, 0.2), (840, 0.201), (1008, 0.23)])
def test_eight_trials_share_the_vision_pass(side, most):
    """And the pixel decoder's convolutions of the image's grids; attention among the cells is each trial's own."""
    share = operations(side, 8) / (8 * operations(side, 1))
    print(side, round(share, 4))
    assert share <= most


SHARDED = """
import sys
from tunevlseg_jax.benchmarks import programs
from tunevlseg_jax.config import Config, Model, Train
from tunevlseg_jax.learners import VPT
from tunevlseg_jax.runtime import sharding
from tunevlseg_jax.training import loop, step
from tunevlseg_jax.training.build import build_experiment
from tunevlseg_jax.training.optim import Schedule

mesh = sharding.mesh()
for shard in (False, True):
    train = Train(batch_size=8, shard_frozen=shard, precision="float32")
    config = Config(model=Model(checkpoint=sys.argv[1]), learner=VPT(depth=2, max_depth=3), train=train)
    experiment = build_experiment(config).on_mesh(mesh)
    source = programs.random_source(8, experiment.image_size, mesh, augmented=False)
    state = loop.begin(*experiment.for_trials(1), mesh).state
    table = sharding.replicate(experiment.encode_text(["polyp"]), mesh)
    for _ in range(2):
        arguments = state, experiment.frozen, source, table
        state, sums = step.train_step(*arguments, network=experiment.network, schedule=Schedule(0, 0))
        print(*map(float, sums.loss))
    print(sum(array.addressable_data(0).nbytes for array in experiment.frozen.values()))
"""


@pytest.mark.slow
def test_frozen_weights_may_be_shared_out(tmp_path):
    """Eight devices, with a copy of the weights each or with an eighth of them, train as one does."""
    folder, numbers = small_sam3.write_folder(tmp_path), {}
    for devices in (1, 8):
        flags = f"--xla_force_host_platform_device_count={devices}"
        status, out, err = small.finish(small.start("-c", SHARDED, folder, XLA_FLAGS=flags), 300)
        assert (status, err) == (0, "")
        numbers[devices] = [float(line) for line in out.splitlines()]
    *losses, whole = numbers[1][:3]
    assert losses[0] != losses[1]
    assert_allclose([*numbers[8][:2], *numbers[8][3:5]], 2 * losses, rtol=1e-5)
    assert numbers[8][2] == whole and numbers[8][5] < 0.3 * whole
